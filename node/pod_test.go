package node

import (
	"bytes"
	"context"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
	"castellan.dev/castellan/core/layout"
)

// idle is a Kafka that says a word and runs.
const idle = "echo the log; echo the machine >&2; while :; do sleep 0.05; done"

func (b *bench) untilWaiting(reason string) layout.Report {
	b.t.Helper()
	return b.until(reason, 20*time.Second, func(r layout.Report) bool { return r.Reason == reason })
}

func (b *bench) untilStarted() layout.Report {
	b.t.Helper()
	return b.until("start", 20*time.Second, func(r layout.Report) bool { return r.PID != 0 })
}

func (b *bench) properties() map[string]string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, layout.PropertiesFile))
	if err != nil {
		b.t.Fatal(err)
	}
	properties, err := kconf.Parse(data)
	if err != nil {
		b.t.Fatal(err)
	}
	return properties
}

// A pod waits for what it is told of its machine, and keeps it: when it starts again on that
// machine, nobody is needed. It has no other rack than the machine's.
func TestPodKnowsItsMachine(t *testing.T) {
	t.Parallel()
	b := newFake(t, idle).podded()
	b.live.Rack = "of no machine"
	b.live.Advertised = []layout.Advertised{{Listener: "PLAIN", AddressType: "ExternalIP", Port: 31092}}
	mkdir(t, filepath.Join(b.static.Volumes[0].Path, "lost+found"))
	b.start()
	b.untilWaiting(ReasonWaitingForPlacement)
	b.pod.tell(t, nil, "zone-7")
	b.until("the rack but no address", 20*time.Second, func(r layout.Report) bool { return strings.Contains(r.Message, "ExternalIP of machine machine-1") })
	b.pod.tell(t, &api.NodePlacement{Node: "machine-1", Zone: "zone-1", Addresses: map[string]string{"ExternalIP": "192.0.2.1"}}, "")
	b.untilStarted()
	want := map[string]string{"broker.rack": "zone-1"}
	for key, value := range want {
		if got := b.properties()[key]; got != value {
			t.Errorf("%s is %q, want %q", key, got, value)
		}
	}
	if got := b.properties()["advertised.listeners"]; !strings.HasSuffix(got, ",PLAIN://192.0.2.1:31092") {
		t.Errorf("advertised.listeners is %q", got)
	}
	if got := b.report().Rack; got != "zone-1" {
		t.Errorf("reports rack %q", got)
	}

	b.pod.tell(t, &api.NodePlacement{Node: "machine-1", Zone: "zone-1", Addresses: map[string]string{"ExternalIP": "192.0.2.2"}}, "")
	b.until("the new address kept", 20*time.Second, func(layout.Report) bool {
		data, err := os.ReadFile(filepath.Join(b.static.Volumes[0].Path, placementFile))
		return err == nil && bytes.Contains(data, []byte("192.0.2.2"))
	})
	b.stop()
	b.code(20 * time.Second)
	b.pod.tell(t, nil, "")
	b.start()
	b.untilStarted()
	if got := b.properties(); got["broker.rack"] != "zone-1" || !strings.HasSuffix(got["advertised.listeners"], ",PLAIN://192.0.2.2:31092") {
		t.Errorf("without an operator: %v", got)
	}
	b.stop()
	b.code(20 * time.Second)
}

// What a pod keeps beside an empty log directory does not make it somebody else's.
func TestKeptPlacementIsNoData(t *testing.T) {
	v := layout.Volume{Name: "data", Path: t.TempDir()}
	replace(t, filepath.Join(v.Path, placementFile), "{}")
	mkdir(t, filepath.Join(v.Path, "lost+found"))
	if got := inspectVolume(v); got.State != api.VolumeEmpty {
		t.Errorf("the volume is %+v", got)
	}
	replace(t, filepath.Join(v.Path, "letter"), "")
	if got := inspectVolume(v); got.State != api.VolumeForeign {
		t.Errorf("with a letter the volume is %+v", got)
	}
}

// The operator alone gets reports, as soon as there is another one.
func TestPodReports(t *testing.T) {
	t.Parallel()
	b := newFake(t, idle).podded()
	b.start()
	b.untilWaiting(ReasonWaitingForPlacement)
	operator := b.caller(b.ca, operatorName())
	code, first, err := b.reported(t.Context(), operator, "")
	if err != nil || code != http.StatusOK || first.report.Reason != ReasonWaitingForPlacement {
		t.Fatalf("code %d, %+v, error %v", code, first, err)
	}
	digest := strings.Trim(first.digest, `"`)
	if _, again, err := b.reported(t.Context(), operator, "?wait=1&after="+digest); err != nil || again.digest != first.digest {
		t.Errorf("nothing happened: %+v, error %v, want digest %s", again, err, first.digest)
	}
	if code, _, err := b.reported(t.Context(), operator, "?wait=soon"); err != nil || code != http.StatusBadRequest {
		t.Errorf("nonsense is answered with %d, error %v", code, err)
	}
	b.reportsChange(operator, digest)

	for reason, who := range map[string]*pkix.Name{
		"a node":             {CommonName: layout.NodePrincipal + "-1", Organization: []string{"castellan"}},
		"another's operator": {CommonName: layout.OperatorPrincipal, Organization: []string{"users"}},
		"a unit more":        {CommonName: layout.OperatorPrincipal, Organization: []string{"castellan"}, OrganizationalUnit: []string{"x"}},
		"an inner comma":     {CommonName: layout.OperatorPrincipal + ",O=castellan"},
	} {
		if code, _, err := b.reported(t.Context(), b.caller(b.ca, who), ""); err != nil || code != http.StatusForbidden {
			t.Errorf("%s is answered with %d, error %v", reason, code, err)
		}
	}
	for reason, who := range map[string]*http.Client{
		"nobody": b.caller(b.ca, nil), "an operator of other CAs": b.caller(newAuthority(t), operatorName()),
	} {
		if code, _, err := b.reported(t.Context(), who, ""); err == nil {
			t.Errorf("%s is answered with %d, want a refused connection", reason, code)
		}
	}
	b.trustsAnother(operator)
}

// reportsChange lets the node start while somebody waits for another report.
func (b *bench) reportsChange(operator *http.Client, digest string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	type answer struct {
		reported
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		_, next, err := b.reported(ctx, operator, "?wait=60&after="+digest)
		answers <- answer{next, err}
	}()
	b.pod.tell(b.t, &api.NodePlacement{Node: "machine-1", Zone: "zone-1"}, "")
	if next := <-answers; next.err != nil || strings.Trim(next.digest, `"`) == digest || next.report.Rack != "zone-1" {
		b.t.Errorf("the change is answered with %+v", next)
	}
}

// trustsAnother swaps the mounted Secret: the next connection sees the new certificate and
// is verified by the new CA.
func (b *bench) trustsAnother(former *http.Client) {
	b.t.Helper()
	b.ca = newAuthority(b.t)
	b.certify(77)
	operator := b.caller(b.ca, operatorName())
	code, got, err := b.reported(b.t.Context(), operator, "")
	if err != nil || code != http.StatusOK || got.leaf.SerialNumber.Cmp(big.NewInt(77)) != 0 {
		b.t.Fatalf("after the swap: code %d, error %v, certificate %v", code, err, got.leaf)
	}
	if code, _, err := b.reported(b.t.Context(), former, ""); err == nil {
		b.t.Errorf("a certificate of the former CA is answered with %d", code)
	}
}

// A kubelet gets no report, and reads on standard output what Kafka logs.
func TestPodProbes(t *testing.T) {
	t.Parallel()
	b := newFake(t, idle).podded()
	b.pod.tell(t, nil, "zone-1")
	b.start()
	b.untilStarted()
	for path, want := range map[string]int{
		"/livez": http.StatusOK, "/metrics": http.StatusOK, "/readyz": http.StatusServiceUnavailable, "/report": http.StatusNotFound,
	} {
		if code, text := b.probe(path); code != want {
			t.Errorf("%s: %d %s, want %d", path, code, text, want)
		}
	}
	if _, text := b.probe("/readyz"); strings.TrimSpace(text) != ReasonStarting {
		t.Errorf("readyz does not say why in one word: %s", text)
	}
	console := filepath.Join(b.dir, layout.LogDir, layout.ConsoleLog)
	eventually(t, "console", func() bool {
		kept, err := os.ReadFile(console)
		return err == nil && string(kept) == "the machine\n" && strings.Contains(b.pod.stdout.String(), "the log\n") && strings.Contains(b.pod.stdout.String(), "the machine\n")
	})
	before := inode(t, filepath.Join(b.dir, layout.TerminationMessageFile))
	b.stop()
	b.code(20 * time.Second)
	if after := inode(t, filepath.Join(b.dir, layout.TerminationMessageFile)); after != before || b.termination().Reason != ReasonStopped {
		t.Errorf("the termination message was replaced, a kubelet's mount cannot be: %d, then %d, %+v", before, after, b.termination())
	}
}

func inode(t *testing.T, file string) uint64 {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// A listener that clients verify waits for the certificate that names it, not for ever, and
// the report says so until it does.
func TestPodStartsWithoutItsName(t *testing.T) {
	t.Parallel()
	b := newFake(t, idle).podded()
	b.static.Process.Listeners = append(b.static.Process.Listeners, api.NodeListener{Name: "secure", Protocol: "SSL"})
	b.static.Ports["secure"] = freePorts(t, 1)[0]
	b.live.Advertised = []layout.Advertised{{Listener: "secure", Host: "b1.example.com", Port: 31093}}
	b.config.Pod.NameWait = time.Second
	b.pod.tell(t, nil, "zone-1")
	b.start()
	b.untilWaiting(ReasonWaitingForCertificates)
	const warning = "does not name b1.example.com"
	b.untilStarted()
	b.until("warning", 20*time.Second, func(r layout.Report) bool { return r.PID != 0 && strings.Contains(r.Message, warning) })
	b.ca.names = []string{"b1.example.com"}
	b.certify(2)
	b.until("end of the warning", 20*time.Second, func(r layout.Report) bool { return !strings.Contains(r.Message, warning) })
}

func TestPodWithoutMachine(t *testing.T) {
	b := newFake(t, idle).podded()
	b.config.Pod.Machine = ""
	b.start()
	b.wantFailure(ExitFiles, ReasonBadFiles, layout.NodeNameVariable, "spec.nodeName")
}

func TestTerminationMessageFits(t *testing.T) {
	long := strings.Repeat("a line with \"quotes\" and \x01\n", 300)
	for reason, status := range map[string]api.ExitStatus{
		"short": {Code: 1, Reason: ReasonKilled, Message: "m", LogTail: "one\ntwo"},
		"log":   {Code: 1, Reason: ReasonKilled, Message: "m", LogTail: long + "the end"},
		"both":  {Code: 1, Reason: ReasonKilled, Message: "m" + long, LogTail: long},
		"wide":  {Code: 1, Reason: ReasonKilled, Message: "m", LogTail: strings.Repeat("日本", 4000) + "the end"},
	} {
		data, err := fit(status, maxTermination)
		var got api.ExitStatus
		if err == nil {
			err = json.Unmarshal(data, &got)
		}
		switch {
		case err != nil || len(data) > maxTermination:
			t.Errorf("%s: %d bytes, error %v", reason, len(data), err)
		case got.Reason != ReasonKilled || !strings.HasPrefix(got.Message, "m"):
			t.Errorf("%s: reason and message are lost: %+v", reason, got)
		case reason == "short" && got.LogTail != status.LogTail:
			t.Errorf("short: the log is cut: %q", got.LogTail)
		case reason != "short" && len(data) < maxTermination-200:
			t.Errorf("%s: only %d bytes are used", reason, len(data))
		case strings.HasSuffix(status.LogTail, "the end") && !strings.HasSuffix(got.LogTail, "the end"):
			t.Errorf("%s: the end of the log is lost: %q", reason, got.LogTail)
		}
	}
}

// What an exec left behind is buried, and nothing that we wait for ourselves.
func TestBuriesOrphans(t *testing.T) {
	orphan := exec.Command("true")
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	pid := orphan.Process.Pid
	dead := func() bool { return zombies("/proc", os.Getpid())[pid] }
	eventually(t, "zombie", dead)
	bury(map[int]bool{}, map[int]bool{pid: true})
	if !dead() {
		t.Fatal("buried at once: whoever waits for it would find nothing")
	}
	bury(map[int]bool{pid: true}, map[int]bool{pid: true})
	if dead() {
		t.Error("not buried")
	}
}

func TestInstallSupervisor(t *testing.T) {
	dir := t.TempDir()
	own, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := InstallSupervisor(dir); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "castellan"))
		if err != nil || !bytes.Equal(own, got) {
			t.Errorf("copied %d bytes of %d, error %v", len(got), len(own), err)
		}
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, error %v", list, err)
	}
	if info, err := list[0].Info(); err != nil || info.Mode() != fs.FileMode(0o755) {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	if err := InstallSupervisor(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "mount") {
		t.Errorf("without the folder: error %v", err)
	}
}

// The places of a pod are those that its template mounts.
func TestPodPlaces(t *testing.T) {
	got := PodPlaces("machine-1")
	dirs := []string{got.StaticDir, got.LiveDir, got.TLSDir, got.InfoDir}
	if want := []string{layout.PodStaticDir, layout.PodLiveDir, layout.PodTLSDir, layout.PodInfoDir}; !slices.Equal(dirs, want) {
		t.Errorf("%v, want %v", dirs, want)
	}
	if want := fmt.Sprintf(":%d :%d machine-1", layout.ReportPort, layout.ProbePort); fmt.Sprintf("%s %s %s", got.ReportAddress, got.ProbeAddress, got.Machine) != want {
		t.Errorf("%+v, want %s", got, want)
	}
}
