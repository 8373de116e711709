package agent

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/controlplanetest"
	substrate "castellan.dev/castellan/substrate/host"
)

const (
	testHost      = "h1"
	testNamespace = "castellan-host-h1"
)

// outpost is an agent on a real API server, with no more rights than an agent has.
type outpost struct {
	t       *testing.T
	cp      *controlplanetest.ControlPlane
	c       client.Client
	dir     string
	data    string
	writes  atomic.Int64 // of the agent, but for its Lease
	stop    context.CancelFunc
	stopped chan error
}

func newOutpost(t *testing.T) *outpost {
	t.Helper()
	cp := controlplanetest.New(t)
	o := &outpost{t: t, cp: cp, c: controlplanetest.Client(t, cp.Config), dir: t.TempDir(), data: t.TempDir()}
	o.create(&api.Host{
		ObjectMeta: metav1.ObjectMeta{Name: testHost},
		Spec:       api.HostSpec{Address: "127.0.0.1", DataRoots: []string{o.data}},
	})
	for _, object := range substrate.Enrolment(testHost, rbacv1.Subject{Kind: "User", Name: "agent-h1", APIGroup: rbacv1.GroupName}) {
		o.create(object)
	}
	t.Cleanup(o.halt)
	return o
}

func (o *outpost) create(object client.Object) {
	o.t.Helper()
	if err := o.c.Create(o.t.Context(), object); err != nil {
		o.t.Fatalf("create %T %s: %v", object, object.GetName(), err)
	}
}

func (o *outpost) run() {
	o.t.Helper()
	config := rest.CopyConfig(o.cp.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: "agent-h1"}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return counting{next: next, writes: &o.writes} })
	a, err := New(Config{
		Host: testHost, Namespace: testNamespace, Dir: o.dir, DataRoots: []string{o.data}, Version: "test",
		API: config, Archives: fakeArchives{}, Log: slog.New(slog.NewTextHandler(o.t.Output(), nil)),
	})
	if err != nil {
		o.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	o.stop, o.stopped = cancel, make(chan error, 1)
	go func() { o.stopped <- a.Run(ctx) }()
}

func (o *outpost) halt() {
	if o.stop == nil {
		return
	}
	o.stop()
	if err := <-o.stopped; err != nil {
		o.t.Errorf("the agent ended with %v", err)
	}
	o.stop = nil
}

// counting counts writes other than of the Lease.
type counting struct {
	next   http.RoundTripper
	writes *atomic.Int64
}

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet && filepath.Base(filepath.Dir(r.URL.Path)) != "leases" {
		c.writes.Add(1)
	}
	return c.next.RoundTrip(r)
}

func (o *outpost) await(what string, ok func() bool) {
	o.t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case err := <-o.stopped:
			o.t.Fatalf("the agent ended with %v while waiting for %s", err, what)
		case <-deadline:
			o.t.Fatalf("waited in vain for %s; the process is %+v", what, o.process().Status)
		case <-tick.C:
		}
	}
}

func (o *outpost) process() api.HostProcess {
	o.t.Helper()
	var hp api.HostProcess
	err := o.c.Get(o.t.Context(), client.ObjectKey{Namespace: testNamespace, Name: "p"}, &hp)
	if err != nil && !apierrors.IsNotFound(err) {
		o.t.Fatalf("read the HostProcess: %v", err)
	}
	return hp
}

func (o *outpost) awaitReady(notPID int32) api.HostProcess {
	o.t.Helper()
	var hp api.HostProcess
	o.await("a ready process", func() bool {
		hp = o.process()
		return hp.Status.State == api.ProcessRunning && hp.Status.Ready && hp.Status.PID != notPID &&
			hp.Status.ObservedGeneration == hp.Generation
	})
	return hp
}

func (o *outpost) change(change func(*api.HostProcess)) {
	o.t.Helper()
	hp := o.process()
	before := hp.DeepCopy()
	change(&hp)
	if err := o.c.Patch(o.t.Context(), &hp, client.MergeFrom(before)); err != nil {
		o.t.Fatalf("change the HostProcess: %v", err)
	}
}

// TestAgentOnARealAPIServer is one story, since a control plane takes seconds to start.
func TestAgentOnARealAPIServer(t *testing.T) {
	o := newOutpost(t)
	o.run()
	own := filepath.Join(o.data, "ns", "c", "1", "data")
	wanted := realOrder().Spec
	wanted.Directories, wanted.RemoveDirectories = []string{own}, api.DeletionDelete
	wanted.Owner = api.OwnerRef{Kind: "KafkaNode", Namespace: "ns", Name: "c-1", UID: "1"}
	o.create(&api.HostProcess{
		ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "p", Finalizers: []string{Finalizer}},
		Spec:       wanted,
	})
	o.await("its waiting for the secret", func() bool { return o.process().Status.Reason == ReasonSecretMissing })
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "s"}, Data: map[string][]byte{"key": []byte("k1")}}
	o.create(secret)
	hp := o.awaitReady(0)
	pid := hp.Status.PID
	o.wantIntroduced()

	t.Log("a secret and a live file arrive without a restart")
	secret.Data["key"] = []byte("k2")
	if err := o.c.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	o.change(func(hp *api.HostProcess) { hp.Spec.Files[0].Content = "two" })
	o.await("the report of the new files", func() bool {
		hp = o.process()
		live, key := reported(t, hp.Status)
		return live == "two" && key == "k2"
	})
	if hp.Status.PID != pid {
		t.Errorf("pid %d became %d for a live file", pid, hp.Status.PID)
	}

	t.Log("idle writes nothing")
	o.wantIdle(7 * time.Second)

	t.Log("a changed program restarts, once")
	o.change(func(hp *api.HostProcess) { hp.Spec.Program.Args = []string{"castellan", "serve", "again"} })
	hp = o.awaitReady(pid)
	pid = hp.Status.PID
	if hp.Status.Restarts != 0 {
		t.Errorf("a restart that was asked for counts as an accident: %+v", hp.Status)
	}

	t.Log("without the API server a crash is mended, and told when it is back")
	o.cp.Kill(t)
	kill(t, pid)
	o.awaitOnDisk(pid)
	o.halt()
	o.run() // also a new agent starts with no API server in sight
	o.cp.Resume(t)
	hp = o.awaitReady(pid)
	if hp.Status.Restarts != 1 || hp.Status.LastExit == nil {
		t.Errorf("the crash is not told: %+v", hp.Status)
	}

	t.Log("deletion takes exactly its own")
	mustWrite(t, filepath.Join(own, "log"), "x")
	mustWrite(t, filepath.Join(o.data, "ns", "other"), "x")
	if err := o.c.Delete(t.Context(), &hp); err != nil {
		t.Fatal(err)
	}
	o.await("the object to be gone", func() bool { return o.process().UID == "" })
	wantEnded(t, hp.Status.PID)
	if _, err := os.Stat(own); !os.IsNotExist(err) {
		t.Errorf("its directory is still there: %v", err)
	}
	wantFile(t, filepath.Join(o.data, "ns", "other"), "x")
}

// wantEnded takes a zombie for ended: its parent is the first agent's process, this one.
func wantEnded(t *testing.T, pid int32) {
	t.Helper()
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(int(pid)), "stat"))
	if err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("process %d still runs: %s", pid, stat)
	}
}

func kill(t *testing.T, pid int32) {
	t.Helper()
	if err := syscall.Kill(int(pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// awaitOnDisk waits until the agent has started another process than pid.
func (o *outpost) awaitOnDisk(pid int32) {
	o.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, s, err := folder{path: Folder(o.dir, "p")}.load()
		if err != nil {
			o.t.Fatal(err)
		}
		if s.Identity.PID != 0 && s.Identity.PID != int(pid) {
			return
		}
		select {
		case <-deadline:
			o.t.Fatal("waited in vain for the process to come back")
		case <-tick.C:
		}
	}
}

func (o *outpost) wantIntroduced() {
	o.t.Helper()
	o.await("the Host's status and the Lease", func() bool {
		var host api.Host
		if err := o.c.Get(o.t.Context(), client.ObjectKey{Name: testHost}, &host); err != nil {
			return false
		}
		var lease coordinationv1.Lease
		if err := o.c.Get(o.t.Context(), client.ObjectKey{Namespace: testNamespace, Name: "agent"}, &lease); err != nil {
			return false
		}
		return meta.IsStatusConditionTrue(host.Status.Conditions, "Ready") && host.Status.Namespace == testNamespace &&
			lease.Spec.RenewTime != nil
	})
}

// wantIdle watches the agent for a while, in which it renews its Lease at least once.
func (o *outpost) wantIdle(d time.Duration) {
	o.t.Helper()
	o.await("the status to settle", func() bool { return o.process().Status.ObservedGeneration == o.process().Generation })
	before, version := o.writes.Load(), o.process().ResourceVersion
	<-time.After(d)
	if after := o.writes.Load(); after != before {
		o.t.Errorf("an idle agent wrote %d times", after-before)
	}
	if now := o.process().ResourceVersion; now != version {
		o.t.Errorf("an idle process went from version %s to %s", version, now)
	}
}
