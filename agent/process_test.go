package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
)

// station is a runner on the real system with a program of its own.
type station struct {
	t      *testing.T
	folder folder
	runner *runner
	stop   context.CancelFunc
	ended  chan bool

	mu     sync.Mutex
	status api.HostProcessStatus
}

func newStation(t *testing.T) *station {
	t.Helper()
	// Deeper than a socket's path may be long.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 20), "p")
	s := &station{t: t, folder: folder{path: dir}}
	t.Cleanup(s.end)
	return s
}

func (s *station) run(o *order) {
	s.t.Helper()
	system, err := newLinux()
	if err != nil {
		s.t.Fatal(err)
	}
	executable, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := newRunner(site{
		executable: executable, system: system, archives: fakeArchives{},
		publish: func(_ order, status api.HostProcessStatus) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.status = status
		},
		removed: func(context.Context, order) error { return nil },
	}, s.folder, slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	if o != nil {
		r.Order(*o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.runner, s.stop, s.ended = r, cancel, make(chan bool, 1)
	go func() { s.ended <- r.Run(ctx) }()
}

func (s *station) halt() {
	s.stop()
	<-s.ended
}

// end leaves nothing running.
func (s *station) end() {
	if s.runner == nil {
		return
	}
	s.halt()
	o := realOrder()
	o.Deleting = true
	s.run(&o)
	select {
	case <-s.ended:
	case <-time.After(20 * time.Second):
		s.t.Error("the process did not end")
	}
	s.stop()
}

// await waits until the status is as wanted.
func (s *station) await(what string, ok func(api.HostProcessStatus) bool) api.HostProcessStatus {
	s.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		s.mu.Lock()
		status := s.status
		s.mu.Unlock()
		if ok(status) {
			return status
		}
		select {
		case <-deadline:
			s.t.Fatalf("waited in vain for %s; status is %+v", what, status)
		case <-tick.C:
		}
	}
}

func realOrder(change ...func(*order)) order {
	o := order{
		Name: "p", UID: "u",
		Spec: api.HostProcessSpec{
			State: api.StateRunning,
			Program: api.Program{
				Args: []string{"castellan", "serve"}, Env: map[string]string{"AGENT_TEST_PROGRAM": "1"},
				StopGraceSeconds: 10, Socket: "p.sock",
			},
			Files:   []api.File{{Path: "live.txt", Content: "one"}},
			Secrets: []api.SecretFiles{{SecretName: "s", Path: "tls"}},
		},
		Secrets: map[string]map[string][]byte{"s": {"key": []byte("k1")}},
	}
	for _, c := range change {
		c(&o)
	}
	return o
}

func isReady(s api.HostProcessStatus) bool { return s.Ready && s.State == api.ProcessRunning }

func reported(t *testing.T, s api.HostProcessStatus) (live, secret string) {
	t.Helper()
	var report struct{ Live, Secret string }
	if err := json.Unmarshal([]byte(s.Report), &report); err != nil {
		t.Fatal(err)
	}
	return report.Live, report.Secret
}

func TestRealProcess(t *testing.T) {
	s := newStation(t)
	o := realOrder()
	s.run(&o)
	first := s.await("ready", isReady)
	if live, secret := reported(t, first); live != "one" || secret != "k1" {
		t.Errorf("the process sees %q and %q", live, secret)
	}
	wantSession(t, int(first.PID))
	if info, err := os.Stat(filepath.Join(s.folder.run(), "tls/key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("secret file: %v %v", info, err)
	}

	// Files and secrets arrive without a restart.
	s.runner.Order(realOrder(func(o *order) {
		o.Spec.Files[0].Content = "two"
		o.Secrets["s"]["key"] = []byte("k2")
	}))
	second := s.await("the new files", func(st api.HostProcessStatus) bool {
		if st.Report == "" {
			return false
		}
		live, secret := reported(t, st)
		return live == "two" && secret == "k2"
	})
	if second.PID != first.PID {
		t.Errorf("pid %d became %d for a live file", first.PID, second.PID)
	}

	// Another agent adopts it, with no API server in sight.
	s.halt()
	if err := syscall.Kill(int(first.PID), 0); err != nil {
		t.Fatalf("the process ended with its agent: %v", err)
	}
	s.run(nil)
	if adopted := s.await("ready", isReady); adopted.PID != first.PID || adopted.Restarts != 0 {
		t.Errorf("adopted %+v, want pid %d", adopted, first.PID)
	}

	// kill -9 of an adopted process is seen and mended.
	if err := syscall.Kill(int(first.PID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	third := s.await("ready again", func(st api.HostProcessStatus) bool { return isReady(st) && st.PID != first.PID })
	if third.Restarts != 1 || third.LastExit == nil || !strings.Contains(third.LastExit.LogTail, "serving") {
		t.Errorf("status does not tell of the end: %+v", third)
	}

	// kill -9 of its own child is told by its signal.
	if err := syscall.Kill(int(third.PID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	fourth := s.await("ready again", func(st api.HostProcessStatus) bool { return isReady(st) && st.PID != third.PID })
	if fourth.LastExit.Code != 137 || fourth.LastExit.Reason != ReasonKilled {
		t.Errorf("last exit is %+v", fourth.LastExit)
	}

	s.runner.Order(realOrder(func(o *order) { o.Spec.State = api.StateStopped }))
	s.await("stopped", func(st api.HostProcessStatus) bool {
		return st.State == api.ProcessStopped && st.Report == "" && !st.Ready
	})
}

func TestAnotherProcessWithTheSamePidIsNotOurs(t *testing.T) {
	system, err := newLinux()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	_, ticks, err := readStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	right := identity{PID: cmd.Process.Pid, Ticks: ticks, Boot: system.Boot()}
	for name, wrong := range map[string]identity{
		"earlier start": {PID: right.PID, Ticks: ticks - 1, Boot: right.Boot},
		"earlier boot":  {PID: right.PID, Ticks: ticks, Boot: "another"},
		"no process":    {PID: 1 << 22, Ticks: ticks, Boot: right.Boot},
	} {
		if p, err := system.Adopt(wrong); p != nil || err != nil {
			t.Errorf("%s: adopted %v, %v", name, p, err)
		}
	}
	p, err := system.Adopt(right)
	if err != nil || p == nil {
		t.Fatalf("the right one was not adopted: %v, %v", p, err)
	}
	p.Release()
}

// TestAStrangerIsNeverSignalled has an agent come back to a pid that is another's by now.
func TestAStrangerIsNeverSignalled(t *testing.T) {
	stranger := exec.Command("sleep", "60")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = stranger.Process.Kill()
		_ = stranger.Wait()
	}()
	system, err := newLinux()
	if err != nil {
		t.Fatal(err)
	}
	s := newStation(t)
	o := realOrder(func(o *order) { o.Spec.State = api.StateStopped })
	if err := s.folder.saveOrder(o); err != nil {
		t.Fatal(err)
	}
	program := o.Spec.Program
	if err := s.folder.saveState(state{
		Token: newToken(), Identity: identity{PID: stranger.Process.Pid, Ticks: 1, Boot: system.Boot()},
		Program: &program, ProgramHash: ProgramHash(program), StartedAt: time.Now(),
	}); err != nil {
		t.Fatal(err)
	}
	s.run(nil)
	s.await("stopped", func(st api.HostProcessStatus) bool { return st.State == api.ProcessStopped })
	if err := stranger.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the stranger was ended: %v", err)
	}
}

func TestSecondAgentIsKeptOut(t *testing.T) {
	dir := t.TempDir()
	lock, err := lockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockFolder(dir); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("a second agent got %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := lockFolder(dir)
	if err != nil {
		t.Fatalf("the lock outlived its holder: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestExecutableIsCopiedByContent(t *testing.T) {
	source, dir := filepath.Join(t.TempDir(), "castellan"), t.TempDir()
	mustWrite(t, source, "one")
	first, err := installExecutable(source, dir)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, source, "two")
	second, err := installExecutable(source, dir)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, first, "one")
	wantFile(t, second, "two")
}

func wantSession(t *testing.T, pid int) {
	t.Helper()
	session, _, err := readStat(pid)
	if err != nil || session != pid {
		t.Errorf("process %d is in session %d (%v), want its own", pid, session, err)
	}
}

// TestOpenFiles asks a shell, since a Go program raises its own limit when it starts.
func TestOpenFiles(t *testing.T) {
	for name, test := range map[string]struct {
		asked int64
		want  string
	}{
		"lower":             {1234, "1234"},
		"more than one may": {1 << 40, hardOpenFiles(t)},
	} {
		t.Run(name, func(t *testing.T) {
			system, err := newLinux()
			if err != nil {
				t.Fatal(err)
			}
			output, err := os.Create(filepath.Join(t.TempDir(), "out"))
			if err != nil {
				t.Fatal(err)
			}
			defer output.Close() //nolint:errcheck // read back by name
			p, err := system.Start(command{Path: "/bin/sh", Args: []string{"sh", "-c", "ulimit -n"}, Dir: "/", Output: output, OpenFiles: test.asked})
			if err != nil {
				t.Fatal(err)
			}
			<-p.Done()
			p.Release()
			if e := p.Exit(); !e.Known || e.Code != 0 {
				t.Errorf("exit is %+v", e)
			}
			wantFile(t, output.Name(), test.want+"\n")
		})
	}
}

func hardOpenFiles(t *testing.T) string {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return strconv.FormatUint(limit.Max, 10)
}
