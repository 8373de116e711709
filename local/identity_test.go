package local

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// start runs the test binary in one of the roles of TestMain and reaps it.
func start(t *testing.T, args ...string) (identity, <-chan error) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return id, ended
}

func TestEndAsksFirstAndForcesAfterwards(t *testing.T) {
	for _, role := range []string{"sleeper", "stubborn"} {
		id, ended := start(t, role)
		if !id.alive() {
			t.Fatalf("%s does not run", role)
		}
		if err := id.end(t.Context(), 300*time.Millisecond); err != nil {
			t.Errorf("end %s: %v", role, err)
		}
		<-ended
		if id.alive() {
			t.Errorf("%s still runs", role)
		}
	}
}

func TestAnotherProcessOfTheSamePidIsNeverTouched(t *testing.T) {
	id, ended := start(t, "sleeper")
	for _, other := range []identity{
		{PID: id.PID, Ticks: id.Ticks + 1, Boot: id.Boot},
		{PID: id.PID, Ticks: id.Ticks, Boot: "another boot"},
	} {
		if other.alive() {
			t.Errorf("%+v counts as alive", other)
		}
		if err := other.end(t.Context(), time.Second); err != nil {
			t.Error(err)
		}
	}
	select {
	case <-ended:
		t.Error("a process was ended by its pid alone")
	default:
	}
	if !id.alive() {
		t.Error("the process does not run any more")
	}
}

func TestExecRecordedKeepsPidAndRefusesASecond(t *testing.T) {
	record := filepath.Join(t.TempDir(), "child.json")
	id, _ := start(t, ExecCommand, record, os.Args[0], "sleeper")
	var recorded identity
	await(t, "the record", func() bool { return readJSON(record, &recorded) })
	if recorded != id {
		t.Errorf("recorded %+v, the process is %+v", recorded, id)
	}
	out, err := exec.Command(os.Args[0], ExecCommand, record, os.Args[0], "sleeper").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "still runs") {
		t.Errorf("a second child was started: %v, %s", err, out)
	}
}

// await waits for a fact, for at most 30 seconds.
func await(t *testing.T, what string, fact func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !fact() {
		select {
		case <-deadline.C:
			t.Fatalf("waited in vain for %s", what)
		case <-ticker.C:
		}
	}
}
