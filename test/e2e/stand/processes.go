package stand

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/local"
)

// Server is the process above control plane, operator and agent, see [Stand.PID].
const Server = "server"

// Names of what runs beside Kafka, see [Stand.PID].
const (
	ControlPlane = local.ControlPlane
	Operator     = local.Operator
	Agent        = local.Agent
)

// process names one process beyond doubt: a pid alone is given again to others.
type process struct {
	Name  string `json:"-"`
	PID   int    `json:"pid"`
	Ticks uint64 `json:"ticks"`
	// Boot is the kernel's boot id, empty for a process that was just seen.
	Boot string `json:"boot,omitempty"`
}

// self is the test's own process.
func self() process {
	ticks, _ := startTicks(os.Getpid())
	return process{Name: "test", PID: os.Getpid(), Ticks: ticks, Boot: bootID()}
}

func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(data))
}

// String names the process for a person.
func (p process) String() string { return fmt.Sprintf("%s (pid %d)", p.Name, p.PID) }

func (p process) alive() bool {
	ticks, ok := startTicks(p.PID)
	return ok && ticks == p.Ticks && (p.Boot == "" || p.Boot == bootID())
}

// Alive looks whether a process that runs now still does, whoever gets its id after it.
func Alive(pid int) func() bool {
	ticks, _ := startTicks(pid)
	return process{PID: pid, Ticks: ticks}.alive
}

func (p process) kill() error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s: %w", p, err)
	}
	return nil
}

// startTicks reads the start time as the kernel counts it (proc(5), field 22 of stat).
func startTicks(pid int) (uint64, bool) {
	if pid <= 0 {
		return 0, false
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0, false
	}
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	return ticks, err == nil
}

// PID is the process id of Server, ControlPlane, Operator or Agent as the stand's folder has it on record, 0 when it
// does not run.
func (s *Stand) PID(name string) int {
	p := s.recorded(name)
	if !p.alive() {
		return 0
	}
	return p.PID
}

// MustPID is PID of a process that has to run.
func (s *Stand) MustPID(name string) int {
	s.tb.Helper()
	pid := s.PID(name)
	if pid == 0 {
		s.tb.Fatalf("%s does not run", name)
	}
	return pid
}

func (s *Stand) recorded(name string) process {
	p := process{Name: name}
	if name == Server {
		var state struct{ Server process }
		readJSON(filepath.Join(string(s.dir), "run", "state.json"), &state)
		state.Server.Name = name
		return state.Server
	}
	readJSON(filepath.Join(string(s.dir), "run", name+".json"), &p)
	return p
}

// JVMPIDs are the process ids of Kafka's JVMs by node id, as their supervisors report them now, with or without an API
// server. A node without a JVM is not in it.
func (s *Stand) JVMPIDs() map[int32]int {
	pids := map[int32]int{}
	for _, n := range s.supervisors() {
		if report, err := n.report(); err == nil && report.PID > 0 {
			pids[n.id] = int(report.PID)
		}
	}
	return pids
}

// SupervisorPIDs are the process ids of the `castellan node` of every node by node id, as the agent has them on record.
func (s *Stand) SupervisorPIDs() map[int32]int {
	pids := map[int32]int{}
	for _, n := range s.supervisors() {
		if n.process.alive() {
			pids[n.id] = n.process.PID
		}
	}
	return pids
}

// Kill sends SIGKILL to a process of the stand.
func (s *Stand) Kill(pids ...int) {
	s.tb.Helper()
	for _, pid := range pids {
		if _, runs := startTicks(pid); !runs {
			s.tb.Fatalf("process %d, which was to be killed, does not run", pid)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			s.tb.Fatalf("kill process %d: %v", pid, err)
		}
	}
}

// supervisor is the process of one node as the agent has it on record.
type supervisor struct {
	id      int32
	folder  string
	process process
}

func (s *Stand) supervisors() []supervisor {
	files, err := filepath.Glob(filepath.Join(s.dir.AgentDir()+"*", "processes", "*", "state.json")) // and those of racks
	if err != nil {
		s.tb.Fatal(err)
	}
	var found []supervisor
	for _, file := range files {
		n := supervisor{folder: filepath.Join(filepath.Dir(file), "run")}
		var state struct{ Identity process }
		var static layout.Static
		if !readJSON(file, &state) || !readJSON(filepath.Join(n.folder, layout.StaticFile), &static) {
			continue
		}
		n.id, n.process = static.NodeID, state.Identity
		n.process.Name = fmt.Sprintf("supervisor of node %d", n.id)
		found = append(found, n)
	}
	return found
}

// report asks the supervisor itself.
func (n supervisor) report() (layout.Report, error) {
	var report layout.Report
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(n.folder, layout.Socket))
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/report", nil)
	if err != nil {
		return report, fmt.Errorf("ask node %d for its report: %w", n.id, err)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return report, fmt.Errorf("ask node %d for its report: %w", n.id, err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	if err := json.NewDecoder(response.Body).Decode(&report); err != nil {
		return report, fmt.Errorf("read the report of node %d: %w", n.id, err)
	}
	return report, nil
}

// processes lists everything of the stand that is known, the topmost first, so that nothing killed is started again.
func (s *Stand) processes() []process {
	all := append([]process{s.recorded(Server), s.recorded(ControlPlane), s.recorded(Operator), s.recorded(Agent)}, s.rackAgents()...)
	for _, n := range s.supervisors() {
		all = append(all, n.process)
	}
	for id, pid := range s.JVMPIDs() {
		if ticks, runs := startTicks(pid); runs {
			all = append(all, process{Name: fmt.Sprintf("Kafka of node %d", id), PID: pid, Ticks: ticks})
		}
	}
	return all
}

func readJSON(file string, into any) bool {
	data, err := os.ReadFile(file) //nolint:gosec // files of the stand's own folder
	return err == nil && json.Unmarshal(data, into) == nil
}
