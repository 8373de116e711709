package cluster

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"castellan.dev/castellan/test/kube/internal/machine"
	"castellan.dev/castellan/test/kube/internal/netns"
)

const (
	ext = "ext"

	startTimeout = 30 * time.Second
	stopTimeout  = 60 * time.Second
)

//go:embed addons.yaml
var addons string

// Config is what a cluster is started with.
type Config struct {
	// Name tells clusters on one machine apart where they share something with the host: control groups.
	Name  string
	Nodes int
	// Keep continues with the state of the last run; else all begins anew but for the images.
	Keep bool
	// Images are archives which every node has from the start.
	Images []string
	// LoadBalancer gives Services of that type an address.
	LoadBalancer bool
	Timeout      time.Duration
}

// Check says what is wrong with a configuration.
func (c Config) Check() error {
	if !regexp.MustCompile(`^[a-z][a-z0-9]{0,9}$`).MatchString(c.Name) {
		return fmt.Errorf("--name %q: use a letter and up to nine letters and digits, all lower case", c.Name)
	}
	if c.Nodes < 1 || c.Nodes > maxNodes {
		return fmt.Errorf("--nodes %d: choose 1 to %d", c.Nodes, maxNodes)
	}
	return nil
}

// Cluster is one that this process runs.
type Cluster struct {
	dir     Dir
	config  Config
	log     *slog.Logger
	say     func(string, ...any)
	starter *machine.Starter
	client  kubernetes.Interface

	balance atomic.Bool
	changed chan struct{} // for the load balancer: look again

	// mu is held while machines change.
	mu       sync.Mutex
	machines map[string]*machine.Machine
}

// New prepares to run a cluster. say takes lines for the user while it starts.
func New(d Dir, config Config, log *slog.Logger, say func(string, ...any)) *Cluster {
	c := &Cluster{
		dir: d, config: config, log: log, say: say, starter: machine.NewStarter(),
		machines: map[string]*machine.Machine{}, changed: make(chan struct{}, 1),
	}
	c.balance.Store(config.LoadBalancer)
	return c
}

// Start brings everything up and returns when nodes, DNS and volumes are ready. On an error, Stop is still needed.
func (c *Cluster) Start(ctx context.Context) error {
	begun := time.Now()
	limited, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	if err := c.prepare(limited); err != nil {
		return err
	}
	if err := c.startControlPlane(); err != nil {
		return err
	}
	forwarder, err := newForwarder(ctx, c.dir, func() int { return c.pid(controlPlane) })
	if err != nil {
		return err
	}
	go forwarder.run(ctx, c.log)
	if err := c.connectClient(forwarder.url()); err != nil {
		return err
	}
	if err := c.startMachines(limited); err != nil {
		return err
	}
	if err := c.writeStatus(); err != nil {
		return err
	}
	if err := c.awaitAll(limited); err != nil {
		return err
	}
	go c.runLoadBalancer(ctx)
	c.say("up after %s", time.Since(begun).Round(100*time.Millisecond))
	return nil
}

func (c *Cluster) prepare(ctx context.Context) error {
	d := c.dir
	if err := cleanUp(ctx, d, c.config.Name); err != nil {
		return err
	}
	if !c.config.Keep {
		if err := remove(d.path(controlPlane), d.path("nodes"), d.pki(), d.path("logs")); err != nil {
			return err
		}
	}
	if err := makeDirs(d.path("bin"), d.path(controlPlane), d.path("nodes"), d.logs(controlPlane), d.logs(ext)); err != nil {
		return err
	}
	if err := installBinaries(d); err != nil {
		return err
	}
	if _, err := os.Stat(d.path("pki", "sa.key")); err != nil {
		if err := makePKI(d, places(maxNodes)); err != nil {
			return err
		}
	}
	own, err := ownImages(d)
	if err != nil {
		return err
	}
	if err := loadGolden(ctx, c.starter, d, append(own, c.config.Images...), c.say); err != nil {
		return err
	}
	for _, p := range places(c.config.Nodes) {
		if err := writeNode(d, c.config.Name, p); err != nil {
			return err
		}
		if _, err := os.Stat(d.path("nodes", p.name(), "containerd")); err == nil {
			continue // kept
		}
		if err := cloneGolden(ctx, d, p.name()); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) startControlPlane() error {
	c.say("starting the control plane")
	m, err := c.starter.Start(c.dir.path("bin", "testkube-addons"), controlPlaneSpec(c.dir), c.dir.path(controlPlane, "machine.json"), c.dir.log(controlPlane, "machine"))
	if err != nil {
		return err
	}
	c.set(controlPlane, m)
	if err := netns.Bridge(m.Pid, hostAddress(netip.MustParseAddr(apiIP))); err != nil {
		return err
	}
	return m.Release()
}

func (c *Cluster) startMachines(ctx context.Context) error {
	outside, err := c.starter.StartNetwork(c.dir.log(ext, "machine"))
	if err != nil {
		return err
	}
	c.set(ext, outside)
	if err := netns.Connect(c.pid(controlPlane), outside.Pid, ext, hostAddress(netip.MustParseAddr(extIP)), netip.MustParseAddr(apiIP)); err != nil {
		return err
	}
	c.say("starting %d nodes", c.config.Nodes)
	for _, p := range places(c.config.Nodes) {
		if err := c.startNode(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// startNode turns a node on.
func (c *Cluster) startNode(ctx context.Context, p place) error {
	group := cgroupOf(c.config.Name, p.name())
	if err := machine.RemoveCgroup(ctx, group); err != nil { // what a power cut left
		return err
	}
	if err := machine.MakeCgroup(group); err != nil {
		return err
	}
	m, err := c.starter.Start(c.dir.path("bin", "testkube-addons"), nodeSpec(c.dir, p), c.dir.path("nodes", p.name(), "machine.json"), c.dir.log(p.name(), "machine"))
	if err != nil {
		return err
	}
	c.set(p.name(), m)
	hub := c.pid(controlPlane)
	if err := netns.Connect(hub, m.Pid, p.name(), hostAddress(p.ip()), netip.MustParseAddr(apiIP)); err != nil {
		return err
	}
	var others []netns.Route
	for _, o := range places(c.config.Nodes) {
		if o != p {
			others = append(others, netns.Route{To: o.pods(), Via: []netip.Addr{o.ip()}})
		}
	}
	if err := netns.SetRoutes(m.Pid, others...); err != nil {
		return err
	}
	if err := netns.SetRoutes(hub, netns.Route{To: p.pods(), Via: []netip.Addr{p.ip()}}); err != nil {
		return err
	}
	return m.Release()
}

// connectClient writes the kubeconfigs and makes the client of this process.
func (c *Cluster) connectClient(url string) error {
	if err := writeKubeconfig(c.dir, "admin", url, c.dir.Kubeconfig()); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.dir.Kubeconfig())
	if err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	return nil
}

func (c *Cluster) applyAddons(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, c.dir.path("bin", "testkube"), "kubectl", "--kubeconfig", c.dir.Kubeconfig(), "apply", "--server-side", "--force-conflicts", "-f", "-") //nolint:gosec // our own executable
	cmd.Stdin = strings.NewReader(addons)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install DNS and storage classes: %w: %s", err, out)
	}
	return nil
}

func (c *Cluster) set(name string, m *machine.Machine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.machines[name] = m
}

// pid is that of a machine's first process, or 0 if it is off.
func (c *Cluster) pid(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.machines[name]
	if !ok {
		return 0
	}
	select {
	case <-m.Done():
		return 0
	default:
		return m.Pid
	}
}

func (c *Cluster) writeStatus() error {
	s := Status{
		Name: c.config.Name, Kubeconfig: c.dir.Kubeconfig(), KubeconfigInside: c.dir.path("pki", "admin.conf"), LoadBalancerCIDR: loadBalancerCIDR,
		Ext: Process{c.pid(ext), extIP}, ControlPlane: Process{c.pid(controlPlane), apiIP},
	}
	for _, p := range places(c.config.Nodes) {
		s.Nodes = append(s.Nodes, NodeStatus{Name: p.name(), IP: p.ip().String(), Zone: p.zone(), Pid: c.pid(p.name())})
	}
	return writeJSON(c.dir.StatusFile(), s)
}

// Stop turns all machines off at once and removes what is on the host.
func (c *Cluster) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, m := range c.machines {
		wg.Go(func() {
			err := m.PowerOff(ctx)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	wg.Wait()
	return errors.Join(append(errs, cleanUp(ctx, c.dir, c.config.Name))...)
}

// cleanUp removes what a run leaves on the host, also one that was killed. Mounts, links and processes end with the machines.
func cleanUp(ctx context.Context, d Dir, name string) error {
	groups, err := machine.Cgroups(cgroupOf(name, "*"))
	if err != nil {
		return err
	}
	for _, name := range groups {
		if err := machine.RemoveCgroup(ctx, name); err != nil {
			return err
		}
	}
	return remove(d.StatusFile(), d.Kubeconfig(), d.socket())
}
