package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Dialer connects to pods through an API server. Names that end in .svc (or in
// .svc.<cluster domain>) are looked up there; every other address is dialed directly. All
// methods may be used at once by many.
type Dialer struct {
	config *rest.Config
	client kubernetes.Interface
	direct net.Dialer
	// turn goes on with each dial to a Service, so that a try again meets another pod.
	turn atomic.Uint32

	mu     sync.Mutex
	closed bool
	// done is closed with the Dialer.
	done chan struct{}
	// tunnels by pod; a tunnel that is no longer good is not in it.
	tunnels map[pod]*tunnel
	// work are the dials and the connections that were made.
	work sync.WaitGroup
}

// New prepares a Dialer and connects nowhere yet. Close ends it.
func New(config *rest.Config) (*Dialer, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("set up the way through the API server: %w", err)
	}
	return &Dialer{config: config, client: client, done: make(chan struct{}), tunnels: map[pod]*tunnel{}}, nil
}

// DialContext opens a connection to host:port, where host is
//
//	<pod>.<service>.<namespace>.svc   that pod
//	<service>.<namespace>.svc         a ready pod behind that Service
//
// and anything else is dialed directly. That nothing listens on a pod's port shows at the
// first Read: the container runtime connects after the stream is open.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	name, ok, err := parse(address)
	if err != nil {
		return nil, err
	}
	if !ok {
		return d.direct.DialContext(ctx, network, address)
	}
	if err := d.begin(); err != nil {
		return nil, err
	}
	defer d.work.Done()
	ends, err := d.resolve(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("find the pod of %s: %w", address, err)
	}
	var failures []error
	for _, e := range ends {
		conn, err := d.open(ctx, e, address)
		if err == nil {
			return conn, nil
		}
		failures = append(failures, fmt.Errorf("forward to port %d of pod %s: %w", e.port, e.pod, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failures...)
}

// begin counts a dial as work, which Close waits for.
func (d *Dialer) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errClosed
	}
	d.work.Add(1)
	return nil
}

// Close ends every connection that goes through the Dialer.
func (d *Dialer) Close() error {
	d.mu.Lock()
	if !d.closed {
		d.closed = true
		close(d.done)
	}
	var open []*tunnel
	for key, t := range d.tunnels {
		open = append(open, t)
		delete(d.tunnels, key)
	}
	d.mu.Unlock()
	for _, t := range open {
		t.close()
	}
	d.work.Wait()
	return nil
}
