package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/node/sslengine"
)

const (
	toolTimeout = 2 * time.Minute
	engineJar   = "kafka/" + sslengine.Name
	waitPoll    = 500 * time.Millisecond
)

// supervisor runs one Kafka process once.
type supervisor struct {
	config    Config
	dir       string
	archive   string
	log       *slog.Logger
	static    layout.Static
	listeners []layout.Listener
	java      string
	report    report
	held      []*os.File
	asked     atomic.Bool // to stop
	wasReady  bool        // the watcher's
	landed    landing     // a pod's
	kept      *api.NodePlacement
}

// Run supervises one Kafka process until it ends, and returns the exit code of `castellan
// node`. When ctx ends, Kafka gets Config.StopGrace for its controlled shutdown. How it
// ended stands in the termination message.
func Run(ctx context.Context, c Config) int {
	c = c.withDefaults()
	s := &supervisor{config: c, log: c.Log}
	s.report.clock = c.Now
	var err error
	if s.dir, err = filepath.Abs(c.Dir); err == nil {
		s.archive, err = filepath.Abs(c.Archive)
	}
	if err != nil {
		s.log.ErrorContext(ctx, "find the process's folder", errorAttr(err))
		return ExitFiles
	}
	lock, err := lockFolder(ctx, s.dir)
	if err != nil {
		// The folder belongs to another supervisor, and so does its termination message.
		s.log.ErrorContext(ctx, "lock the process's folder", errorAttr(err))
		return asFailure(err).code
	}
	s.held = append(s.held, lock)
	defer s.release()
	if os.Getpid() == 1 {
		defer adopt(ctx)()
	}
	return s.run(ctx)
}

func errorAttr(err error) slog.Attr { return slog.String("error", err.Error()) }

func (s *supervisor) release() {
	for _, f := range s.held {
		_ = f.Close() // a lock ends with its file
	}
}

func (s *supervisor) stopping() bool { return s.asked.Load() }

func (s *supervisor) run(ctx context.Context) int {
	if err := s.clearTermination(); err != nil {
		s.log.WarnContext(ctx, "remove the termination message of the last run", errorAttr(err))
	}
	s.report.set(func(r *layout.Report) {
		r.State, r.Reason, r.Message = api.NodePending, ReasonStarting, "checking the host and the disks"
	})
	endpoints, err := s.open(ctx)
	if err != nil {
		return s.fail(ctx, err)
	}
	defer closeAll(ctx, s.log, endpoints)
	options, err := s.prepare(ctx)
	if err != nil {
		return s.fail(ctx, err)
	}
	return s.supervise(ctx, options)
}

// fail leaves why Kafka was never started; being asked to stop is no failure.
func (s *supervisor) fail(ctx context.Context, err error) int {
	if ctx.Err() != nil {
		return s.leave(api.ExitStatus{Reason: ReasonStopped, Message: "asked to stop before Kafka was started"})
	}
	f := asFailure(err)
	s.log.ErrorContext(ctx, "Kafka cannot be started", slog.String("reason", f.reason), slog.String("message", f.message))
	s.report.set(func(r *layout.Report) { r.State, r.Reason, r.Message = api.NodeFailed, f.reason, f.message })
	return s.leave(api.ExitStatus{Code: int32(f.code), Reason: f.reason, Message: f.message}) //nolint:gosec // one of the codes above
}

// prepare does everything up to the start and returns the options of the virtual machine.
func (s *supervisor) prepare(ctx context.Context) ([]string, error) {
	if err := s.readStatic(); err != nil {
		return nil, err
	}
	var err error
	if s.java, err = findJava(ctx, s.config.Env, s.static.Process.Version); err != nil {
		return nil, err
	}
	options, err := s.options()
	if err != nil {
		return nil, err
	}
	if err := s.lockVolumes(ctx); err != nil {
		return nil, err
	}
	if err := checkPorts(ctx, s.listeners); err != nil {
		return nil, err
	}
	for _, wait := range []func(context.Context) error{s.awaitCertificates, s.storage, s.awaitControllers, s.settle} {
		if err := wait(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.render(); err != nil {
		return nil, err
	}
	return options, checkPorts(ctx, s.listeners) // the waits may have been long
}

func (s *supervisor) readStatic() error {
	if err := readJSON(s.staticFile(), &s.static); err != nil {
		return fail(ExitFiles, ReasonBadFiles, "%v: castellan node runs where the agent, or the pod's template, has put its files", err)
	}
	s.report.set(func(r *layout.Report) {
		r.ProcessHash, r.Version = layout.ProcessHash(s.static.Process), s.static.Process.Version
	})
	// Rendering says what is wrong with the node before anything is asked or waited for.
	if _, err := layout.Properties(s.static, layout.Live{}, s.facts()); err != nil {
		return fail(ExitConfig, ReasonBadConfig, "%v", err)
	}
	var err error
	if s.listeners, err = layout.Listeners(s.static); err != nil {
		return fail(ExitConfig, ReasonBadConfig, "%v", err)
	}
	return nil
}

func (s *supervisor) facts() layout.Facts {
	return layout.Facts{
		TLSDir: s.tlsDir(), SSLEngine: sslengine.Class, Advertised: s.landed.advertised,
		PrincipalBuilder: sslengine.PrincipalBuilder, PlainUsers: sslengine.PlainUsers, OAuth: sslengine.OAuth, OAuthLogin: sslengine.OAuthLogin,
	}
}

// options also writes what the virtual machine and the format tool find through them.
func (s *supervisor) options() ([]string, error) {
	classPath, err := s.classPath()
	if err != nil {
		return nil, err
	}
	jvmOptions, logging := layout.JVMOptions, layout.Logging(s.static.Process.Version)
	if s.config.Pod != nil {
		jvmOptions, logging = layout.PodJVMOptions, layout.PodLogging(s.static.Process.Version)
	}
	options, err := jvmOptions(s.static)
	if err != nil {
		return nil, fail(ExitConfig, ReasonBadConfig, "%v", err)
	}
	for _, dir := range []string{s.path(layout.LogDir), s.path("kafka")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make a folder of the process: %w", err)
		}
	}
	if err := replaceFile(s.path(engineJar), sslengine.Jar()); err != nil {
		return nil, err
	}
	if s.config.Pod != nil {
		if err := replaceFile(s.path(layout.SecurityFile), []byte(layout.PodSecurity())); err != nil {
			return nil, err
		}
	}
	if err := replaceFile(s.path(logging.Name), []byte(logging.Content)); err != nil {
		return nil, err
	}
	return append(options, logging.Option, "-cp", classPath), nil
}

// lockVolumes keeps two processes from formatting or running on one disk.
func (s *supervisor) lockVolumes(ctx context.Context) error {
	for _, v := range s.static.Volumes {
		if err := os.MkdirAll(v.Path, 0o700); err != nil {
			continue // inspected, and named, later
		}
		file, err := lockVolume(ctx, v)
		if errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return err
		}
		s.held = append(s.held, file)
	}
	return nil
}

// awaitCertificates waits until Kafka could start with the certificates: without them its
// own check at the start fails.
func (s *supervisor) awaitCertificates(ctx context.Context) error {
	return s.await(ctx, func() *waiting {
		own, err := s.readIdentity()
		if err == nil {
			err = own.checkIdentity(s.static.Address, s.config.now())
		}
		if err == nil {
			err = s.checkListeners()
		}
		if err != nil {
			return &waiting{ReasonWaitingForCertificates, err.Error()}
		}
		return nil
	})
}

func (s *supervisor) awaitControllers(ctx context.Context) error {
	return s.await(ctx, func() *waiting {
		live, err := s.live()
		switch {
		case err != nil:
			return &waiting{ReasonWaitingForControllers, err.Error()}
		case len(live.BootstrapControllers) == 0:
			return &waiting{ReasonWaitingForControllers, "no controller's address is known yet"}
		default:
			return nil
		}
	})
}

// await looks until nothing is waited for.
func (s *supervisor) await(ctx context.Context, look func() *waiting) error {
	for {
		wait := look()
		if wait == nil {
			return nil
		}
		s.report.set(func(r *layout.Report) {
			r.State, r.Reason, r.Message = api.NodePending, wait.reason, "waiting: "+wait.message
		})
		if !pause(ctx, waitPoll) {
			return ctx.Err()
		}
	}
}

func (s *supervisor) render() error {
	live, err := s.live()
	if err != nil {
		return fail(ExitFiles, ReasonBadFiles, "%v", err)
	}
	if s.config.Pod != nil {
		live.Rack = s.landed.rack // that of the machine, which nobody knew before
	}
	properties, err := layout.Properties(s.static, live, s.facts())
	if err != nil {
		return fail(ExitConfig, ReasonBadConfig, "%v", err)
	}
	s.report.set(func(r *layout.Report) { r.Rack = live.Rack })
	return s.writeProperties(s.path(layout.PropertiesFile), properties)
}

func (s *supervisor) writeProperties(file string, properties map[string]string) error {
	return replaceFile(file, kconf.Write(properties))
}

// runTool runs Kafka's storage tool.
func (s *supervisor) runTool(ctx context.Context, args []string) error {
	classPath, err := s.classPath()
	if err != nil {
		return err
	}
	var out lockedBuffer
	java := []string{"-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", classPath, "kafka.tools.StorageTool"}
	tool, err := start(command{path: s.java, args: append(java, args...), env: javaEnv(s.config.Env), dir: s.dir, output: &out, held: s.held})
	if err != nil {
		return fail(ExitStorage, ReasonFormatFailed, "%v", err)
	}
	timer := time.NewTimer(toolTimeout)
	defer timer.Stop()
	select {
	case <-tool.done:
	case <-ctx.Done():
	case <-timer.C:
	}
	select {
	case <-tool.done:
	default:
		err := tool.signal(syscall.SIGKILL)
		<-tool.done
		return fail(ExitStorage, ReasonFormatFailed, "Kafka's format tool was ended (%v, %v) after at most %s: %s; nothing was put in place", context.Cause(ctx), err, toolTimeout, clip(out.String(), maxTail))
	}
	if code := tool.code(); code != 0 {
		return fail(ExitStorage, ReasonFormatFailed, "Kafka's format tool failed with code %d: %s; nothing was put in place", code, clip(strings.TrimSpace(out.String()), maxTail))
	}
	return nil
}

// supervise runs Kafka to its end.
func (s *supervisor) supervise(ctx context.Context, options []string) int {
	console, err := openConsole(s.path(layout.LogDir + "/" + layout.ConsoleLog))
	if err != nil {
		return s.fail(ctx, err)
	}
	defer console.Close() //nolint:errcheck // it is written through
	server, printed := readLog(s.path(layout.LogDir+"/"+layout.ServerLog)), readLog(console.path)
	run := command{
		path: s.java,
		args: append(options, "kafka.Kafka", s.path(layout.PropertiesFile)),
		env:  javaEnv(s.config.Env), dir: s.dir, output: console, held: s.held,
	}
	if s.config.Pod != nil {
		run.stdout, run.output = s.config.Pod.Stdout, tee{console, s.config.Pod.Stdout}
	}
	jvm, err := start(run)
	if err != nil {
		return s.fail(ctx, err)
	}
	s.log.InfoContext(ctx, "Kafka runs", slog.Int("pid", jvm.process.Pid))
	s.report.set(func(r *layout.Report) {
		started := metav1.NewTime(jvm.started)
		r.State, r.Reason, r.Message = api.NodeStarting, ReasonStarting, "Kafka is starting"
		r.PID, r.StartedAt = int32(jvm.process.Pid), &started //nolint:gosec // a process id fits
	})
	watching, stopWatching := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		newWatcher(s, server).run(watching)
	}()
	end := s.untilEnd(ctx, jvm)
	stopWatching()
	<-watched
	end.server, end.console = server.lines(), printed.lines()
	status := describe(end)
	s.log.InfoContext(ctx, "Kafka ended", slog.Int("code", end.code), slog.String("reason", status.Reason), slog.String("message", status.Message))
	s.report.set(func(r *layout.Report) {
		r.State, r.Ready, r.InSync, r.Reason, r.Message, r.PID = api.NodeFailed, false, false, status.Reason, status.Message, 0
		if end.asked {
			r.State = api.NodeStopped
		}
	})
	return s.leave(status)
}

// untilEnd waits for Kafka's end; when asked it stops Kafka, within the grace.
func (s *supervisor) untilEnd(ctx context.Context, jvm *child) ending {
	end := ending{}
	select {
	case <-jvm.done:
	case <-ctx.Done():
		end.asked = true
		s.asked.Store(true)
		end.killed = s.stop(ctx, jvm)
	}
	end.code = jvm.code()
	return end
}
