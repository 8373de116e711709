package packages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// jarsAndLock makes two small jars and the lock of them.
func jarsAndLock(t *testing.T) (string, Lock) {
	t.Helper()
	dir := t.TempDir()
	l := Lock{Product: "Probe", Version: "0.1", Root: "probe-0.1"}
	for _, name := range []string{"b", "a"} {
		content := []byte("the jar " + name)
		sum := sha256.Sum256(content)
		e := LockEntry{Group: "org.example", Artifact: name, Version: "1", SHA256: hex.EncodeToString(sum[:]), Size: int64(len(content)), File: name + "-1.jar"}
		l.Entries = append(l.Entries, e)
		if err := os.WriteFile(filepath.Join(dir, e.File), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, l
}

// fakeMvn is a script that stands for the Maven client: OUT is the folder where the pom wants the jars.
func fakeMvn(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mvn")
	head := "#!/bin/sh\nset -e\nOUT=$(sed -n 's:.*<outputDirectory>\\(.*\\)</outputDirectory>.*:\\1:p' pom.xml)\nmkdir -p $OUT\n"
	if err := os.WriteFile(path, []byte(head+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func lockSpec(l Lock) Spec {
	return Spec{Product: l.Product, Version: l.Version, Sources: []Source{{Maven: l.String()}}}
}

func TestSameLockSameArchive(t *testing.T) {
	jars, l := jarsAndLock(t)
	var first, second bytes.Buffer
	if err := l.WriteArchive(t.Context(), &first, jars); err != nil {
		t.Fatal(err)
	}
	l.Entries[0], l.Entries[1] = l.Entries[1], l.Entries[0]
	l.From, l.Archive = []string{"x:y:1"}, Digest("sha256:"+strings.Repeat("ab", 32))
	for _, e := range l.Entries {
		past := time.Unix(1e9, 0)
		if err := errors.Join(os.Chtimes(filepath.Join(jars, e.File), past, past), os.Chmod(filepath.Join(jars, e.File), 0o400)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.WriteArchive(t.Context(), &second, jars); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the archives differ")
	}
	// Released archives are pinned by digest: changing this layout orphans them.
	const golden = "90fda6b9be468a46b257dd3a3929b76994aa8b536256f50c250c9c76bbe1d3c4"
	if sum := sha256.Sum256(first.Bytes()); hex.EncodeToString(sum[:]) != golden {
		t.Errorf("the layout of archives has changed: digest %x", sum)
	}
}

func TestWriteArchiveRefusesAWrongJar(t *testing.T) {
	jars, l := jarsAndLock(t)
	for _, content := range []string{"the jar A", "short", "much longer than it should be"} {
		if err := os.WriteFile(filepath.Join(jars, "a-1.jar"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := l.WriteArchive(t.Context(), &bytes.Buffer{}, jars); err == nil || !strings.Contains(err.Error(), "a-1.jar") {
			t.Errorf("%q: got %v", content, err)
		}
	}
}

func TestAssembleThroughMvn(t *testing.T) {
	jars, l := jarsAndLock(t)
	s := &Store{Dir: t.TempDir(), Mvn: fakeMvn(t, "cp "+jars+"/*.jar $OUT\n")}
	p, err := s.Provide(t.Context(), lockSpec(l), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, pattern := range []string{"*", "libs/*"} {
		found, err := filepath.Glob(filepath.Join(p.Dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			names = append(names, strings.TrimPrefix(f, p.Dir+"/"))
		}
	}
	if diff := cmp.Diff([]string{"LOCK", "NOTICE", "libs", "libs/a-1.jar", "libs/b-1.jar"}, names); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	s.Mvn = "/nonexistent/mvn"
	if _, err := s.Fetch(t.Context(), lockSpec(l), nil); err != nil {
		t.Errorf("mvn is asked again: %v", err)
	}
}

func TestADamagedLocalMavenRepositoryIsGoneRound(t *testing.T) {
	jars, l := jarsAndLock(t)
	s := &Store{Dir: t.TempDir(), Mvn: fakeMvn(t, "cp "+jars+"/*.jar $OUT\n"+
		"case \"$*\" in *-Dmaven.repo.local=*) ;; *) echo damaged > $OUT/a-1.jar ;; esac\n")}
	var told []string
	if _, err := s.Fetch(t.Context(), lockSpec(l), func(u Update) { told = append(told, u.Text) }); err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(told, "\n"); !strings.Contains(all, "org.example:a:1 as mvn gave it is damaged") {
		t.Errorf("told %s", all)
	}
}

func TestMvnProgressCountsTheLockedJars(t *testing.T) {
	jars, l := jarsAndLock(t)
	s := &Store{Dir: t.TempDir(), Mvn: fakeMvn(t, "cp "+jars+"/*.jar $OUT\n"+
		"for f in x-1.pom a-1.jar b-1.jar; do echo \"[INFO] Downloaded from some: scheme://host/org/example/$f (9 B at 1 kB/s)\"; done\n")}
	var last Update
	if _, err := s.Fetch(t.Context(), lockSpec(l), func(u Update) {
		if u.Done > 0 {
			last = u
		}
	}); err != nil {
		t.Fatal(err)
	}
	if last.Done != l.Size() || last.Total != l.Size() {
		t.Errorf("got %+v, want %d bytes", last, l.Size())
	}
}

func TestMvnFailuresSayWhatToDo(t *testing.T) {
	jars, l := jarsAndLock(t)
	for _, c := range []struct {
		reason, mvn string
		want        []string
	}{
		{"no mvn", "/nonexistent/mvn", []string{"install Maven", "add a source with the url"}},
		{"mvn fails", fakeMvn(t, "echo noise; echo '[ERROR] could not resolve org.example:a -> [Help 1]'; echo '[ERROR]'; echo '[ERROR] Re-run Maven'; exit 1\n"), []string{"(exit status 1): check its network", "it said: could not resolve org.example:a$"}},
		{"mvn fails without a reason", fakeMvn(t, "echo JAVA_HOME is not set; exit 1\n"), []string{"JAVA_HOME is not set"}},
		{"a jar is missing", fakeMvn(t, "cp "+jars+"/a*.jar $OUT\n"), []string{"b-1.jar"}},
		{
			"another file than the lock names", fakeMvn(t, "cp "+jars+"/*.jar $OUT; echo other > $OUT/a-1.jar\n"),
			[]string{"org.example:a:1", "expected sha256:", "found sha256:", "delete it from the local Maven repository"},
		},
	} {
		t.Run(c.reason, func(t *testing.T) {
			s := &Store{Dir: t.TempDir(), Mvn: c.mvn}
			_, err := s.Fetch(t.Context(), lockSpec(l), nil)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error()+"$", want) {
					t.Errorf("%v\ndoes not tell of %q", err, want)
				}
			}
		})
	}
}

func TestCancellingEndsMvnAndItsChildren(t *testing.T) {
	_, l := jarsAndLock(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	s := &Store{Dir: t.TempDir(), Mvn: fakeMvn(t, "sleep 600 &\necho $! > "+pidFile+"\necho '[INFO] Downloaded from x: y'\nwait\n")}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	started := make(chan struct{})
	go func() {
		defer close(started)
		for ctx.Err() == nil {
			if pid, err := os.ReadFile(pidFile); err == nil && bytes.HasSuffix(pid, []byte("\n")) {
				cancel(errors.New("the user has had enough"))
			}
		}
	}()
	_, err := s.Fetch(ctx, lockSpec(l), nil)
	cancel(nil)
	<-started
	if err == nil || !strings.Contains(err.Error(), "the user has had enough") {
		t.Errorf("got %v", err)
	}
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); alive(strings.TrimSpace(string(pid))); {
		if time.Now().After(end) {
			t.Fatalf("the child of mvn, %s, still runs", pid)
		}
	}
}

func alive(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestNoRoomIsSaidBeforeAnythingIsDone(t *testing.T) {
	jars, l := jarsAndLock(t)
	full := func() (int64, error) { return 10 << 20, nil }
	s := &Store{Dir: t.TempDir(), Mvn: fakeMvn(t, "cp "+jars+"/*.jar $OUT\n")}
	s.free = full
	_, err := s.Fetch(t.Context(), lockSpec(l), nil)
	want := fmt.Sprintf("no room to assemble Probe 0.1: the file system of %s has 10 MiB free, it takes 64 MiB", s.Dir)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	s.free = nil
	a, err := s.Fetch(t.Context(), lockSpec(l), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.free = full
	if _, err := s.Unpack(t.Context(), a.Digest, nil); err == nil || !strings.Contains(err.Error(), "no room to unpack Probe 0.1") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Artifact(a.Digest); err != nil {
		t.Errorf("a full disk cost the archive: %v", err)
	}
}

func TestALongStepIsNeverSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var told []string
		r := report(func(u Update) { told = append(told, time.Since(start).Round(time.Second).String()+" "+u.Text) })
		r.say("working")
		<-time.After(11*time.Second + 500*time.Millisecond)
		r.stop()
		want := []string{"0s working", "4s working (for 4s now)", "8s working (for 8s now)"}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

func TestTwoUsersOfOneLockWait(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	r := report(nil)
	defer r.stop()
	release, err := s.acquire(t.Context(), "kafka-0.1", r)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := s.acquire(ctx, "kafka-0.1", r); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second user got the lock: %v", err)
	}
	if _, err := s.Prune(ctx, nil, time.Now()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("pruned under a user: %v", err)
	}
	release()
	again, err := s.acquire(t.Context(), "kafka-0.1", r)
	if err != nil {
		t.Fatal(err)
	}
	again()
}
