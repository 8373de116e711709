package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"castellan.dev/castellan/controlplane/internal/snapshot"
)

// TestBackupAndRestore saves a running control plane and reads everything back from a new directory.
func TestBackupAndRestore(t *testing.T) {
	dir := shortDir(t)
	original := start(t, dir)
	ctx, core := t.Context(), original.client().CoreV1()
	if _, err := core.ConfigMaps("default").Create(ctx, configMap("kept"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "kept"}, StringData: map[string]string{"password": "s3cret"}}
	if _, err := core.Secrets("default").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	before, err := core.ConfigMaps("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "backup.tar.zst")
	backUp(t, dir, archive)
	if _, stderr, err := run(t, "backup", "--data", dir, "--out", archive); err == nil {
		t.Error("an existing file was overwritten")
	} else {
		mustContain(t, stderr, "exists already")
	}
	if _, stderr, err := run(t, "restore", "--from", archive, "--data", dir); err == nil {
		t.Error("it restored over existing data")
	} else {
		mustContain(t, stderr, "not empty")
	}
	original.stop()
	if _, stderr, err := run(t, "backup", "--data", dir, "--out", archive+".2.tar.gz"); err == nil {
		t.Error("a backup of a stopped control plane succeeded")
	} else {
		mustContain(t, stderr, "start it first")
	}

	restoredDir := shortDir(t)
	if _, stderr, err := run(t, "restore", "--from", archive, "--data", restoredDir); err != nil {
		t.Fatalf("restore: %v\n%s", err, stderr)
	}
	restored := start(t, restoredDir)
	if restored.ready.URL != original.ready.URL {
		t.Errorf("the restored control plane is at %s, clients know %s", restored.ready.URL, original.ready.URL)
	}
	// The credentials of the lost control plane still work.
	old := &instance{t: t, dir: dir}
	got, err := old.client().CoreV1().Secrets("default").Get(ctx, "kept", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Data["password"]) != "s3cret" {
		t.Errorf("the secret reads %q", got.Data["password"])
	}
	after, err := old.client().CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(after.Items) != len(before.Items) {
		t.Errorf("%d config maps before, %d after", len(before.Items), len(after.Items))
	}
	if a, b := revision(t, before.ResourceVersion), revision(t, after.ResourceVersion); b < a+1_000_000_000 {
		t.Errorf("the revision went from %d to %d: watches of the lost control plane could miss events", a, b)
	}
	restored.stop()
}

func backUp(t *testing.T, dir, archive string) {
	t.Helper()
	stdout, stderr, err := run(t, "backup", "--data", dir, "--out", archive)
	if err != nil {
		t.Fatalf("backup: %v\n%s", err, stderr)
	}
	var manifest snapshot.Manifest
	if err := json.Unmarshal([]byte(stdout), &manifest); err != nil {
		t.Fatalf("backup printed %q: %v", stdout, err)
	}
	if manifest.Etcd == "" || len(manifest.Files) < 10 {
		t.Errorf("manifest is incomplete: %+v", manifest)
	}
	info, err := os.Stat(archive)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("archive has mode %s", info.Mode())
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(archive), ".castellan-backup-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func revision(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestPortTakenByStranger restarts on the kept port while somebody else holds it.
func TestPortTakenByStranger(t *testing.T) {
	stranger, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Close() }()
	_, port, err := net.SplitHostPort(stranger.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secure-port"), []byte(port+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr, err := run(t, "serve", "--data", dir)
	if err == nil {
		t.Fatal("it ran on a taken port")
	}
	mustContain(t, stderr, "port "+port, "--secure-port")
}
