package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"k8s.io/client-go/rest"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Config is what an agent is started with.
type Config struct {
	// Host is the name of the agent's own Host object, Namespace the host's own namespace.
	Host, Namespace string
	// Dir is the agent's own folder; only one agent can use it at a time.
	Dir string
	// DataRoots are the absolute paths below which directories of processes may lie. They
	// must exist: a missing one may be a disk that is not mounted.
	DataRoots []string
	// Users that programs may run as, beside the agent's own; only root can use them.
	Users []string
	// Executable is what programs call castellan; empty is the running one.
	Executable string
	// Version of the agent, for the Host's status.
	Version string
	// API is the way to the API server; it need not be there.
	API *rest.Config
	// Archives gives what programs run from.
	Archives Archives
	Log      *slog.Logger
}

func (c Config) validate() error {
	var errs []error
	if c.Host == "" || c.Namespace == "" {
		errs = append(errs, errors.New("host and namespace must be set"))
	}
	if c.API == nil || c.Archives == nil || c.Log == nil {
		errs = append(errs, errors.New("API, Archives and Log must be set"))
	}
	if !filepath.IsAbs(c.Dir) {
		errs = append(errs, fmt.Errorf("dir %q must be absolute", c.Dir))
	}
	for _, root := range c.DataRoots {
		if !filepath.IsAbs(root) || filepath.Clean(root) != root || root == "/" {
			errs = append(errs, fmt.Errorf("data root %q must be a plain absolute path other than /", root))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("agent of host %s: %w", c.Host, errors.Join(errs...))
	}
	return nil
}

// Folder is where the agent with folder dir keeps a process: its output is in output.log,
// its working directory is "run".
func Folder(dir, process string) string { return filepath.Join(dir, "processes", process) }

// Agent runs the processes of one host.
type Agent struct {
	config Config
	system system
}

// New prepares an agent; nothing happens before Run.
func New(c Config) (*Agent, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	system, err := newLinux()
	if err != nil {
		return nil, fmt.Errorf("agent of host %s: %w", c.Host, err)
	}
	return &Agent{config: c, system: system}, nil
}

// Run keeps the host's processes as the API asks, and as it last asked while the API is
// away, until ctx ends. Then it returns nil and leaves every process running.
func (a *Agent) Run(ctx context.Context) error {
	if err := os.MkdirAll(a.processes(), 0o711); err != nil { //nolint:gosec // other users pass through, the folders below are closed
		return fmt.Errorf("make the agent's folder: %w", err)
	}
	lock, err := lockFolder(a.config.Dir)
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // closing gives the lock back, whatever it says
	executable, err := a.executable()
	if err != nil {
		return err
	}
	upstream, err := newUpstream(a.config)
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		a.config.Log.InfoContext(ctx, "programs without a user run as root: give the Host a user for unprivileged ones")
	}
	crew := &crew{
		site: site{
			dataRoots: a.config.DataRoots, users: a.config.Users, executable: executable,
			system: a.system, archives: a.config.Archives,
			publish: upstream.publish, removed: upstream.removed,
		},
		dir: a.config.Dir, log: a.config.Log, runners: make(map[string]*runner),
	}
	ctx, cancel := context.WithCancel(ctx)
	defer crew.wait()
	defer cancel()
	if err := crew.resume(ctx, a.processes()); err != nil {
		return err
	}
	return upstream.run(ctx, crew)
}

func (a *Agent) processes() string { return filepath.Join(a.config.Dir, "processes") }

func (a *Agent) executable() (string, error) {
	source := a.config.Executable
	if source == "" {
		source = "/proc/self/exe" // also when the file was replaced meanwhile
	}
	return installExecutable(source, filepath.Join(a.config.Dir, "bin"))
}

// lockFolder keeps a second agent out: two would start everything twice.
func lockFolder(dir string) (*os.File, error) {
	path := filepath.Join(dir, "agent.lock")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // a path of the agent itself
	if err != nil {
		return nil, fmt.Errorf("open the agent's lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w: another agent uses this folder; end it first", path, err), file.Close())
	}
	return file, nil
}

// crew is the runners of an agent, by process.
type crew struct {
	site
	dir string
	log *slog.Logger

	running sync.WaitGroup
	mu      sync.Mutex
	runners map[string]*runner
}

// resume goes on with what lies on disk, before anybody asks the API server.
func (c *crew) resume(ctx context.Context, processes string) error {
	entries, err := os.ReadDir(processes)
	if err != nil {
		return fmt.Errorf("look for processes of an earlier run: %w", err)
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		if err := c.start(ctx, entry.Name(), nil); err != nil {
			// One bad folder must not keep the others down.
			c.log.ErrorContext(ctx, "could not resume a process", slog.String("process", entry.Name()), slog.Any("error", err))
		}
	}
	return nil
}

// give hands an order to the runner of its process, a new one if need be.
func (c *crew) give(ctx context.Context, o order) error {
	c.mu.Lock()
	r := c.runners[o.Name]
	if r != nil {
		r.Order(o)
	}
	c.mu.Unlock()
	if r != nil {
		return nil
	}
	return c.start(ctx, o.Name, &o)
}

func (c *crew) start(ctx context.Context, name string, o *order) error {
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/') {
		return fmt.Errorf("%q cannot be the name of a process", name)
	}
	r, err := newRunner(c.site, folder{path: Folder(c.dir, name)}, c.log.With(slog.String("process", name)))
	if err != nil {
		return fmt.Errorf("process %s: %w", name, err)
	}
	if o != nil {
		r.Order(*o)
	}
	c.mu.Lock()
	c.runners[name] = r
	c.mu.Unlock()
	c.running.Go(func() {
		if r.Run(ctx) {
			c.dismiss(ctx, name, r)
		}
	})
	return nil
}

// dismiss forgets a runner whose process is deleted. An order that came meanwhile is for a
// process of the same name that was asked for anew.
func (c *crew) dismiss(ctx context.Context, name string, r *runner) {
	c.mu.Lock()
	delete(c.runners, name)
	next := r.unread()
	c.mu.Unlock()
	if next == nil || (next.Deleting && next.UID == r.order.UID) {
		return
	}
	if err := c.start(ctx, name, next); err != nil {
		c.log.ErrorContext(ctx, "could not start a process anew", slog.String("process", name), slog.Any("error", err))
	}
}

// orphan tells of a process whose object is gone without its finalizer: a store that lost
// its objects must not end what runs.
func (c *crew) orphan(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.runners[name]; r != nil && !r.leaving.Load() {
		c.log.Warn("the HostProcess is gone, its process goes on: create it again to adopt or delete it", slog.String("process", name))
	}
}

func (c *crew) wait() { c.running.Wait() }

// secretNames that an order refers to.
func secretNames(spec api.HostProcessSpec) []string {
	names := make([]string, 0, len(spec.Secrets))
	for _, s := range spec.Secrets {
		names = append(names, s.SecretName)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
