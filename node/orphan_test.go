package node

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

// asSupervisor makes the test binary run a supervisor on a folder, so that it can be killed.
const asSupervisor = "CASTELLAN_TEST_SUPERVISOR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asSupervisor); dir != "" {
		os.Exit(Run(context.Background(), Config{Dir: dir, Archive: os.Getenv("ARCHIVE")}))
	}
	os.Exit(m.Run())
}

// A supervisor that is killed takes its Kafka with it, and the next one begins only when
// both are gone.
func TestKilledSupervisorTakesKafkaWithIt(t *testing.T) {
	b := newFake(t, "echo $$ > pid.new; mv pid.new pid; while :; do sleep 0.05; done")
	b.write(layout.StaticFile, b.static)
	b.write(layout.LiveFile, b.live)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(b.config.Env, asSupervisor+"="+b.dir, "ARCHIVE="+b.config.Archive)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	pid := waitForPID(t, filepath.Join(b.dir, "pid"))
	if alive := syscall.Kill(pid, 0); alive != nil {
		t.Fatalf("Kafka does not run: %v", alive)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	eventually(t, "end of Kafka after its supervisor's", func() bool { return !running(pid) })
}

// Two supervisors never run on one folder, nor on one disk.
func TestOneSupervisorAlone(t *testing.T) {
	b := newFake(t, "touch started; while :; do sleep 0.05; done")
	b.start()
	b.until("start", 10*time.Second, func(r layout.Report) bool { return r.PID != 0 })
	second := newFake(t, "exit 9")
	second.static.Volumes = b.static.Volumes
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := lockAll(ctx, second.dir, b.static.Volumes); err == nil || !strings.Contains(err.Error(), ReasonAlreadyRunning) {
		t.Errorf("a second process on the disk: error %v", err)
	}
	if err := lockAll(ctx, b.dir, nil); err == nil || !strings.Contains(err.Error(), ReasonAlreadyRunning) {
		t.Errorf("a second supervisor in the folder: error %v", err)
	}
}

func lockAll(ctx context.Context, dir string, volumes []layout.Volume) error {
	file, err := lockFolder(ctx, dir)
	if err != nil {
		return err
	}
	s := supervisor{dir: dir, static: layout.Static{Volumes: volumes}, held: []*os.File{file}}
	defer s.release()
	return s.lockVolumes(ctx)
}

func waitForPID(t *testing.T, file string) int {
	t.Helper()
	pid := 0
	eventually(t, "file "+file, func() bool {
		data, err := os.ReadFile(file)
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(data)))
		}
		return err == nil
	})
	return pid
}

// running does not count a process that only waits for its parent to hear of its end.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// A power cut in the middle of a format leaves an empty disk, and a question with a new
// nonce; the next answer makes it whole.
func TestKilledWhileFormatting(t *testing.T) {
	const fake = `for a; do case $last in --config) file=$a;; esac; last=$a; done
[ -n "$file" ] || exit 7
dir=$(sed -n 's/^metadata.log.dir=//p' "$file")
if [ ! -e began ]; then mkdir "$dir/__cluster_metadata-0"; echo 1 > began; while :; do sleep 0.05; done; fi
printf 'version=1\ncluster.id=` + thisCluster + `\nnode.id=1\ndirectory.id=` + directoryID + `\n' > "$dir/meta.properties"`
	b := newFake(t, fake)
	if err := os.RemoveAll(b.static.Volumes[0].Path); err != nil {
		t.Fatal(err)
	}
	b.connect()
	b.write(layout.StaticFile, b.static)
	b.write(layout.LiveFile, b.live)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(b.config.Env, asSupervisor+"="+b.dir, "ARCHIVE="+b.config.Archive)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var nonce string
	eventually(t, "question", func() bool { nonce = b.report().Nonce; return nonce != "" })
	b.answer(nonce)
	waitForPID(t, filepath.Join(b.dir, "began"))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if got := inspect(b.static.Volumes)[0]; got.State != api.VolumeEmpty {
		t.Errorf("after the kill: %+v", got)
	}
	b.start()
	again := b.untilAsking()
	if again.Nonce == nonce {
		t.Error("asks with the old nonce")
	}
	b.answer(again.Nonce)
	b.wantFailure(7, ReasonKafkaExited)
	if got := inspect(b.static.Volumes)[0]; got.State != api.VolumeFormatted || got.DirectoryID != directoryID {
		t.Errorf("in the end: %+v", got)
	}
}
