// Package stand puts up a whole Castellan on this machine for one test: the real binaries of bin/, a folder and a range
// of ports of its own, real Kafka. It looks at facts (the API, the supervisors' sockets, processes, Kafka) and kills
// what a story wants killed. It never ends a process that it did not start, and it decides nothing that `castellan up`
// decides.
package stand

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/local"
)

// EnvBin names the folder of the binaries; without it bin/ of the module is taken.
const EnvBin = "CASTELLAN_BIN"

// Ports of one stand, and where stands look for them: below the ephemeral ports, above what people use.
const (
	portsOfOne = 60
	portsFrom  = 20000
	portsTo    = 30000
)

// Bounds of what a test waits for, wide enough for a busy machine of two cores.
const (
	upTimeout    = 5 * time.Minute
	downTimeout  = 3 * time.Minute
	ReadyTimeout = 4 * time.Minute
)

// Options choose what a stand brings up.
type Options struct {
	// Cluster is what `up -f` is given: a KafkaCluster, and what it needs.
	Cluster string
	// Nodes and Version of the cluster that `up` makes by itself, when Cluster is empty.
	Nodes   int
	Version string
	// Namespace and Name of the KafkaCluster that the stand's methods speak of: default/kafka if empty.
	Namespace, Name string
	// Ports is the range to take; a free one is found if zero.
	Ports local.PortRange
	// Down only prepares the folder; the test calls Up itself.
	Down bool
	// DataSize, if set, puts the data on a file system of its own of so many bytes, see [Stand.DataSeen]. It goes with
	// the processes that see it: not for a test that takes the cluster down and up again.
	DataSize int64
	// Racks gives the stand a host in each of three racks, for a Cluster of [OnRacks].
	Racks bool
	// VolumeSize, if set, puts the data of every node in Racks on a file system of its own of so many bytes: on one that
	// all share, each looks as full as the others.
	VolumeSize int64
}

// Stand is a Castellan on this machine.
type Stand struct {
	tb      testing.TB
	bin     string
	dir     local.Dir
	ports   local.PortRange
	cluster types.NamespacedName
	options Options
	agents  []*exec.Cmd // of racks
}

// New brings a Castellan up and waits until its cluster is Ready. When the test ends everything is stopped and removed;
// when it has failed its logs are shown first.
func New(tb testing.TB, o Options) *Stand {
	tb.Helper()
	endLeftovers(tb)
	s := &Stand{tb: tb, bin: findBin(tb), dir: makeFolder(tb), ports: o.Ports, options: o}
	s.cluster = types.NamespacedName{Namespace: or(o.Namespace, "default"), Name: or(o.Name, "kafka")}
	if s.ports == (local.PortRange{}) {
		s.ports = freePorts(tb)
	}
	tb.Cleanup(s.end)
	switch {
	case o.Racks:
		s.upOnRacks()
	case !o.Down:
		s.Up()
	}
	return s
}

// For is the same stand for a subtest, which then is what fails.
func (s *Stand) For(tb testing.TB) *Stand {
	tb.Helper()
	of := *s
	of.tb = tb
	return &of
}

// Dir is the folder of the stand's Castellan.
func (s *Stand) Dir() local.Dir { return s.dir }

// Ports is the range that every port is taken from.
func (s *Stand) Ports() local.PortRange { return s.ports }

// Key names the stand's KafkaCluster.
func (s *Stand) Key() types.NamespacedName { return s.cluster }

// KeyOf names an object beside the stand's KafkaCluster.
func (s *Stand) KeyOf(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: s.cluster.Namespace, Name: name}
}

// Up runs `castellan up --detach` as a user would, a first time or again, and returns what it printed.
func (s *Stand) Up() string {
	s.tb.Helper()
	out := s.TryUp()
	if out.Code != 0 {
		s.tb.Fatalf("castellan up: %s", out)
	}
	return out.Stdout
}

// TryUp is Up for a test that wants to see it fail.
func (s *Stand) TryUp() Output {
	s.tb.Helper()
	args := []string{"up", "--detach", "--timeout", upTimeout.String(), "--ports", fmt.Sprintf("%d-%d", s.ports.From, s.ports.To)}
	_, err := os.Stat(s.dir.ControlPlaneDir()) // an `up` that was refused before it began has made less
	first := errors.Is(err, fs.ErrNotExist)
	switch {
	case s.options.Cluster != "" && first:
		return s.Run(upTimeout, s.options.Cluster, append(args, "-f", "-")...)
	case first && s.options.Nodes > 0:
		args = append(args, "--nodes", strconv.Itoa(s.options.Nodes))
	}
	if first && s.options.Version != "" {
		args = append(args, "--kafka-version", s.options.Version)
	}
	return s.Run(upTimeout+time.Minute, "", args...)
}

// Client speaks to the stand's API server as administrator.
func (s *Stand) Client() client.Client { //nolint:ireturn // client-go gives only the interface
	s.tb.Helper()
	c, err := s.connect()
	if err != nil {
		s.tb.Fatal(err)
	}
	return c
}

func (s *Stand) connect() (client.Client, error) { //nolint:ireturn // client-go gives only the interface
	config, err := clientcmd.BuildConfigFromFlags("", s.dir.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read the stand's kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 100, 200
	config.Timeout = 10 * time.Second
	known := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(known), api.AddToScheme(known)); err != nil {
		return nil, fmt.Errorf("register API types: %w", err)
	}
	c, err := client.New(config, client.Options{Scheme: known})
	if err != nil {
		return nil, fmt.Errorf("connect to the stand's API server: %w", err)
	}
	return c, nil
}

// end stops and removes everything.
func (s *Stand) end() {
	if s.tb.Failed() {
		s.dump()
	}
	ours := s.processes()
	out := Output{}
	if s.dir.Exists() {
		out = s.run(context.Background(), downTimeout, "", "down", "--timeout", downTimeout.String())
	}
	if out.Code != 0 {
		s.tb.Errorf("castellan down at the end: %s", out)
	}
	s.stopAgents()
	for _, p := range append(ours, s.processes()...) {
		if !p.alive() {
			continue
		}
		s.tb.Errorf("%s still runs after castellan down: it is killed", p)
		if err := p.kill(); err != nil {
			s.tb.Error(err)
		}
	}
	if os.Getenv("CASTELLAN_KEEP") != "" {
		if err := os.Remove(filepath.Join(string(s.dir), ownerFile)); err != nil {
			s.tb.Error(err) // the next stand would take it for a leftover
		}
		s.tb.Logf("kept %s", s.dir)
		return
	}
	if err := os.RemoveAll(string(s.dir)); err != nil {
		s.tb.Errorf("remove the stand's folder: %v", err)
	}
}

// findBin finds the binaries, which a test never builds itself.
func findBin(tb testing.TB) string {
	tb.Helper()
	bin := os.Getenv(EnvBin)
	if bin == "" {
		bin = filepath.Join(moduleRoot(tb), "bin")
	}
	for _, name := range []string{"castellan", "castellan-controlplane"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil { //nolint:gosec // who runs the tests names the folder
			tb.Fatalf("%v: run `make build` first", err)
		}
	}
	return bin
}

func moduleRoot(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		} else if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			tb.Fatalf("find the module's root: %v", err)
		}
		dir = filepath.Dir(dir)
	}
}

// freePorts finds a range in which nobody listens now. It begins where the process id says, so that two test
// processes that look at the same time rarely look at the same place.
func freePorts(tb testing.TB) local.PortRange {
	tb.Helper()
	const ranges = (portsTo - portsFrom) / portsOfOne
	for i := range ranges {
		from := int32(portsFrom + (os.Getpid()+i)%ranges*portsOfOne)
		r := local.PortRange{From: from, To: from + portsOfOne - 1}
		if allFree(tb.Context(), r) {
			return r
		}
	}
	tb.Fatalf("no %d ports in a row are free from %d to %d", portsOfOne, portsFrom, portsTo)
	return local.PortRange{}
}

func allFree(ctx context.Context, r local.PortRange) bool {
	for port := r.From; port <= r.To; port++ {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
		if err != nil {
			return false
		}
		if err := l.Close(); err != nil {
			return false
		}
	}
	return true
}

func or(text, instead string) string {
	if text != "" {
		return text
	}
	return instead
}

// Of is the same stand for another KafkaCluster on it.
func (s *Stand) Of(namespace, name string) *Stand {
	of := *s
	of.cluster = types.NamespacedName{Namespace: namespace, Name: name}
	return &of
}
