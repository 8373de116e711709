package netns

import "golang.org/x/sys/unix"

// What the kernel answers for a route or a link that is not there.
const (
	errNoSuchProcess = unix.ESRCH
	errNoSuchDevice  = unix.ENODEV
)
