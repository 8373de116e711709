package forward

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// connection is one pair of streams as a net.Conn. A net.Pipe stands between caller and
// streams, so that deadlines and Close work as they do on a socket.
type connection struct {
	net.Conn
	remote addr

	once  sync.Once
	ended chan struct{}
	mu    sync.Mutex
	cause error
}

// addr is where a connection leads to.
type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }

// join starts what moves the bytes of a connection.
func (d *Dialer) join(t *tunnel, e end, address string, s streams) *connection {
	near, far := net.Pipe()
	c := &connection{Conn: near, remote: addr(address), ended: make(chan struct{})}
	failed := make(chan struct{})
	d.work.Go(func() {
		defer close(failed)
		text, err := io.ReadAll(s.failure)
		if err != nil || len(text) == 0 {
			return
		}
		c.fail(fmt.Errorf("forward to port %d of pod %s: %s", e.port, e.pod, strings.TrimSpace(string(text))))
		d.retire(e.pod, t)
		_ = s.data.Reset()
	})
	drained := make(chan struct{})
	d.work.Go(func() {
		_, _ = io.Copy(s.data, far) // what breaks shows on the other way
		_ = s.data.Close()
		// The last bytes go out before the streams are torn down.
		within(lastWord, drained, nil)
		_ = s.data.Reset()
	})
	d.work.Go(func() {
		_, _ = io.Copy(far, s.data)
		close(drained)
		// The stream of errors ends with the connection, and may say why.
		within(lastWord, failed, c.ended)
		_ = far.Close()
		t.release(s.data, s.failure)
	})
	return c
}

// within waits until one of two things has happened, at the longest for so long.
func within(bound time.Duration, one, other <-chan struct{}) {
	timer := time.NewTimer(bound)
	defer timer.Stop()
	select {
	case <-one:
	case <-other:
	case <-timer.C:
	}
}

// lastWord is how long an ended connection waits for the other side: its last bytes, or its reason.
const lastWord = time.Second

func (c *connection) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cause = errors.Join(c.cause, err)
}

func (c *connection) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// Read says why the other side ended where that was told.
func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if cause := c.failure(); cause != nil && errors.Is(err, io.EOF) {
		err = cause
	}
	return n, err
}

// Write says why the other side ended where that was told.
func (c *connection) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if cause := c.failure(); cause != nil && errors.Is(err, io.ErrClosedPipe) {
		err = cause
	}
	return n, err
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.once.Do(func() { close(c.ended) })
	return c.Conn.Close()
}

// RemoteAddr is the address that was dialed.
func (c *connection) RemoteAddr() net.Addr { return c.remote }
