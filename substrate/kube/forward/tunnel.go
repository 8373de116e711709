package forward

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

var errClosed = errors.New("the way through the API server is closed")

// tunnel is one connection to a pod, with a pair of streams for each connection through it.
type tunnel struct {
	// opened is closed when conn or err is known.
	opened chan struct{}
	conn   httpstream.Connection
	err    error

	mu       sync.Mutex
	requests int
	streams  int
	// retired tunnels take no new streams and close with their last one.
	retired bool
}

// streams are what one connection consists of.
type streams struct {
	data, failure httpstream.Stream
}

// tunnel returns the tunnel to a pod, which may still be opening.
func (d *Dialer) tunnel(p pod) (*tunnel, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	if t := d.tunnels[p]; t != nil && !t.broken() {
		return t, nil
	}
	t := &tunnel{opened: make(chan struct{})}
	d.tunnels[p] = t
	// Nobody can interrupt a handshake, so nobody waits for its end but who wants the tunnel.
	go func() {
		conn, err := d.connect(p)
		t.mu.Lock()
		t.conn, t.err = conn, err
		unwanted := err == nil && t.retired && t.streams == 0
		t.mu.Unlock()
		close(t.opened)
		switch {
		case unwanted:
			_ = conn.Close()
		case err != nil:
			d.retire(p, t)
		}
	}()
	return t, nil
}

// connect asks for a WebSocket, and for SPDY where server or proxy know no other.
func (d *Dialer) connect(p pod) (httpstream.Connection, error) { //nolint:ireturn // client-go gives only the interface
	url := d.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(p.namespace).Name(p.name).SubResource("portforward").URL()
	websocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, d.config)
	if err != nil {
		return nil, fmt.Errorf("set up a WebSocket: %w", err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(rest.CopyConfig(d.config))
	if err != nil {
		return nil, fmt.Errorf("set up SPDY: %w", err)
	}
	older := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	conn, protocol, err := portforward.NewFallbackDialerForStreaming(websocket, older, wantsOlder).Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, refusal(err)
	}
	if protocol != portforward.PortForwardProtocolV1Name {
		return nil, errors.Join(fmt.Errorf("the API server speaks %q in place of %q", protocol, portforward.PortForwardProtocolV1Name), conn.Close())
	}
	return conn, nil
}

// wantsOlder says whether SPDY may help where a WebSocket did not: not where the pod does not exist.
func wantsOlder(err error) bool {
	return !apierrors.IsNotFound(refusal(err)) && (httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err))
}

// refusal is the API server's own answer where there is one.
func refusal(err error) error {
	var upgrade *httpstream.UpgradeFailureError
	if errors.As(err, &upgrade) && upgrade.Cause != nil {
		return upgrade.Cause
	}
	return err
}

// retire gives no new streams over t; it closes with its last one.
func (d *Dialer) retire(p pod, t *tunnel) {
	d.mu.Lock()
	if d.tunnels[p] == t {
		delete(d.tunnels, p)
	}
	d.mu.Unlock()
	t.mu.Lock()
	t.retired = true
	idle := t.streams == 0
	t.mu.Unlock()
	if idle {
		t.close()
	}
}

// broken says that the connection to the API server has ended.
func (t *tunnel) broken() bool {
	select {
	case <-t.opened:
	default:
		return false
	}
	if t.err != nil {
		return true
	}
	select {
	case <-t.conn.CloseChan():
		return true
	default:
		return false
	}
}

// close ends the tunnel; what is open through it sees its end.
func (t *tunnel) close() {
	t.mu.Lock()
	t.retired = true
	conn := t.conn
	t.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
	}
}

// stream opens one pair of streams to a port.
func (t *tunnel) stream(port int32) (streams, error) {
	t.mu.Lock()
	t.requests++
	t.streams++
	request := t.requests
	t.mu.Unlock()
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(int(port)))
	headers.Set(corev1.PortForwardRequestIDHeader, strconv.Itoa(request))
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	failure, err := t.conn.CreateStream(headers)
	if err != nil {
		t.release()
		return streams{}, fmt.Errorf("open the stream of errors: %w", err)
	}
	_ = failure.Close() // we write nothing there
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := t.conn.CreateStream(headers)
	if err != nil {
		t.release(failure)
		return streams{}, fmt.Errorf("open the stream of data: %w", err)
	}
	return streams{data: data, failure: failure}, nil
}

// release ends streams, and the tunnel with the last of a retired one.
func (t *tunnel) release(ended ...httpstream.Stream) {
	for _, s := range ended {
		_ = s.Reset()
	}
	t.conn.RemoveStreams(ended...)
	t.mu.Lock()
	t.streams--
	last := t.retired && t.streams == 0
	t.mu.Unlock()
	if last {
		_ = t.conn.Close()
	}
}

// usedWait is how long a tunnel that was there already may take to give a stream. One whose
// end nobody has noticed yet gives none, and says so only after half a minute.
const usedWait = 3 * time.Second

// open opens a connection over the pod's tunnel; over a new one when that of earlier
// connections turns out to have ended. What is opened after ctx has ended is closed again.
func (d *Dialer) open(ctx context.Context, e end, address string) (*connection, error) {
	t, err := d.tunnel(e.pod)
	if err != nil {
		return nil, err
	}
	if t.used() {
		first, cancel := context.WithTimeout(ctx, usedWait)
		c, err := d.over(first, t, e, address)
		cancel()
		if err == nil || ctx.Err() != nil || errors.Is(err, errClosed) {
			return c, err
		}
		if t, err = d.tunnel(e.pod); err != nil {
			return nil, err
		}
	}
	return d.over(ctx, t, e, address)
}

// used says whether a tunnel has given streams before.
func (t *tunnel) used() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.requests > 0
}

// over opens a connection over this tunnel, and retires it when that fails.
func (d *Dialer) over(ctx context.Context, t *tunnel, e end, address string) (*connection, error) {
	select {
	case <-t.opened:
	case <-d.done:
		return nil, errClosed
	case <-ctx.Done():
		return nil, fmt.Errorf("the API server has not opened a connection to it: %w", ctx.Err())
	}
	if t.err != nil {
		return nil, t.err
	}
	type result struct {
		streams
		err error
	}
	done := make(chan result, 1)
	go func() {
		s, err := t.stream(e.port)
		done <- result{s, err}
	}()
	var why error
	select {
	case r := <-done:
		if r.err != nil {
			d.retire(e.pod, t)
			return nil, r.err
		}
		return d.join(t, e, address, r.streams), nil
	case <-d.done:
		why = errClosed
	case <-ctx.Done():
		why = fmt.Errorf("the API server has not opened a stream to it: %w", ctx.Err())
	}
	d.retire(e.pod, t)
	go func() {
		if r := <-done; r.err == nil {
			t.release(r.data, r.failure)
		}
	}()
	return nil, why
}
