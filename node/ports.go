package node

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"castellan.dev/castellan/core/layout"
)

// portWait lets a process that is just ending give its port back.
const portWait = 3 * time.Second

// checkPorts names who holds a port that Kafka needs.
func checkPorts(ctx context.Context, listeners []layout.Listener) error {
	ctx, cancel := context.WithTimeout(ctx, portWait)
	defer cancel()
	for _, l := range listeners {
		for {
			err := tryPort(ctx, l)
			if err == nil {
				break
			}
			if !errors.Is(err, syscall.EADDRINUSE) {
				return fail(ExitHost, ReasonPortInUse, "port %d of listener %s cannot be bound on %s (%v): the address must be one of this host, a port below 1024 needs a privilege", l.Port, l.Name, l.Bind, err)
			}
			if !pause(ctx, 200*time.Millisecond) {
				return fail(ExitHost, ReasonPortInUse, "port %d of listener %s is taken by %s: end that, or give the listener another port", l.Port, l.Name, portHolder("/proc", l.Port))
			}
		}
	}
	return nil
}

func tryPort(ctx context.Context, l layout.Listener) error {
	host := l.Bind
	if host == "0.0.0.0" {
		host = "" // as Java does: IPv4 and IPv6
	}
	var config net.ListenConfig
	listener, err := config.Listen(context.WithoutCancel(ctx), "tcp", layout.HostPort(host, l.Port))
	if err != nil {
		return err
	}
	return listener.Close()
}

// portHolder finds who listens on a port, as far as this user may see.
func portHolder(proc string, port int32) string {
	inodes := listeningInodes(proc, port)
	if len(inodes) == 0 {
		return "another process"
	}
	fds, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*"))
	if err != nil {
		return "another process"
	}
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !inodes[target] {
			continue
		}
		pid := filepath.Base(filepath.Dir(filepath.Dir(fd)))
		return fmt.Sprintf("process %s (%s)", pid, commandOf(proc, pid))
	}
	return "a process of another user (see: ss -ltnp)"
}

// listeningInodes are the sockets ("socket:[inode]") that listen on a port.
func listeningInodes(proc string, port int32) map[string]bool {
	const (
		local, state, inode = 1, 3, 9
		listening           = "0A"
	)
	suffix := fmt.Sprintf(":%04X", port)
	inodes := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile(filepath.Join(proc, "net", table)) //nolint:gosec // the kernel's own table
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(bytes.NewReader(data))
		for lines.Scan() {
			f := strings.Fields(lines.Text())
			if len(f) > inode && f[state] == listening && strings.HasSuffix(f[local], suffix) {
				inodes["socket:["+f[inode]+"]"] = true
			}
		}
	}
	return inodes
}

// commandOf leaves out the arguments: they are others' business and may hold secrets.
func commandOf(proc, pid string) string {
	data, err := os.ReadFile(filepath.Join(proc, pid, "cmdline")) //nolint:gosec // the kernel's own table
	if err != nil {
		return "unknown command"
	}
	name, _, _ := strings.Cut(string(data), "\x00")
	return strings.ToValidUTF8(name, "?")
}
