// Package netns enters the network of a machine and wires machines to one bridge.
package netns

import (
	"context"
	"fmt"
	"net"
	"runtime"

	"github.com/vishvananda/netns"
)

// Do calls f in the network namespace of a process. f must do its system calls on the goroutine it is called on.
func Do(pid int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine instead of carrying the foreign namespace on.
		runtime.LockOSThread()
		ns, err := netns.GetFromPid(pid)
		if err != nil {
			done <- fmt.Errorf("find the network of pid %d: %w", pid, err)
			return
		}
		defer ns.Close() //nolint:errcheck // only read
		if err := netns.Set(ns); err != nil {
			done <- fmt.Errorf("enter the network of pid %d: %w", pid, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Dial connects from within the network of a process. The address must be an IP and a port: a name would be looked up on
// another thread.
func Dial(ctx context.Context, pid int, address string) (net.Conn, error) {
	var conn net.Conn
	err := Do(pid, func() error {
		var err error
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
		return err //nolint:wrapcheck // says what and where already
	})
	return conn, err
}
