package stand

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// commandTimeout bounds one command of a tool.
const commandTimeout = 3 * time.Minute

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

// command is one to run.
type command struct {
	program string
	args    []string
	stdin   string
	within  time.Duration // [commandTimeout] if 0
	env     []string
}

func (c command) run(ctx context.Context) Output {
	within := c.within
	if within == 0 {
		within = commandTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, c.program, c.args...) //nolint:gosec // the stand's own binaries and tools
	cmd.Env = environment(c.env)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.stdin), &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	began := time.Now()
	err := cmd.Run()
	out := Output{
		Args:   append([]string{filepath.Base(c.program)}, c.args...),
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

// environment is that of the test, without the user's own KUBECONFIG, which must not lead a test to somebody's cluster.
func environment(more []string) []string {
	own := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "KUBECONFIG=") })
	return append(own, more...)
}

// Kubectl runs kubectl as administrator.
func (k *Kubernetes) Kubectl(args ...string) Output {
	k.tb.Helper()
	return k.kubectl(k.tb.Context(), "", args...)
}

// KubectlIn is Kubectl with a standard input.
func (k *Kubernetes) KubectlIn(stdin string, args ...string) Output {
	k.tb.Helper()
	return k.kubectl(k.tb.Context(), stdin, args...)
}

func (k *Kubernetes) kubectl(ctx context.Context, stdin string, args ...string) Output {
	return command{
		program: k.testkube, args: append([]string{"kubectl"}, args...), stdin: stdin,
		env: []string{"KUBECONFIG=" + k.Kubeconfig()},
	}.run(ctx)
}

// MustKubectl is Kubectl for a command that has to work; it returns its standard output.
func (k *Kubernetes) MustKubectl(args ...string) string {
	k.tb.Helper()
	return must(k.tb, k.Kubectl(args...))
}

// Castellan runs one command of bin/castellan against this Kubernetes.
func (k *Kubernetes) Castellan(args ...string) Output {
	k.tb.Helper()
	return k.CastellanWithin(commandTimeout, args...)
}

// CastellanWithin is Castellan with a bound of its own.
func (k *Kubernetes) CastellanWithin(within time.Duration, args ...string) Output {
	k.tb.Helper()
	return command{program: k.castellan, args: args, within: within, env: []string{"KUBECONFIG=" + k.Kubeconfig()}}.run(k.tb.Context())
}

// Helm runs helm, which has to work, and returns its standard output.
func (k *Kubernetes) Helm(args ...string) string {
	k.tb.Helper()
	return must(k.tb, k.helmed(k.tb.Context(), args...))
}

func (k *Kubernetes) helmed(ctx context.Context, args ...string) Output {
	env := []string{"KUBECONFIG=" + k.Kubeconfig()}
	for _, home := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} {
		env = append(env, home+"="+filepath.Join(k.work, "helm"))
	}
	return command{program: k.helm, args: args, within: 5 * time.Minute, env: env}.run(ctx)
}

// harness runs a command of testkube about this Kubernetes, with what stands after "--".
func (k *Kubernetes) harness(ctx context.Context, within time.Duration, args []string, inside ...string) Output {
	args = append(slices.Clone(args), "--dir", k.dir)
	if len(inside) > 0 {
		args = append(append(args, "--"), inside...)
	}
	return command{program: k.testkube, args: args, within: within}.run(ctx)
}

func must(tb testing.TB, out Output) string {
	tb.Helper()
	if out.Code != 0 {
		tb.Fatal(out)
	}
	return out.Stdout
}

// tail is the end of a text.
func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(all) <= lines {
		return strings.Join(all, "\n")
	}
	return "…\n" + strings.Join(all[len(all)-lines:], "\n")
}

// KubectlAnyway is Kubectl for the end of a test, whose context has ended.
func (k *Kubernetes) KubectlAnyway(args ...string) Output {
	k.tb.Helper()
	return k.kubectl(context.Background(), "", args...)
}

// KubectlWithin is Kubectl with a bound of its own.
func (k *Kubernetes) KubectlWithin(within time.Duration, args ...string) Output {
	k.tb.Helper()
	return command{
		program: k.testkube, args: append([]string{"kubectl"}, args...), within: within, env: []string{"KUBECONFIG=" + k.Kubeconfig()},
	}.run(k.tb.Context())
}

// CastellanIn is Castellan with a standard input.
func (k *Kubernetes) CastellanIn(stdin string, args ...string) Output {
	k.tb.Helper()
	return command{program: k.castellan, args: args, stdin: stdin, env: []string{"KUBECONFIG=" + k.Kubeconfig()}}.run(k.tb.Context())
}
