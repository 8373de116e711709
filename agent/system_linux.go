package agent

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// linux is the host's own system.
type linux struct {
	boot string
	// limits guards the agent's own limit of open files, which a child inherits.
	limits sync.Mutex
}

func newLinux() (*linux, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read the kernel's boot id: %w", err)
	}
	return &linux{boot: strings.TrimSpace(string(boot))}, nil
}

func (l *linux) Boot() string { return l.boot }

func (l *linux) Start(c command) (process, error) { //nolint:ireturn // the seam for tests
	pidfd := -1
	cmd := &exec.Cmd{
		Path: c.Path, Args: c.Args, Env: c.Env, Dir: c.Dir, Stdout: c.Output, Stderr: c.Output,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	}
	if c.User.other {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.User.uid, Gid: c.User.gid, Groups: c.User.groups}
	}
	if err := l.startLimited(cmd, c.OpenFiles); err != nil {
		return nil, err
	}
	_, ticks, err := readStat(cmd.Process.Pid)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("look at the process just started: %w", err), cmd.Process.Kill(), cmd.Wait())
	}
	id := identity{PID: cmd.Process.Pid, Ticks: ticks, Boot: l.boot}
	if pidfd < 0 {
		return nil, errors.Join(errors.New("the kernel gives no pidfd: Linux 5.4 or newer is needed"), cmd.Process.Kill(), cmd.Wait())
	}
	return held(watch(id, pidfd, cmd))
}

// startLimited lends the agent's own limit to the child, since a limit set after the start
// may come too late for it.
func (l *linux) startLimited(cmd *exec.Cmd, openFiles int64) error {
	l.limits.Lock()
	defer l.limits.Unlock()
	if openFiles <= 0 {
		return cmd.Start()
	}
	var own syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &own); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	lent := own
	lent.Cur = min(uint64(openFiles), own.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lent); err != nil {
		return fmt.Errorf("set the limit of open files: %w", err)
	}
	err := cmd.Start()
	if back := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &own); back != nil {
		return errors.Join(err, fmt.Errorf("take back the limit of open files: %w", back))
	}
	return err
}

// Adopt takes hold of the pid first and asks afterwards whose it is: from then on it
// cannot become another process unseen.
func (l *linux) Adopt(id identity) (process, error) { //nolint:ireturn // the seam for tests
	if id.PID <= 0 || id.Boot != l.boot {
		return nil, nil
	}
	pidfd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", id.PID, err)
	}
	_, ticks, err := readStat(id.PID)
	if err != nil || ticks != id.Ticks || exited(pidfd) {
		return nil, unix.Close(pidfd)
	}
	return held(watch(id, pidfd, nil))
}

// Find looks for the oldest session leader with the token in its environment.
func (l *linux) Find(token string) (identity, bool) {
	var found []identity
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil || token == "" {
		return identity{}, false
	}
	mark := []byte(tokenVariable + "=" + token)
	for _, file := range environs {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			continue
		}
		// Processes end while one looks, and others' are not readable: neither is ours.
		environ, err := os.ReadFile(file) //nolint:gosec // a path of the agent itself
		if err != nil || !slices.ContainsFunc(bytes.Split(environ, []byte{0}), func(v []byte) bool { return bytes.Equal(v, mark) }) {
			continue
		}
		if session, ticks, err := readStat(pid); err == nil && session == pid {
			found = append(found, identity{PID: pid, Ticks: ticks, Boot: l.boot})
		}
	}
	if len(found) == 0 {
		return identity{}, false
	}
	return slices.MinFunc(found, func(a, b identity) int { return cmp.Compare(a.Ticks, b.Ticks) }), true
}

// readStat gives the session and the start time of a process (proc(5), fields 6 and 22).
func readStat(pid int) (session int, ticks uint64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// Field 2 is a name in parentheses that may hold anything, also parentheses.
	after := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(after) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	if session, err = strconv.Atoi(after[3]); err != nil {
		return 0, 0, fmt.Errorf("read the session of process %d: %w", pid, err)
	}
	if ticks, err = strconv.ParseUint(after[19], 10, 64); err != nil {
		return 0, 0, fmt.Errorf("read the start time of process %d: %w", pid, err)
	}
	return session, ticks, nil
}

func exited(pidfd int) bool {
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}} //nolint:gosec // a pid, exit code or descriptor fits
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0
}

// watched is a process held by its pidfd.
type watched struct {
	id     identity
	handle *os.File
	cmd    *exec.Cmd // nil for an adopted process
	done   chan struct{}
	ended  chan struct{}
	exit   exit
}

func watch(id identity, pidfd int, cmd *exec.Cmd) (*watched, error) {
	if err := unix.SetNonblock(pidfd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare to watch process %d: %w", id.PID, err), unix.Close(pidfd))
	}
	w := &watched{
		id: id, handle: os.NewFile(uintptr(pidfd), "pidfd"), cmd: cmd,
		done: make(chan struct{}), ended: make(chan struct{}),
	}
	conn, err := w.handle.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch process %d: %w", id.PID, err), w.handle.Close())
	}
	go w.wait(conn)
	return w, nil
}

// held keeps a failure from becoming a process that is not nil.
func held(w *watched, err error) (process, error) { //nolint:ireturn // the seam for tests
	if err != nil {
		return nil, err
	}
	return w, nil
}

// wait sleeps in the runtime's poller until the process ends or is released.
func (w *watched) wait(conn syscall.RawConn) {
	defer close(w.ended)
	if err := conn.Read(func(fd uintptr) bool { return exited(int(fd)) }); err != nil {
		return
	}
	if w.cmd != nil {
		// Not reaped yet, so the group's number is still ours: nothing of it stays behind.
		_ = unix.Kill(-w.id.PID, unix.SIGKILL)
		w.exit = exitOf(w.cmd)
	}
	close(w.done)
}

func exitOf(cmd *exec.Cmd) exit {
	_ = cmd.Wait() // a failure exit is not an error here: the state says all
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return exit{}
	case status.Signaled():
		return exit{Known: true, Code: 128 + int32(status.Signal())} //nolint:gosec // a pid, exit code or descriptor fits
	default:
		return exit{Known: true, Code: int32(status.ExitStatus())} //nolint:gosec // a pid, exit code or descriptor fits
	}
}

func (w *watched) Identity() identity    { return w.id }
func (w *watched) Done() <-chan struct{} { return w.done }
func (w *watched) Exit() exit            { return w.exit }

func (w *watched) Terminate() error { return w.signal(unix.SIGTERM) }

func (w *watched) Kill() error {
	select {
	case <-w.done:
		return nil
	default:
	}
	// It leads its group, which is killed with it; the pidfd is for the case that it left it.
	_ = unix.Kill(-w.id.PID, unix.SIGKILL)
	return w.signal(unix.SIGKILL)
}

func (w *watched) signal(s unix.Signal) error {
	conn, err := w.handle.SyscallConn()
	if err != nil {
		return fmt.Errorf("signal process %d: %w", w.id.PID, err)
	}
	var sent error
	if err := conn.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), s, nil, 0) }); err != nil {
		return fmt.Errorf("signal process %d: %w", w.id.PID, err)
	}
	if sent != nil && !errors.Is(sent, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", w.id.PID, sent)
	}
	return nil
}

func (w *watched) Release() {
	_ = w.handle.Close() // ends the wait; nothing was written
	<-w.ended
}

// credential is a user to run as; not other is the agent's own.
type credential struct {
	other    bool
	uid, gid uint32
	groups   []uint32
}

func (c credential) owner() owner {
	if !c.other {
		return nobody()
	}
	return owner{uid: int(c.uid), gid: int(c.gid)}
}

// lookupUser says whom to run as. Only root may switch, and only to the users that the
// agent was started with.
func lookupUser(name string, allowed []string) (credential, error) {
	if name == "" {
		return credential{}, nil
	}
	own, err := user.Current()
	if err != nil {
		return credential{}, fmt.Errorf("look up the agent's own user: %w", err)
	}
	if name == own.Username {
		return credential{}, nil
	}
	if os.Geteuid() != 0 || !slices.Contains(allowed, name) {
		return credential{}, refused("the agent may not run programs as user %q: it runs as %s and was allowed %q; change the Host's user or the agent's", name, own.Username, allowed)
	}
	found, err := user.Lookup(name)
	if err != nil {
		return credential{}, refused("user %q does not exist on this host: create it", name)
	}
	return credentialOf(found)
}

func credentialOf(u *user.User) (credential, error) {
	uid, err := parseID(u.Uid)
	if err != nil {
		return credential{}, err
	}
	gid, err := parseID(u.Gid)
	if err != nil {
		return credential{}, err
	}
	c := credential{other: true, uid: uid, gid: gid}
	ids, err := u.GroupIds()
	if err != nil {
		return credential{}, fmt.Errorf("look up the groups of %s: %w", u.Username, err)
	}
	for _, id := range ids {
		group, err := parseID(id)
		if err != nil {
			return credential{}, err
		}
		c.groups = append(c.groups, group)
	}
	return c, nil
}

func parseID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == math.MaxUint32 {
		return 0, fmt.Errorf("user or group id %q is not a number", text)
	}
	return uint32(id), nil
}

func ownedBy(info fs.FileInfo, own owner) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == own.uid && int(stat.Gid) == own.gid
}
