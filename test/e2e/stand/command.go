package stand

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"castellan.dev/castellan/packages"
)

// toolTimeout bounds one command of Kafka's tools or kcat.
const toolTimeout = 3 * time.Minute

// Output is what a command left behind.
type Output struct {
	Args           []string
	Stdout, Stderr string
	// Code is the exit code, -1 when the command was killed or could not be started.
	Code int
	Took time.Duration
}

// String shows a command for a failed test.
func (o Output) String() string {
	return fmt.Sprintf("%s\nexit code %d after %s\nstdout:\n%s\nstderr:\n%s",
		strings.Join(o.Args, " "), o.Code, o.Took.Round(time.Millisecond), tail(o.Stdout, 40), tail(o.Stderr, 40))
}

// Castellan runs one command of bin/castellan against the stand.
func (s *Stand) Castellan(args ...string) Output {
	s.tb.Helper()
	return s.Run(toolTimeout, "", args...)
}

// Must is Castellan for a command that has to work; it returns its standard output.
func (s *Stand) Must(args ...string) string {
	s.tb.Helper()
	out := s.Castellan(args...)
	if out.Code != 0 {
		s.tb.Fatalf("castellan: %s", out)
	}
	return out.Stdout
}

// Run is Castellan with a bound of its own and a standard input.
func (s *Stand) Run(within time.Duration, stdin string, args ...string) Output {
	s.tb.Helper()
	return s.run(s.tb.Context(), within, stdin, args...)
}

func (s *Stand) run(ctx context.Context, within time.Duration, stdin string, args ...string) Output {
	args = append(slices.Clone(args), "--dir", string(s.dir))
	program := filepath.Join(s.bin, "castellan")
	if s.options.DataSize > 0 && args[0] == "up" {
		program, args = s.onSmallDisk(program, args)
	}
	return execute(ctx, within, strings.NewReader(stdin), program, args...)
}

// Apply runs `castellan apply`, which has to work.
func (s *Stand) Apply(yaml string) {
	s.tb.Helper()
	if out := s.TryApply(yaml); out.Code != 0 {
		s.tb.Fatalf("castellan apply: %s", out)
	}
}

// TryApply is Apply for a test that wants to see it fail.
func (s *Stand) TryApply(yaml string) Output {
	s.tb.Helper()
	return s.Run(toolTimeout, yaml, "apply", "-f", "-")
}

// KafkaTool runs a main class of Kafka's own jars (org.apache.kafka.tools.ConsoleProducer, kafka.admin.ConfigCommand)
// of a version and returns its standard output; it has to work.
func (s *Stand) KafkaTool(version string, stdin io.Reader, class string, args ...string) string {
	s.tb.Helper()
	out := s.TryKafkaTool(version, nil, stdin, class, args...)
	if out.Code != 0 {
		s.tb.Fatalf("Kafka's own %s: %s", class, out)
	}
	return out.Stdout
}

// TryKafkaTool is KafkaTool for a test that wants to see it fail; jvm are further options of the virtual machine.
func (s *Stand) TryKafkaTool(version string, jvm []string, stdin io.Reader, class string, args ...string) Output {
	s.tb.Helper()
	java := slices.Concat([]string{"-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}, jvm, []string{"-cp", filepath.Join(s.libs(version), "*"), class}, args)
	return execute(s.tb.Context(), toolTimeout, stdin, "java", java...)
}

// Kcat runs kcat, which has to work, and returns its standard output.
func (s *Stand) Kcat(stdin io.Reader, args ...string) string {
	s.tb.Helper()
	if _, err := exec.LookPath("kcat"); err != nil {
		s.tb.Fatalf("%v: run test/install-tools", err)
	}
	out := execute(s.tb.Context(), toolTimeout, stdin, "kcat", args...)
	if out.Code != 0 {
		s.tb.Fatalf("kcat: %s", out)
	}
	return out.Stdout
}

// TryKcat is Kcat for a test that logs in, or wants to see it fail.
func (s *Stand) TryKcat(stdin io.Reader, args ...string) Output {
	s.tb.Helper()
	return execute(s.tb.Context(), toolTimeout, stdin, "env", append(KcatCommand(s.tb), args...)...)
}

// KcatCommand is how kcat is called by env(1), with the librdkafka that `test/install-tools clients` has fetched: Debian's own
// cannot log in to Kafka 4 with SCRAM.
func KcatCommand(tb testing.TB) []string {
	tb.Helper()
	library := Installed(tb, "librdkafka-2.16.1")
	if _, err := exec.LookPath("kcat"); err != nil {
		tb.Fatalf("%v: run test/install-tools", err)
	}
	return []string{"LD_LIBRARY_PATH=" + library, "kcat"}
}

// Installed is the folder of something that `test/install-tools clients` keeps in Castellan's cache.
func Installed(tb testing.TB, name string) string {
	tb.Helper()
	store, err := packages.DefaultDir()
	if err != nil {
		tb.Fatal(err)
	}
	folder := filepath.Join(filepath.Dir(store), name)
	if _, err := os.Stat(folder); err != nil {
		tb.Fatalf("%v: run test/install-tools clients", err)
	}
	return folder
}

// libs is where the package store keeps the jars of a version.
func (s *Stand) libs(version string) string {
	s.tb.Helper()
	dir, err := packages.DefaultDir()
	if err != nil {
		s.tb.Fatal(err)
	}
	catalog, err := packages.Builtin()
	if err != nil {
		s.tb.Fatal(err)
	}
	spec, err := catalog.Find("Kafka", version)
	if err != nil {
		s.tb.Fatal(err)
	}
	provided, err := (&packages.Store{Dir: dir}).Provide(s.tb.Context(), spec, nil)
	if err != nil {
		s.tb.Fatalf("get the jars of Kafka %s: %v", version, err)
	}
	return provided.Libs()
}

func execute(ctx context.Context, within time.Duration, stdin io.Reader, program string, args ...string) Output {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // the stand's own binaries and tools
	// A user's own KUBECONFIG must not lead a test to somebody's cluster.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "KUBECONFIG=") })
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	began := time.Now()
	err := cmd.Run()
	out := Output{
		Args:   append([]string{filepath.Base(program)}, args...),
		Stdout: stdout.String(), Stderr: stderr.String(), Took: time.Since(began),
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		out.Code = exit.ExitCode()
	case err != nil:
		out.Code = -1
		out.Stderr += "\n" + err.Error()
	}
	if ctx.Err() != nil {
		out.Stderr += fmt.Sprintf("\n(ended by the test after %s: %v)", within, ctx.Err())
	}
	return out
}

// IDs writes node ids as the flags of castellan want them.
func IDs(ids ...int32) string {
	var words []string
	for _, id := range ids {
		words = append(words, strconv.Itoa(int(id)))
	}
	return strings.Join(words, ",")
}

// tail is the end of a text.
func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(all) <= lines {
		return strings.Join(all, "\n")
	}
	return "…\n" + strings.Join(all[len(all)-lines:], "\n")
}
