package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestServe tells the life of one control plane, from nothing to a clean stop.
func TestServe(t *testing.T) {
	dir := shortDir(t)
	i := start(t, dir)
	stories := []struct {
		name string
		tell func(*testing.T, *instance)
	}{
		{"files are private", filesArePrivate},
		{"only the socket and the port are open", onlyKnownListeners},
		{"strangers see health only", strangersSeeHealthOnly},
		{"it survives its starter's terminal", survivesHangup},
		{"a second instance is refused", secondInstanceIsRefused},
		{"a taken port is named", takenPortIsNamed},
		{"CEL rules of a custom resource refuse", celRefuses},
		{"an owner's dependants are collected", dependantsAreCollected},
		{"a namespace is deleted with its objects", namespaceIsDeleted},
		{"aggregated roles are filled", rolesAreAggregated},
		{"webhooks are called", webhooksAreCalled},
		{"Secrets are not logged", secretsAreNotLogged},
		{"it writes one lease and nothing else when idle", idleWritesOneLease},
	}
	for _, story := range stories {
		t.Run(story.name, func(t *testing.T) {
			story.tell(t, &instance{t: t, dir: i.dir, ready: i.ready, cmd: i.cmd, stderr: i.stderr, ended: i.ended})
		})
	}
	stopsWithOpenWatch(t, i)
	onlyExpectedLogs(t, i)
}

// onlyExpectedLogs keeps the log of a healthy life empty, so that what stands in it is worth reading.
func onlyExpectedLogs(t *testing.T, i *instance) {
	t.Helper()
	for line := range strings.Lines(i.stderr.String()) {
		if !strings.Contains(line, "failed to call webhook") { // a story took the webhook away
			t.Errorf("unexpected log line: %s", line)
		}
	}
}

func filesArePrivate(t *testing.T, i *instance) {
	t.Helper()
	err := filepath.WalkDir(i.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Mode().Type() == fs.ModeSocket { // guarded by its folder
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func onlyKnownListeners(t *testing.T, i *instance) {
	t.Helper()
	port := i.ready.URL[strings.LastIndex(i.ready.URL, ":")+1:]
	want := []string{"tcp 127.0.0.1:" + port, "unix " + filepath.Join(i.dir, "etcd.sock")}
	if diff := cmp.Diff(want, listeners(t, i.ready.PID)); diff != "" {
		t.Errorf("listening sockets (-want +got):\n%s", diff)
	}
}

// listeners names every socket a process listens on, abstract ones included.
func listeners(t *testing.T, pid int) []string {
	t.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		t.Fatal(err)
	}
	mine := map[string]bool{}
	for _, fd := range fds {
		if target, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err == nil {
			mine[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
		}
	}
	var out []string
	for _, f := range table(t, filepath.Join(proc, "net/unix")) {
		if len(f) >= 7 && f[3] == "00010000" && mine[f[6]] {
			out = append(out, "unix "+strings.Join(f[7:], " "))
		}
	}
	for _, name := range []string{"net/tcp", "net/tcp6"} {
		for _, f := range table(t, filepath.Join(proc, name)) {
			if len(f) >= 10 && f[3] == "0A" && mine[f[9]] {
				out = append(out, "tcp "+tcpAddress(t, f[1]))
			}
		}
	}
	slices.Sort(out)
	return out
}

func table(t *testing.T, path string) [][]string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for line := range strings.Lines(string(raw)) {
		rows = append(rows, strings.Fields(line))
	}
	return rows
}

func tcpAddress(t *testing.T, raw string) string {
	t.Helper()
	host, port, _ := strings.Cut(raw, ":")
	ip, err := hex.DecodeString(host)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(ip) // right for IPv4 on little-endian machines
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(net.IP(ip).String(), strconv.FormatUint(n, 10))
}

func strangersSeeHealthOnly(t *testing.T, i *instance) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	want := map[string]int{
		"/livez": 200, "/readyz": 200, "/healthz": 200,
		"/version": 401, "/api": 401, "/apis": 401, "/metrics": 401, "/openapi/v3": 401, "/api/v1/namespaces/default/secrets": 401,
	}
	got := map[string]int{}
	for path := range want {
		response, err := client.Get(i.ready.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		got[path] = response.StatusCode
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status codes (-want +got):\n%s", diff)
	}
}

// survivesHangup relies on a later story to find the server alive; a signal is delivered before the next request ends.
func survivesHangup(t *testing.T, i *instance) {
	t.Helper()
	for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGPIPE} {
		if err := i.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := i.client().Discovery().ServerVersion(); err != nil {
		t.Errorf("after SIGHUP and SIGPIPE: %v", err)
	}
}

func secondInstanceIsRefused(t *testing.T, i *instance) {
	t.Helper()
	_, stderr, err := run(t, "serve", "--data", i.dir)
	if err == nil {
		t.Fatal("a second instance ran")
	}
	mustContain(t, stderr, "in use by process "+strconv.Itoa(i.ready.PID), "--data")
}

func takenPortIsNamed(t *testing.T, i *instance) {
	t.Helper()
	port := i.ready.URL[strings.LastIndex(i.ready.URL, ":")+1:]
	_, stderr, err := run(t, "serve", "--data", shortDir(t), "--secure-port", port)
	if err == nil {
		t.Fatal("it ran on a taken port")
	}
	mustContain(t, stderr, "port "+port, "taken", "--secure-port")
}

func celRefuses(t *testing.T, i *instance) {
	t.Helper()
	ctx, client := t.Context(), i.dynamic()
	crds := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	crd := object("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "logs.test.castellan.dev")
	crd.Object["spec"] = map[string]any{
		"group": "test.castellan.dev", "scope": "Namespaced",
		"names": map[string]any{"plural": "logs", "singular": "log", "kind": "Log"},
		"versions": []any{map[string]any{
			"name": "v1", "served": true, "storage": true,
			"schema": map[string]any{"openAPIV3Schema": map[string]any{
				"type": "object",
				"properties": map[string]any{"spec": map[string]any{
					"type":       "object",
					"properties": map[string]any{"replicas": map[string]any{"type": "integer"}, "minISR": map[string]any{"type": "integer"}},
					"x-kubernetes-validations": []any{map[string]any{
						"rule": "self.minISR <= self.replicas", "message": "min ISR must not exceed replicas",
					}},
				}},
			}},
		}},
	}
	if _, err := crds.Create(ctx, crd, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	logs := client.Resource(schema.GroupVersionResource{Group: "test.castellan.dev", Version: "v1", Resource: "logs"}).Namespace("default")
	good := object("test.castellan.dev/v1", "Log", "default", "good")
	good.Object["spec"] = map[string]any{"replicas": int64(3), "minISR": int64(2)}
	eventually(t, "a valid object is taken", func() error {
		_, err := logs.Create(ctx, good, metav1.CreateOptions{})
		return err
	})
	bad := object("test.castellan.dev/v1", "Log", "default", "bad")
	bad.Object["spec"] = map[string]any{"replicas": int64(1), "minISR": int64(2)}
	_, err := logs.Create(ctx, bad, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) {
		t.Fatalf("an invalid object gave %v", err)
	}
	mustContain(t, err.Error(), "spec", "min ISR must not exceed replicas")
}

func object(apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetAPIVersion(apiVersion)
	u.SetKind(kind)
	u.SetNamespace(namespace)
	u.SetName(name)
	return u
}

func dependantsAreCollected(t *testing.T, i *instance) {
	t.Helper()
	ctx, maps := t.Context(), i.client().CoreV1().ConfigMaps("default")
	owner, err := maps.Create(ctx, configMap("owner"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dependant := configMap("dependant")
	dependant.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}}
	if _, err := maps.Create(ctx, dependant, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := maps.Delete(ctx, owner.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the dependant is gone", func() error {
		return wantGone(maps.Get(ctx, dependant.Name, metav1.GetOptions{}))
	})
}

func wantGone[T any](_ T, err error) error {
	switch {
	case err == nil:
		return notYet("still there")
	case apierrors.IsNotFound(err):
		return nil
	default:
		return err
	}
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"key": "value"}}
}

func namespaceIsDeleted(t *testing.T, i *instance) {
	t.Helper()
	ctx, core := t.Context(), i.client().CoreV1()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "short-lived"}}
	if _, err := core.Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the default service account is made", func() error {
		_, err := core.ServiceAccounts(namespace.Name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	if _, err := core.ConfigMaps(namespace.Name).Create(ctx, configMap("inside"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := core.Namespaces().Delete(ctx, namespace.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the namespace is gone", func() error {
		return wantGone(core.Namespaces().Get(ctx, namespace.Name, metav1.GetOptions{}))
	})
}

func rolesAreAggregated(t *testing.T, i *instance) {
	t.Helper()
	eventually(t, "the view role has rules", func() error {
		role, err := i.client().RbacV1().ClusterRoles().Get(t.Context(), "view", metav1.GetOptions{})
		if err == nil && len(role.Rules) == 0 {
			return notYet("no rules")
		}
		return err
	})
}

func secretsAreNotLogged(t *testing.T, i *instance) {
	t.Helper()
	const value = "hunter2hunter2"
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "quiet"}, StringData: map[string]string{"password": value}}
	if _, err := i.client().CoreV1().Secrets("default").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const wanted = "/api/v1/namespaces/default/secrets"
	eventually(t, "the request is audited", func() error {
		log, err := os.ReadFile(filepath.Join(i.dir, "audit", "audit.log"))
		if err == nil && !strings.Contains(string(log), wanted) {
			return notYet("no line with %s", wanted)
		}
		return err
	})
	// The value must be neither in the audit log nor, in the clear, in etcd's files.
	err := filepath.WalkDir(i.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), value) {
			t.Errorf("the secret's value stands in %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// idleWritesOneLease watches three renewals and expects no other write between them.
func idleWritesOneLease(t *testing.T, i *instance) {
	t.Helper()
	log, err := os.Open(filepath.Join(i.dir, "audit", "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	if _, err := log.Seek(0, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	reader, partial := bufio.NewReader(log), ""
	var writes []auditLine
	eventually(t, "three renewals", func() error {
		for {
			text, err := reader.ReadString('\n')
			partial += text
			if err != nil {
				break
			}
			if line := parseAudit(t, partial); line.isWrite() {
				writes = append(writes, line)
			}
			partial = ""
		}
		if len(writes) < 3 {
			return notYet("%d writes", len(writes))
		}
		return nil
	})
	for n, w := range writes {
		if w.ObjectRef.Resource != "leases" || w.ObjectRef.Name != "castellan-controlplane" {
			t.Errorf("idle write: %+v", w)
		}
		if n > 0 && w.Received.Sub(writes[n-1].Received) < 3*time.Second {
			t.Errorf("two writes within %s", w.Received.Sub(writes[n-1].Received))
		}
	}
}

// stopsWithOpenWatch ends the story: a watch is open and must not hold the stop.
func stopsWithOpenWatch(t *testing.T, i *instance) {
	t.Helper()
	watch, err := i.client().CoreV1().ConfigMaps("").Watch(context.WithoutCancel(t.Context()), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	if took := i.stop(); took > 10*time.Second {
		t.Errorf("the stop took %s with a watch open", took)
	}
}

// TestStopWhileStarting asks a server to stop before it is up; it must end in order, not by accident.
func TestStopWhileStarting(t *testing.T) {
	dir := shortDir(t)
	i := &instance{t: t, dir: dir, stderr: new(lockedBuffer), ended: make(chan struct{})}
	i.cmd = program(t, "serve", "--data", dir)
	i.cmd.Stderr = i.stderr
	if err := i.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(i.ended)
		i.err = i.cmd.Wait()
	}()
	t.Cleanup(i.kill)
	eventually(t, "etcd is up", func() error {
		_, err := os.Stat(filepath.Join(dir, "etcd.sock"))
		return err
	})
	i.stop()
}

// TestKilledUnderWrites loses power while clients write: whatever was acknowledged is there afterwards, on the same port,
// with the same credentials, and the controllers run again at once.
func TestKilledUnderWrites(t *testing.T) {
	dir := shortDir(t)
	first := start(t, dir)
	acknowledged := writeUntilKilled(t, first)
	second := start(t, dir)
	if first.ready.URL != second.ready.URL {
		t.Errorf("the address changed from %s to %s", first.ready.URL, second.ready.URL)
	}
	maps := second.client().CoreV1().ConfigMaps("default")
	list, err := maps.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	present := map[string]bool{}
	for _, item := range list.Items {
		present[item.Name] = true
	}
	for _, name := range acknowledged {
		if !present[name] {
			t.Errorf("acknowledged object %s is lost", name)
		}
	}
	t.Logf("%d writes were acknowledged", len(acknowledged))
	dependantsAreCollected(t, second)
	second.stop()
}

func writeUntilKilled(t *testing.T, i *instance) []string {
	t.Helper()
	const enough = 60
	maps := i.client().CoreV1().ConfigMaps("default")
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	var mu sync.Mutex
	var acknowledged []string
	var writers sync.WaitGroup
	reached := make(chan struct{})
	for w := range 4 {
		writers.Go(func() {
			for n := 0; ; n++ {
				name := fmt.Sprintf("write-%d-%d", w, n)
				if _, err := maps.Create(ctx, configMap(name), metav1.CreateOptions{}); err != nil {
					return // the power is gone
				}
				mu.Lock()
				acknowledged = append(acknowledged, name)
				if len(acknowledged) == enough {
					close(reached)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-reached:
	case <-ctx.Done():
		t.Fatal("writes did not get through")
	}
	i.kill()
	writers.Wait()
	return acknowledged
}

// TestFlagsPassedThrough checks what may stand after "--" and what may not.
func TestFlagsPassedThrough(t *testing.T) {
	for _, test := range []struct{ reason, flag, want string }{
		{"a flag that ties the server to its data", "--etcd-servers=http://127.0.0.1:1", "--etcd-servers cannot be passed through"},
		{"a flag nobody knows", "--no-such-flag", "no-such-flag"},
		{"not a flag", "word", "must be kube-apiserver flags"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			_, stderr, err := run(t, "serve", "--data", shortDir(t), "--", test.flag)
			if err == nil {
				t.Fatal("it ran")
			}
			mustContain(t, stderr, test.want)
		})
	}
}
