package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	api "castellan.dev/castellan/api/v1alpha1"
)

// fakeSystem is a host whose processes end when the test says so.
type fakeSystem struct {
	mu      sync.Mutex
	started []*fakeProcess
	running map[identity]*fakeProcess
	boot    string
	refuse  error
}

type fakeProcess struct {
	command command
	id      identity
	at      time.Time
	system  *fakeSystem
	done    chan struct{}
	exit    exit
	signals []string
	// stubborn ignores SIGTERM.
	stubborn bool
}

func newFakeSystem() *fakeSystem {
	return &fakeSystem{running: make(map[identity]*fakeProcess), boot: "boot-1"}
}

func (s *fakeSystem) Boot() string { return s.boot }

func (s *fakeSystem) Start(c command) (process, error) { //nolint:ireturn // the seam
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return nil, s.refuse
	}
	id := identity{PID: 100 + len(s.started), Ticks: uint64(len(s.started)), Boot: s.boot}
	p := &fakeProcess{command: c, id: id, at: time.Now(), system: s, done: make(chan struct{})}
	s.started = append(s.started, p)
	s.running[id] = p
	return p, nil
}

func (s *fakeSystem) Adopt(id identity) (process, error) { //nolint:ireturn // the seam
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.running[id]; p != nil {
		return p, nil
	}
	return nil, nil
}

func (s *fakeSystem) Find(token string) (identity, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.running {
		if slices.Contains(p.command.Env, tokenVariable+"="+token) {
			return id, true
		}
	}
	return identity{}, false
}

func (s *fakeSystem) starts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.started)
}

func (s *fakeSystem) last() *fakeProcess {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started[len(s.started)-1]
}

func (p *fakeProcess) end(code int32) {
	p.system.mu.Lock()
	defer p.system.mu.Unlock()
	if p.system.running[p.id] != nil {
		delete(p.system.running, p.id)
		p.exit = exit{Known: true, Code: code}
		close(p.done)
	}
}

func (p *fakeProcess) Identity() identity    { return p.id }
func (p *fakeProcess) Done() <-chan struct{} { return p.done }
func (p *fakeProcess) Exit() exit            { return p.exit }
func (p *fakeProcess) Release()              {}

func (p *fakeProcess) Terminate() error {
	p.signals = append(p.signals, "TERM")
	if !p.stubborn {
		p.end(143)
	}
	return nil
}

func (p *fakeProcess) Kill() error {
	p.signals = append(p.signals, "KILL")
	p.end(137)
	return nil
}

type fakeArchives map[string]error

func (f fakeArchives) Unpacked(_ context.Context, digest string) (string, error) {
	if err, known := f[digest]; known {
		return "", err
	}
	return "/archives/" + digest, nil
}

// desk is one runner with everything around it, driven by a test.
type desk struct {
	t        *testing.T
	system   *fakeSystem
	archives fakeArchives
	dir      string
	data     string
	runner   *runner
	stop     context.CancelFunc
	ended    chan bool

	mu       sync.Mutex
	statuses []api.HostProcessStatus
	removed  int
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, system: newFakeSystem(), archives: fakeArchives{}, dir: t.TempDir(), data: t.TempDir()}
	return d
}

// run starts the runner (again) on what lies on disk.
func (d *desk) run() {
	d.t.Helper()
	r, err := newRunner(site{
		dataRoots: []string{d.data}, executable: "/agent/castellan", system: d.system, archives: d.archives,
		publish: func(_ order, s api.HostProcessStatus) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.statuses = append(d.statuses, s)
		},
		removed: func(context.Context, order) error { d.removed++; return nil },
	}, folder{path: filepath.Join(d.dir, "p")}, slog.New(slog.DiscardHandler))
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(d.t.Context())
	d.runner, d.stop, d.ended = r, cancel, make(chan bool, 1)
	go func() { d.ended <- r.Run(ctx) }()
}

// halt ends the runner, as the agent's end does.
func (d *desk) halt() {
	d.stop()
	<-d.ended
}

func (d *desk) status() api.HostProcessStatus {
	d.t.Helper()
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.statuses) == 0 {
		d.t.Fatal("nothing was published")
	}
	return d.statuses[len(d.statuses)-1]
}

func (d *desk) published() int {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.statuses)
}

func (d *desk) want(state api.HostProcessState, reason string) {
	d.t.Helper()
	if s := d.status(); s.State != state || s.Reason != reason {
		d.t.Fatalf("state %s, reason %q (%s); want %s, %q", s.State, s.Reason, s.Message, state, reason)
	}
}

func (d *desk) wantStarts(n int) {
	d.t.Helper()
	synctest.Wait()
	if got := d.system.starts(); got != n {
		d.t.Fatalf("%d processes were started, want %d", got, n)
	}
}

func simpleOrder(change ...func(*order)) order {
	o := order{
		Name: "p", UID: "u", Generation: 1,
		Spec: api.HostProcessSpec{
			Program: api.Program{
				Archive: "sha256:1", Args: []string{"castellan", "node"}, StopGraceSeconds: 30,
				Files: []api.File{{Path: "node.json", Content: "1"}}, TerminationMessage: "termination.json",
			},
			State: api.StateRunning,
		},
		Secrets: map[string]map[string][]byte{},
	}
	for _, c := range change {
		c(&o)
	}
	return o
}

func bubble(t *testing.T, test func(d *desk)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.run()
		test(d)
		d.halt()
	})
}

func TestStartsOnceAndIsQuiet(t *testing.T) {
	bubble(t, func(d *desk) {
		t := d.t
		d.runner.Order(simpleOrder())
		d.want(api.ProcessRunning, "")
		d.wantStarts(1)
		c := d.system.last().command
		if c.Path != "/agent/castellan" || strings.Join(c.Args, " ") != "castellan node" || c.Dir != d.runner.folder.run() {
			t.Errorf("started %s %q in %s", c.Path, c.Args, c.Dir)
		}
		if !strings.Contains(strings.Join(c.Env, "\n"), "ARCHIVE=/archives/sha256:1\n") {
			t.Errorf("environment has no archive: %q", c.Env)
		}
		before := d.published()
		for range 10 {
			d.runner.Order(simpleOrder())
			time.Sleep(time.Minute)
		}
		if after := d.published(); after != before {
			t.Errorf("an idle process was published %d times", after-before)
		}
		d.wantStarts(1)
	})
}

func TestComesBackWithBackoff(t *testing.T) {
	bubble(t, func(d *desk) {
		t := d.t
		d.runner.Order(simpleOrder())
		d.wantStarts(1)
		var waits []string
		for n := range 8 {
			ended := time.Now()
			d.system.last().end(137)
			d.want(api.ProcessBackoff, ReasonKilled)
			for d.system.starts() == n+1 {
				time.Sleep(500 * time.Millisecond)
				synctest.Wait()
			}
			waits = append(waits, d.system.last().at.Sub(ended).String())
		}
		if diff := cmp.Diff([]string{"1s", "2s", "4s", "8s", "16s", "32s", "1m0s", "1m0s"}, waits); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		s := d.status()
		if s.State != api.ProcessRunning || s.Restarts != 8 || s.LastExit == nil || s.LastExit.Message != "the process was killed (signal 9)" {
			t.Errorf("status does not tell what happened: %+v", s)
		}
		time.Sleep(11 * time.Minute) // long enough to be trusted again
		ended := time.Now()
		d.system.last().end(1)
		time.Sleep(time.Second)
		synctest.Wait()
		if wait := d.system.last().at.Sub(ended); wait != time.Second {
			t.Errorf("waited %s after a long run, want 1s", wait)
		}
	})
}

func TestAFixArrivesAtOnce(t *testing.T) {
	fixes := map[string]func(*order){
		"program":   func(o *order) { o.Spec.Program.Files[0].Content = "2" },
		"live file": func(o *order) { o.Spec.Files = []api.File{{Path: "live.json", Content: "2"}} },
		"secret": func(o *order) {
			o.Secrets["s"] = map[string][]byte{"k": []byte("v")}
		},
	}
	for name, fix := range fixes {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(d *desk) {
				d.runner.Order(simpleOrder())
				for range 7 { // up to the longest wait
					synctest.Wait()
					d.system.last().end(1)
					time.Sleep(time.Minute)
				}
				synctest.Wait()
				d.system.last().end(1)
				d.want(api.ProcessBackoff, ReasonExited)
				before := d.system.starts()
				d.runner.Order(simpleOrder(fix, func(o *order) { o.Generation = 2 }))
				d.wantStarts(before + 1)
			})
		})
	}
}

func TestOnlyAChangedProgramRestarts(t *testing.T) {
	bubble(t, func(d *desk) {
		t := d.t
		d.runner.Order(simpleOrder())
		d.wantStarts(1)
		live := func(o *order) {
			o.Spec.Files = []api.File{{Path: "live.json", Content: "{}"}}
			o.Spec.Program.User = currentUser(t)
			o.Spec.Directories = []string{filepath.Join(d.data, "a", "b")}
			o.Spec.Secrets = []api.SecretFiles{{SecretName: "s", Path: "tls"}}
			o.Secrets["s"] = map[string][]byte{"node.pem": []byte("key")}
		}
		d.runner.Order(simpleOrder(live))
		d.want(api.ProcessRunning, "")
		d.wantStarts(1)
		wantFile(t, filepath.Join(d.runner.folder.run(), "live.json"), "{}")
		wantFile(t, filepath.Join(d.runner.folder.run(), "tls/node.pem"), "key")
		first := d.status().SecretsDigest

		d.runner.Order(simpleOrder(live, func(o *order) { o.Secrets["s"] = map[string][]byte{"ca.pem": []byte("ca")} }))
		synctest.Wait()
		wantFile(t, filepath.Join(d.runner.folder.run(), "tls/ca.pem"), "ca")
		if _, err := os.Stat(filepath.Join(d.runner.folder.run(), "tls/node.pem")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a key that is gone is still on disk: %v", err)
		}
		if second := d.status().SecretsDigest; second == first || second == "" {
			t.Errorf("secrets digest is %q after %q", second, first)
		}
		d.wantStarts(1)

		d.runner.Order(simpleOrder(live, func(o *order) { o.Spec.Program.Files[0].Content = "2" }))
		d.wantStarts(2)
		wantFile(t, filepath.Join(d.runner.folder.run(), "node.json"), "2")
		if s := d.status(); s.Restarts != 0 || s.LastExit != nil {
			t.Errorf("a restart that was asked for counts as an accident: %+v", s)
		}
	})
}

func TestWhatCannotStartDoesNotStopWhatRuns(t *testing.T) {
	broken := map[string]struct {
		change func(*order)
		reason string
	}{
		"archive": {func(o *order) { o.Spec.Program.Archive = "sha256:bad" }, ReasonArchive},
		"user":    {func(o *order) { o.Spec.Program.User = "nobody-here"; o.Spec.Program.Files[0].Content = "2" }, ReasonRefused},
		"file":    {func(o *order) { o.Spec.Program.Files[0].Path = "../../etc/passwd" }, ReasonRefused},
		"root":    {func(o *order) { o.Spec.Program.Files[0].Path = "/etc/passwd" }, ReasonRefused},
		"secret": {func(o *order) {
			o.Spec.Program.Files[0].Content = "2"
			o.Spec.Secrets = []api.SecretFiles{{SecretName: "later", Path: "tls"}}
		}, ReasonSecretMissing},
	}
	for name, test := range broken {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(d *desk) {
				t := d.t
				d.archives["sha256:bad"] = errors.New("one byte is flipped")
				d.runner.Order(simpleOrder())
				d.wantStarts(1)
				d.runner.Order(simpleOrder(test.change))
				d.want(api.ProcessRunning, test.reason)
				d.wantStarts(1)
				if got := d.system.last().signals; len(got) != 0 {
					t.Errorf("the running process got %q", got)
				}
			})
		})
	}
}

func TestTheLastProgramRunsUntilTheNextCan(t *testing.T) {
	bubble(t, func(d *desk) {
		t := d.t
		d.archives["sha256:bad"] = errors.New("one byte is flipped")
		d.runner.Order(simpleOrder())
		d.wantStarts(1)
		d.runner.Order(simpleOrder(func(o *order) {
			o.Spec.Program.Archive, o.Spec.Program.Files[0].Content = "sha256:bad", "2"
		}))
		d.want(api.ProcessRunning, ReasonArchive)
		d.system.last().end(137)
		time.Sleep(5 * time.Second)
		d.wantStarts(2)
		d.want(api.ProcessRunning, ReasonArchive)
		wantFile(t, filepath.Join(d.runner.folder.run(), "node.json"), "1")
	})
}

func TestWaitsForItsSecret(t *testing.T) {
	bubble(t, func(d *desk) {
		uses := func(o *order) { o.Spec.Secrets = []api.SecretFiles{{SecretName: "s", Path: "tls"}} }
		d.runner.Order(simpleOrder(uses))
		d.want(api.ProcessPending, ReasonSecretMissing)
		d.runner.Order(simpleOrder(uses, func(o *order) { o.Secrets["s"] = map[string][]byte{"k": []byte("v")} }))
		d.want(api.ProcessRunning, "")
		// A Secret that is deleted later takes nothing from what runs, nor from its restart.
		d.runner.Order(simpleOrder(uses))
		d.system.last().end(1)
		time.Sleep(2 * time.Second)
		d.wantStarts(2)
		d.want(api.ProcessRunning, "")
	})
}

func TestStopIsBounded(t *testing.T) {
	bubble(t, func(d *desk) {
		t := d.t
		d.runner.Order(simpleOrder())
		d.wantStarts(1)
		p := d.system.last()
		p.stubborn = true
		d.runner.Order(simpleOrder(func(o *order) { o.Spec.State = api.StateStopped }))
		d.want(api.ProcessStopping, ReasonStopped)
		time.Sleep(29 * time.Second)
		d.want(api.ProcessStopping, ReasonStopped)
		time.Sleep(2 * time.Second)
		d.want(api.ProcessStopped, ReasonStopTimeout)
		if diff := cmp.Diff([]string{"TERM", "KILL"}, p.signals); diff != "" {
			t.Errorf("signals: %s", diff)
		}
		if s := d.status(); s.Restarts != 0 || s.PID != 0 {
			t.Errorf("a stop counts as an accident: %+v", s)
		}
		d.runner.Order(simpleOrder())
		d.wantStarts(2)
		d.want(api.ProcessRunning, "")
	})
}

func TestAStopThatIsTakenBackEndsInAStart(t *testing.T) {
	bubble(t, func(d *desk) {
		d.runner.Order(simpleOrder())
		d.wantStarts(1)
		p := d.system.last()
		p.stubborn = true
		d.runner.Order(simpleOrder(func(o *order) { o.Spec.State = api.StateStopped }))
		d.want(api.ProcessStopping, ReasonStopped)
		d.runner.Order(simpleOrder())
		d.want(api.ProcessStopping, ReasonStopping)
		p.end(143)
		d.wantStarts(2)
		d.want(api.ProcessRunning, "")
	})
}

func TestTerminationMessageSaysWhy(t *testing.T) {
	bubble(t, func(d *desk) {
		t := d.t
		d.runner.Order(simpleOrder())
		d.wantStarts(1)
		file := filepath.Join(d.runner.folder.run(), "termination.json")
		text := fmt.Sprintf(`{"code":1,"reason":"PortTaken","message":"port 9092 is taken","at":%q}`, time.Now().UTC().Format(time.RFC3339))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d.system.last().end(1)
		d.want(api.ProcessBackoff, "PortTaken")
		if s := d.status(); s.Message != "port 9092 is taken" || s.LastExit.Code != 1 {
			t.Errorf("status %+v does not say why", s)
		}
		time.Sleep(2 * time.Second)
		d.wantStarts(2)
		d.system.last().end(137) // leaves no message: the old one must not speak for it
		d.want(api.ProcessBackoff, ReasonKilled)
	})
}

func TestAdoptsAfterItsOwnRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.run()
		d.runner.Order(simpleOrder())
		d.wantStarts(1)
		started := d.status().StartedAt
		d.halt()
		time.Sleep(time.Hour)
		d.run() // no order: the API server is away
		d.want(api.ProcessRunning, "")
		if s := d.status(); !s.StartedAt.Equal(started) || s.Restarts != 0 {
			t.Errorf("adopted process is told as another: %+v", s)
		}
		d.wantStarts(1)
		d.system.last().end(1)
		time.Sleep(2 * time.Second)
		d.wantStarts(2)
		d.halt()
	})
}

func TestFindsAProcessStartedJustBeforeTheAgentWasKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.run()
		d.runner.Order(simpleOrder())
		d.wantStarts(1)
		d.halt()
		_, s, err := d.runner.folder.load()
		if err != nil {
			t.Fatal(err)
		}
		s.Identity = identity{} // as it is on disk between the token and the start
		if err := d.runner.folder.saveState(s); err != nil {
			t.Fatal(err)
		}
		d.run()
		d.want(api.ProcessRunning, "")
		d.wantStarts(1)
		d.halt()
	})
}

func TestStartsAgainWhatEndedMeanwhile(t *testing.T) {
	for name, test := range map[string]struct{ boot, reason string }{
		"process ended": {"boot-1", ReasonExited},
		"host rebooted": {"boot-2", ReasonHostRestarted},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t)
				d.run()
				d.runner.Order(simpleOrder())
				d.wantStarts(1)
				d.halt()
				d.system.last().end(1)
				d.system.boot = test.boot
				d.run()
				time.Sleep(2 * time.Second)
				d.wantStarts(2)
				if s := d.status(); s.Restarts != 1 || s.LastExit == nil || s.LastExit.Reason != test.reason {
					t.Errorf("status does not tell what happened: %+v", s)
				}
				d.halt()
			})
		})
	}
}

func TestFailedStartIsToldAndTriedAgain(t *testing.T) {
	bubble(t, func(d *desk) {
		t := d.t
		d.system.refuse = errors.New("permission denied")
		d.runner.Order(simpleOrder())
		d.want(api.ProcessBackoff, ReasonStartFailed)
		time.Sleep(time.Minute)
		d.want(api.ProcessBackoff, ReasonStartFailed)
		d.system.mu.Lock()
		d.system.refuse = nil
		d.system.mu.Unlock()
		time.Sleep(time.Minute)
		d.want(api.ProcessRunning, "")
		if s := d.status(); s.Restarts != 0 {
			t.Errorf("starts that failed count as restarts: %+v", s)
		}
	})
}

func TestDeletionTakesExactlyItsOwn(t *testing.T) {
	for _, policy := range []api.DeletionPolicy{api.DeletionRetain, api.DeletionDelete} {
		t.Run(string(policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t)
				d.run()
				own := filepath.Join(d.data, "ns", "c", "1", "data")
				other := filepath.Join(d.data, "ns", "c", "2", "data")
				outside := t.TempDir()
				with := func(o *order) {
					o.Spec.Directories, o.Spec.RemoveDirectories = []string{own}, policy
				}
				d.runner.Order(simpleOrder(with))
				d.want(api.ProcessRunning, "")
				mustMkdir(t, other)
				mustWrite(t, filepath.Join(outside, "precious"), "x")
				if err := os.Symlink(outside, filepath.Join(own, "link")); err != nil {
					t.Fatal(err)
				}
				d.runner.Order(simpleOrder(with, func(o *order) { o.Deleting = true }))
				if deleted := <-d.ended; !deleted || d.removed != 1 {
					t.Fatalf("the runner ended without the deletion being done (removed %d)", d.removed)
				}
				_, err := os.Stat(own)
				if gone := errors.Is(err, os.ErrNotExist); gone != (policy == api.DeletionDelete) {
					t.Errorf("own directory gone: %t", gone)
				}
				wantFile(t, filepath.Join(outside, "precious"), "x")
				if _, err := os.Stat(other); err != nil {
					t.Errorf("another's directory: %v", err)
				}
				if _, err := os.Stat(d.runner.folder.path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the process's folder is still there: %v", err)
				}
			})
		})
	}
}

func TestDeletionNeverLeavesTheDataRoots(t *testing.T) {
	outside := t.TempDir()
	mustWrite(t, filepath.Join(outside, "data", "precious"), "x")
	data := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(data, "link")); err != nil {
		t.Fatal(err)
	}
	g := grounds{own: t.TempDir(), dataRoots: []string{data}}
	for _, path := range []string{
		data, data + "/", data + "/.", data + "/..", data + "/x/../..", "/", "relative", outside + "/data", data + "/link/data", data + "x",
	} {
		if err := g.removeDirectory(path); err == nil {
			t.Errorf("removing %s was not refused", path)
		}
		if err := g.makeDirectory(path, nobody()); err == nil {
			t.Errorf("making %s was not refused", path)
		}
	}
	wantFile(t, filepath.Join(outside, "data", "precious"), "x")
	if err := g.write("../x", nil, nobody()); err == nil {
		t.Error("writing outside the own folder was not refused")
	}
}

func TestAMissingDataRootIsNotMade(t *testing.T) {
	bubble(t, func(d *desk) {
		t := d.t
		if err := os.Remove(d.data); err != nil {
			t.Fatal(err)
		}
		d.runner.Order(simpleOrder(func(o *order) { o.Spec.Directories = []string{filepath.Join(d.data, "a")} }))
		d.want(api.ProcessPending, ReasonDataRootMissing)
		mustMkdir(t, d.data) // its disk is mounted
		time.Sleep(6 * time.Second)
		d.want(api.ProcessRunning, "")
	})
}

func TestProgramHashKnowsWhatRestarts(t *testing.T) {
	base := simpleOrder().Spec.Program
	other := base
	other.User = "kafka"
	if ProgramHash(base) != ProgramHash(other) {
		t.Error("a user alone would restart")
	}
	other = base
	other.OpenFiles = 7
	if ProgramHash(base) == ProgramHash(other) {
		t.Error("a limit does not restart")
	}
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	if string(got) != want {
		t.Errorf("%s holds %q, want %q", path, got, want)
	}
}

func mustMkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func mustWrite(t *testing.T, path, content string) {
	t.Helper()
	mustMkdir(t, filepath.Dir(path))
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
