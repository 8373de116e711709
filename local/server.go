package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ServerConfig is what the server needs to know.
type ServerConfig struct {
	Dir Dir
	Programs
	// PackageStore is the folder of the package store.
	PackageStore string
	Version      string
	Log          *slog.Logger
}

const (
	readyPoll    = 100 * time.Millisecond
	installRetry = 2 * time.Second
)

// Serve keeps control plane, operator and agent of a folder running until ctx ends, and
// then stops them in the reverse order. Kafka's nodes are neither started nor stopped by
// it: they belong to the agent and go on.
//
// Children that an earlier server left behind are ended first. That costs a moment of
// control, not of Kafka, and makes sure that every one is of this version and has its
// output in the log.
func Serve(ctx context.Context, c ServerConfig) error {
	l, err := c.Dir.lock()
	if errors.Is(err, errLocked) {
		return fmt.Errorf("a server for %s runs already; `castellan status --dir %[1]s` shows it", c.Dir)
	}
	if err != nil {
		return err
	}
	defer func() { _ = l.release() }() // the process ends with it
	s, err := newServer(c)
	if err != nil {
		return err
	}
	if err := s.endLeftovers(ctx); err != nil {
		return err
	}
	if err := c.Dir.linkKubeconfig(); err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir.DataRoot(), 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	s.run(ctx)
	return s.board.update(func(st *State) { st.Phase, st.Message = PhaseStopped, "" })
}

type server struct {
	ServerConfig
	board *board
}

func newServer(c ServerConfig) (*server, error) {
	self, err := identify(os.Getpid())
	if err != nil {
		return nil, err
	}
	program, err := fingerprint(c.Executable, c.ControlPlane)
	if err != nil {
		return nil, err
	}
	s := &server{ServerConfig: c, board: &board{dir: c.Dir}}
	return s, s.board.update(func(st *State) {
		*st = State{Server: self, Program: program, Version: c.Version, Phase: PhaseStarting, Message: "starting the control plane", Children: map[string]ChildState{}}
	})
}

// fingerprint tells builds of the programs apart, so that `up` of a new build replaces an
// old server.
func fingerprint(programs ...string) (string, error) {
	h := sha256.New()
	for _, p := range programs {
		real, err := filepath.EvalSymlinks(p)
		if err != nil {
			return "", fmt.Errorf("find program %s: %w", p, err)
		}
		info, err := os.Stat(real)
		if err != nil {
			return "", fmt.Errorf("look at program %s: %w", p, err)
		}
		fmt.Fprintf(h, "%s %d %d\n", real, info.Size(), info.ModTime().UnixNano())
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

func (s *server) endLeftovers(ctx context.Context) error {
	for _, name := range []string{Agent, Operator, ControlPlane} {
		var id identity
		if !readJSON(s.Dir.record(name), &id) || !id.alive() {
			continue
		}
		s.Log.InfoContext(ctx, "ending a child that an earlier server left behind", slog.String("child", name), slog.Int("pid", id.PID))
		if err := id.end(ctx, childGrace); err != nil {
			return fmt.Errorf("end the %s that an earlier server left behind: %w", name, err)
		}
	}
	return nil
}

// run starts the children one after the other and returns when all of them have stopped.
func (s *server) run(ctx context.Context) {
	// Each child has a context of its own, so that they stop in order.
	running := &stack{}
	defer running.stopAll(func(name string) { s.say(PhaseStopping, "stopping the "+name) })

	running.start(ctx, ControlPlane, s.keeper(s.controlPlane()).run)
	admin, ok := s.awaitAPI(ctx)
	if !ok {
		return
	}
	s.say(PhaseStarting, "installing types and rights")
	if !s.prepare(ctx, admin) {
		return
	}
	running.start(ctx, Operator, s.keeper(s.operator()).run)
	running.start(ctx, Agent, s.keeper(s.agent()).run)
	s.say(PhaseReady, "")
	s.Log.InfoContext(ctx, "ready", slog.String("api", admin.Host))

	var upkeep sync.WaitGroup
	upkeep.Go(func() { s.renewTokens(ctx) })
	upkeep.Go(func() {
		boundLogs(ctx, s.Dir, []string{"server", ControlPlane, Operator, Agent}, func(err error) {
			s.Log.ErrorContext(ctx, "log not bounded", slog.String("error", err.Error()))
		})
	})
	<-ctx.Done()
	upkeep.Wait()
}

func (s *server) controlPlane() child {
	return child{name: ControlPlane, argv: []string{s.ControlPlane, "serve", "--data", s.Dir.ControlPlaneDir()}, env: os.Environ()}
}

func (s *server) operator() child {
	return child{name: Operator, env: os.Environ(), argv: []string{
		s.Executable, "operator", "--kubeconfig", s.Dir.OperatorKubeconfig(), "--packages", s.PackageStore,
		"--identity", HostName, // the server never runs two
	}}
}

func (s *server) agent() child {
	return child{name: Agent, env: os.Environ(), argv: []string{
		s.Executable, "agent", "--kubeconfig", s.Dir.AgentKubeconfig(), "--host", HostName,
		"--state", s.Dir.AgentDir(), "--data-root", s.Dir.DataRoot(), "--packages", s.PackageStore,
	}}
}

func (s *server) keeper(c child) keeper {
	return keeper{child: c, dir: s.Dir, executable: s.Executable, board: s.board, log: s.Log}
}

// awaitAPI waits until the control plane answers; false when ctx has ended first.
func (s *server) awaitAPI(ctx context.Context) (*rest.Config, bool) {
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		if config := s.tryAPI(ctx); config != nil {
			return config, true
		}
		select {
		case <-ctx.Done():
			return nil, false
		case <-ticker.C:
		}
	}
}

func (s *server) tryAPI(ctx context.Context) *rest.Config {
	config, err := restConfig(s.Dir.adminKubeconfig())
	if err != nil {
		return nil // not written yet
	}
	config.Timeout = 5 * time.Second
	if accepts(ctx, config) != nil {
		return nil
	}
	config.Timeout = 0
	return config
}

// prepare installs what operator and agent need and tries until it has succeeded; false
// when ctx has ended first.
func (s *server) prepare(ctx context.Context, admin *rest.Config) bool {
	for {
		err := s.prepareOnce(ctx, admin)
		if err == nil {
			return true
		}
		if ctx.Err() == nil {
			s.Log.ErrorContext(ctx, "not installed", slog.String("error", err.Error()))
			s.say(PhaseStarting, "installing types and rights failed and is tried again: "+err.Error())
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(installRetry):
		}
	}
}

func (s *server) prepareOnce(ctx context.Context, admin *rest.Config) error {
	c, err := newClient(admin)
	if err != nil {
		return err
	}
	if err := install(ctx, c); err != nil {
		return err
	}
	if err := s.installPackages(ctx, c); err != nil {
		return err
	}
	return ensureCredentials(ctx, c, admin, s.Dir, time.Now())
}

// installPackages adds the built-in Packages. Sources that a user has changed stay as they are.
func (s *server) installPackages(ctx context.Context, c client.Client) error {
	builtin, err := builtinPackages(s.PackageStore)
	if err != nil {
		return err
	}
	for _, p := range builtin {
		if err := apply(ctx, c, p, serverManager, false); err != nil && !apierrors.IsConflict(err) {
			return err
		}
	}
	return nil
}

func (s *server) renewTokens(ctx context.Context) {
	ticker := time.NewTicker(tokenCheck)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		// Read again: the administrator's own certificate is renewed as well.
		admin, err := restConfig(s.Dir.adminKubeconfig())
		if err == nil {
			err = s.prepareOnce(ctx, admin)
		}
		if err != nil && ctx.Err() == nil {
			s.Log.ErrorContext(ctx, "tokens not renewed", slog.String("error", err.Error()))
		}
	}
}

func (s *server) say(phase Phase, message string) {
	err := s.board.update(func(st *State) { st.Phase, st.Message = phase, message })
	if err != nil {
		s.Log.Error("state not written", slog.String("error", err.Error()))
	}
}

// stack holds what runs, so that it stops in the reverse order.
type stack struct {
	names []string
	stops []func()
}

// start gives each its own end: that of parent must not reach all of them at once.
func (s *stack) start(parent context.Context, name string, run func(context.Context)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	s.names = append(s.names, name)
	s.stops = append(s.stops, func() { cancel(); <-done })
}

func (s *stack) stopAll(tell func(name string)) {
	for i, stop := range slices.Backward(s.stops) {
		tell(s.names[i])
		stop()
	}
}
