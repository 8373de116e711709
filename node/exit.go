package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

// Bounds of the log tail in a termination message.
const (
	serverTail  = 14
	consoleTail = 6
	maxTail     = 4 << 10
)

// ending is how the virtual machine ended and what it left.
type ending struct {
	code    int
	asked   bool     // to stop
	killed  string   // why we killed it
	server  []string // what Kafka logged since its start, the last lines
	console []string // what the virtual machine printed since then
}

// describe turns an end into a termination message.
func describe(e ending) api.ExitStatus {
	status := api.ExitStatus{Code: int32(e.code), LogTail: tail(e)} //nolint:gosec // an exit code has eight bits
	switch {
	case e.killed != "":
		status.Reason = ReasonStopTimeout
		status.Message = e.killed + ": its logs are checked at the next start, which takes longer"
	case e.asked:
		status.Reason, status.Message = ReasonStopped, "Kafka was asked to stop and ended"
	default:
		status.Reason, status.Message = explain(e)
	}
	return status
}

// symptom is a line that tells why Kafka ended.
type symptom struct {
	text    string
	reason  string
	message string
}

// symptoms in the order of their weight: the first one found counts.
func symptoms() []symptom {
	const options = "the Java virtual machine refuses its options: correct jvm.options or jvm.heap of the node's pool"
	return []symptom{
		{"java.lang.OutOfMemoryError", ReasonOutOfMemory, "Kafka ran out of memory: raise jvm.heap of the node's pool (or the limits of open files and memory maps, as the log says)"},
		{"No space left on device", ReasonDiskFull, "a disk is full: free space or enlarge the volume"},
		{"ConfigException", ReasonBadConfig, "Kafka refuses its configuration: correct spec.config"},
		{"requirement failed", ReasonBadConfig, "Kafka refuses its configuration: correct spec.config"},
		{"Address already in use", ReasonPortInUse, "a port was taken while Kafka started: end who holds it (ss -ltnp), or give the listener another port"},
		{"Shutdown broker because all log dirs", ReasonDisksFailed, "every log directory failed: check the disks"},
		{"Could not reserve enough space", ReasonBadConfig, "the host has not enough memory for the heap: lower jvm.heap of the node's pool"},
		{"Unrecognized VM option", ReasonBadConfig, options},
		{"Unrecognized option", ReasonBadConfig, options},
		{"Could not create the Java Virtual Machine", ReasonBadConfig, options},
	}
}

func explain(e ending) (reason, message string) {
	if e.code == 128+int(syscall.SIGKILL) {
		return ReasonKilled, "Kafka was killed (SIGKILL) and nobody here did it: by hand, or by the kernel for lack of memory (see dmesg)"
	}
	// Not further back: what went wrong hours ago did not end it.
	const recent = 100
	lines := append(last(e.console, recent), last(e.server, recent)...)
	for _, s := range symptoms() {
		for _, line := range lines {
			if strings.Contains(line, s.text) {
				return s.reason, s.message + ". " + clip(strings.TrimSpace(line), 500)
			}
		}
	}
	if e.code > 128 {
		return ReasonKilled, fmt.Sprintf("Kafka was ended by signal %d (%s), which nobody here sent", e.code-128, syscall.Signal(e.code-128))
	}
	why := "its last lines say why"
	if thrown := lastThrown(lines); thrown != "" {
		why = clip(thrown, 500)
	}
	return ReasonKafkaExited, fmt.Sprintf("Kafka ended by itself with code %d: %s (the whole log is %s/%s)", e.code, why, layout.LogDir, layout.ServerLog)
}

// lastThrown is the line that names what was thrown last, as Java prints it above a stack
// trace; the trace itself is often longer than the tail that is kept.
func lastThrown(lines []string) string {
	thrown := regexp.MustCompile(`^(Caused by: )?([a-z][a-zA-Z0-9_]*\.)+[A-Z][a-zA-Z0-9_$]*(Exception|Error)\b`)
	for _, line := range slices.Backward(lines) {
		if thrown.MatchString(line) {
			return strings.TrimPrefix(line, "Caused by: ")
		}
	}
	return ""
}

func tail(e ending) string {
	lines := append(last(e.server, serverTail), last(e.console, consoleTail)...)
	text := strings.Join(lines, "\n")
	if len(text) > maxTail {
		text = text[len(text)-maxTail:]
	}
	return strings.ToValidUTF8(text, "?")
}

func last(lines []string, n int) []string {
	return append([]string(nil), lines[max(0, len(lines)-n):]...)
}

// lines that a log got since it was begun to be read, at most the last 256 KiB.
func (l *logReader) lines() []string {
	const most = 256 << 10
	info, err := os.Stat(l.path)
	if err != nil {
		return nil
	}
	from := l.from
	if info.Size() < from {
		from = 0
	}
	data, err := readFrom(l.path, max(from, info.Size()-most), most)
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimRight(string(data), "\n"), "\n")
}

// leave writes the termination message and returns its code.
func (s *supervisor) leave(status api.ExitStatus) int {
	status.At = metav1.NewTime(s.config.now())
	if err := s.writeTermination(status); err != nil {
		s.log.Error("leave the termination message", errorAttr(err))
	}
	return int(status.Code)
}

// maxTermination is how much of a container's termination message the kubelet reads.
const maxTermination = 4096

func (s *supervisor) writeTermination(status api.ExitStatus) error {
	file := s.path(layout.TerminationMessageFile)
	if s.config.Pod == nil {
		return writeJSON(file, status)
	}
	data, err := fit(status, maxTermination)
	if err != nil {
		return err
	}
	return writeSynced(file, data) // the kubelet has mounted it: it cannot be replaced
}

// clearTermination forgets how the last run ended.
func (s *supervisor) clearTermination() error {
	file := s.path(layout.TerminationMessageFile)
	if s.config.Pod != nil {
		return writeSynced(file, nil)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// fit is the status as JSON of at most so many bytes: first the oldest lines of the log go,
// then the end of the message.
func fit(status api.ExitStatus, most int) ([]byte, error) {
	for {
		data, err := json.Marshal(status)
		if err != nil {
			return nil, fmt.Errorf("write the termination message: %w", err)
		}
		over := len(data) - most
		switch {
		case over <= 0:
			return data, nil
		case status.LogTail != "":
			// What stands for a byte in JSON has one or more: this may take a few rounds.
			status.LogTail = strings.ToValidUTF8(status.LogTail[min(len(status.LogTail), max(1, over/6)):], "")
		case status.Message != "":
			status.Message = strings.ToValidUTF8(status.Message[:max(0, len(status.Message)-max(1, over/6))], "")
		default:
			return nil, fmt.Errorf("write the termination message: it does not fit into %d bytes", most)
		}
	}
}
