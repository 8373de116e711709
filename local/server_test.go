package local

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/host"
)

// place makes a folder with a short path, and names the programs of a test.
func place(t *testing.T) (Dir, Programs) {
	t.Helper()
	folder, err := os.MkdirTemp("", "cl") //nolint:usetesting // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	d, err := OpenDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	controlPlane, err := filepath.Abs("../bin/castellan-controlplane")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(controlPlane); err != nil {
		t.Fatalf("the control plane is not built: %v (make build)", err)
	}
	return d, Programs{Executable: self, ControlPlane: controlPlane}
}

func quiet(t *testing.T) *Progress {
	t.Helper()
	p := NewProgress(&strings.Builder{}, false)
	t.Cleanup(p.Close)
	return p
}

func connectAs(t *testing.T, kubeconfig string) client.Client { //nolint:ireturn // controller-runtime gives only the interface
	t.Helper()
	config, err := restConfig(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newClient(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestServer is one story, since a control plane takes seconds to start.
func TestServer(t *testing.T) {
	d, programs := place(t)
	started, err := ensureServer(t.Context(), d, programs, quiet(t))
	t.Cleanup(func() { _ = stopServer(context.Background(), d) })
	if err != nil || !started {
		t.Fatalf("start the server: started %v, error %v", started, err)
	}
	checkRights(t, d)
	first := children(t, d)

	t.Log("a second up finds the server as it is")
	if started, err := ensureServer(t.Context(), d, programs, quiet(t)); err != nil || started {
		t.Errorf("second up: started %v, error %v", started, err)
	}

	t.Log("a child that is killed comes back")
	kill(t, first[Agent])
	await(t, "another agent", func() bool {
		s, _ := readState(d)
		return s.Children[Agent].Running && s.Children[Agent].PID != first[Agent].PID && s.Children[Agent].Exits == 1
	})

	t.Log("a server that is killed leaves its children; the next one replaces them")
	before := children(t, d)
	state, _ := readState(d)
	kill(t, state.Server)
	for name, id := range before {
		if !id.alive() {
			t.Errorf("the %s ended with the server", name)
		}
	}
	if started, err := ensureServer(t.Context(), d, programs, quiet(t)); err != nil || !started {
		t.Fatalf("up after a kill: started %v, error %v", started, err)
	}
	for name, id := range before {
		if id.alive() {
			t.Errorf("the old %s still runs beside the new one", name)
		}
	}

	t.Log("a stop ends everything")
	after := children(t, d)
	if err := stopServer(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	for name, id := range after {
		if id.alive() {
			t.Errorf("the %s runs after the stop", name)
		}
	}
	if s, alive := readState(d); alive || s.Phase != PhaseStopped {
		t.Errorf("state after the stop: alive %v, phase %s", alive, s.Phase)
	}
}

func checkRights(t *testing.T, d Dir) {
	t.Helper()
	admin, operator, agent := connectAs(t, d.Kubeconfig()), connectAs(t, d.OperatorKubeconfig()), connectAs(t, d.AgentKubeconfig())
	own := client.InNamespace(host.Namespace(HostName))
	for _, c := range []struct {
		reason  string
		err     error
		allowed bool
	}{
		{"administrator: Packages", admin.List(t.Context(), &api.PackageList{}), true},
		{"operator: clusters of all namespaces", operator.List(t.Context(), &api.KafkaClusterList{}), true},
		{"agent: its own HostProcesses", agent.List(t.Context(), &api.HostProcessList{}, own), true},
		{"agent: Secrets of its own namespace", agent.List(t.Context(), &corev1.SecretList{}, own), true},
		{"agent: HostProcesses of others", agent.List(t.Context(), &api.HostProcessList{}), false},
		{"agent: Secrets of another namespace", agent.List(t.Context(), &corev1.SecretList{}, client.InNamespace("default")), false},
		{"agent: clusters", agent.List(t.Context(), &api.KafkaClusterList{}), false},
	} {
		if c.allowed && c.err != nil || !c.allowed && !apierrors.IsForbidden(c.err) {
			t.Errorf("%s: allowed should be %v, got error %v", c.reason, c.allowed, c.err)
		}
	}
	var packages api.PackageList
	if err := admin.List(t.Context(), &packages); err != nil || len(packages.Items) == 0 {
		t.Errorf("built-in Packages: %d, error %v", len(packages.Items), err)
	}
}

func children(t *testing.T, d Dir) map[string]identity {
	t.Helper()
	ids := map[string]identity{}
	for _, name := range []string{ControlPlane, Operator, Agent} {
		await(t, "the "+name, func() bool {
			var id identity
			ok := readJSON(d.record(name), &id) && id.alive()
			ids[name] = id
			return ok
		})
	}
	return ids
}

func kill(t *testing.T, id identity) {
	t.Helper()
	if err := syscall.Kill(id.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "the end of a killed process", func() bool { return !id.alive() })
}

func TestControlPlaneThatDoesNotStartIsToldAtOnce(t *testing.T) {
	d, programs := place(t)
	broken := filepath.Join(string(d), "controlplane-program")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho 'error: port 6443 is taken: choose another' >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	programs.ControlPlane = broken
	_, err := ensureServer(t.Context(), d, programs, quiet(t))
	if err == nil || !strings.Contains(err.Error(), "port 6443 is taken: choose another") {
		t.Errorf("got error %v, want the control plane's own words", err)
	}
	if err := stopServer(t.Context(), d); err != nil {
		t.Error(err)
	}
}
