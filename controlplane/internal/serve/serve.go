// Package serve runs one control plane on one data directory: it decides the order in which the parts start and stop and
// how long a stop may take. It never outlives its context by more than StopDeadline and does not depend on the process
// that started it.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"castellan.dev/castellan/controlplane/internal/apiserver"
	"castellan.dev/castellan/controlplane/internal/controllers"
	"castellan.dev/castellan/controlplane/internal/datadir"
	"castellan.dev/castellan/controlplane/internal/etcdserver"
	"castellan.dev/castellan/controlplane/internal/logfilter"
	"castellan.dev/castellan/controlplane/internal/pki"
)

// StopDeadline is how long a stop may take before the process ends anyway. Without a quorum etcd never lets go; its
// write-ahead log makes the hard end safe.
const StopDeadline = 20 * time.Second

const (
	memoryLimit  = 1 << 30 // bytes; a soft limit: the collector works harder above it
	readyPoll    = 50 * time.Millisecond
	renewalCheck = 12 * time.Hour
	startGrace   = StopDeadline / 2
)

// Options are what a user chooses.
type Options struct {
	Data        string
	BindAddress string
	SecurePort  int // 0 keeps the port of the last start, or picks a free one
	AuditLog    string
	SANs        []string
	Extra       []string // further kube-apiserver flags

	Stdout, Stderr io.Writer
	Log            *slog.Logger
	Now            func() time.Time
}

// Ready is printed as one line of JSON when the control plane serves.
type Ready struct {
	Ready bool   `json:"ready"`
	URL   string `json:"url"`
	PID   int    `json:"pid"`
}

// Run serves until ctx ends or a part fails.
func Run(ctx context.Context, o Options) (err error) {
	limitMemory()
	dir, err := datadir.Open(o.Data)
	if err != nil {
		return err
	}
	lock, err := dir.Lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()

	listener, err := listen(ctx, dir, o.BindAddress, o.SecurePort)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }() // closed by the server already, unless it never ran
	plane := plane{Options: o, dir: dir, listener: listener, url: address(listener)}
	if plane.names, err = names(listener, o.SANs); err != nil {
		return err
	}
	if err := plane.prepare(); err != nil {
		return err
	}
	return plane.serve(ctx)
}

type plane struct {
	Options
	dir      datadir.Dir
	listener net.Listener
	url      string
	names    pki.Names
}

// prepare writes every file a client or the server needs, so that a kubeconfig exists before anything is ready.
func (p *plane) prepare() error {
	hasState, err := p.dir.HasState()
	if err != nil {
		return err
	}
	if _, err := pki.Ensure(p.dir, p.names, !hasState, p.Now()); err != nil {
		return err
	}
	if err := apiserver.WriteConfig(p.dir); err != nil {
		return err
	}
	if p.AuditLog == "" {
		p.AuditLog = p.dir.AuditLog()
	}
	if err := os.MkdirAll(filepath.Dir(p.AuditLog), 0o700); err != nil {
		return fmt.Errorf("create folder of the audit log: %w", err)
	}
	return pki.WriteKubeconfig(p.dir, p.url)
}

func (p *plane) serve(ctx context.Context) error {
	filter := logfilter.New(p.Stderr)
	etcd, err := etcdserver.Start(ctx, p.dir, filter.Zap())
	if ctx.Err() != nil && err != nil {
		return nil // asked to stop while starting
	}
	if err != nil {
		return err
	}
	defer etcd.Close()

	serving, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	server, err := apiserver.New(serving, apiserver.Config{
		Dir: p.dir, Listener: p.listener, EtcdEndpoint: etcdserver.Endpoint(p.dir),
		AuditLog: p.AuditLog, Extra: p.Extra, Log: filter,
	})
	if err != nil {
		return err
	}
	if err := p.addControllers(server); err != nil {
		return err
	}
	started := make(chan struct{})
	var background sync.WaitGroup
	background.Go(func() { p.watch(serving, etcd, cancel) })
	background.Go(func() { p.renew(serving) })
	background.Go(func() { p.announce(serving, server, started) })
	background.Go(func() { stopOnceStarted(ctx, serving, started, cancel) })
	err = server.Run(serving)
	if failure, ok := errors.AsType[*etcdFailure](context.Cause(serving)); ok {
		err = errors.Join(err, failure)
	}
	cancel(nil)
	background.Wait()
	return err
}

// stopOnceStarted ends serving when ctx ends, but lets a start come to its end first: the server's start hooks end the
// process when they are interrupted.
func stopOnceStarted(ctx, serving context.Context, started <-chan struct{}, cancel context.CancelCauseFunc) {
	select {
	case <-ctx.Done():
	case <-serving.Done():
	}
	select {
	case <-started:
	case <-serving.Done():
	case <-time.After(startGrace):
	}
	cancel(nil)
}

func (p *plane) addControllers(server *apiserver.Server) error {
	identity, err := p.dir.Instance()
	if err != nil {
		return err
	}
	runner := controllers.New(server.Loopback(), identity, p.Log)
	return server.AddHooks("castellan-built-in-controllers", runner.Start, runner.Stop)
}

type etcdFailure struct{ err error }

func (e *etcdFailure) Error() string { return "etcd stopped serving: " + e.err.Error() }
func (e *etcdFailure) Unwrap() error { return e.err }

// watch stops everything when etcd fails.
func (p *plane) watch(ctx context.Context, etcd *etcdserver.Server, cancel context.CancelCauseFunc) {
	select {
	case <-ctx.Done():
	case err := <-etcd.Failed():
		cancel(&etcdFailure{err})
	}
}

// renew keeps certificates fresh in a process that runs for years; the server reloads the files by itself.
func (p *plane) renew(ctx context.Context) {
	ticker := time.NewTicker(renewalCheck)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		changed, err := pki.Ensure(p.dir, p.names, false, p.Now())
		if err == nil && changed {
			p.Log.InfoContext(ctx, "certificates renewed")
			err = pki.WriteKubeconfig(p.dir, p.url)
		}
		if err != nil {
			p.Log.ErrorContext(ctx, "certificates not renewed", slog.String("error", err.Error()))
		}
	}
}

// announce prints the ready line and closes started once the server answers and its namespaces exist.
func (p *plane) announce(ctx context.Context, server *apiserver.Server, started chan<- struct{}) {
	client, err := kubernetes.NewForConfig(server.Loopback())
	if err != nil {
		p.Log.ErrorContext(ctx, "cannot ask whether the server is ready", slog.String("error", err.Error()))
		return
	}
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for !isReady(ctx, client) {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
	close(started)
	if err := json.NewEncoder(p.Stdout).Encode(Ready{Ready: true, URL: p.url, PID: os.Getpid()}); err != nil {
		p.Log.WarnContext(ctx, "nobody reads the ready line", slog.String("error", err.Error())) // no reason to stop
	}
}

func isReady(ctx context.Context, client kubernetes.Interface) bool {
	var status int
	if client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&status); status != http.StatusOK {
		return false
	}
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem} {
		if _, err := client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{}); err != nil {
			return false
		}
	}
	return true
}

// listen takes the port before anything else starts, so that a taken one is reported at once.
func listen(ctx context.Context, dir datadir.Dir, bind string, port int) (net.Listener, error) {
	kept, err := dir.KeptPort()
	if err != nil {
		return nil, err
	}
	if port == 0 {
		port = kept
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(bind, strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("port %d on %s is taken by another process: stop it, or choose another with --secure-port (then take the new %s)", port, bind, dir.AdminKubeconfig())
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s port %d: %w (check --bind-address and --secure-port)", bind, port, err)
	}
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok || tcp.Port == kept {
		return l, nil
	}
	if err := dir.KeepPort(tcp.Port); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// address is the URL that clients of this machine use.
func address(l net.Listener) string {
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return "https://" + l.Addr().String()
	}
	host := tcp.IP
	if host.IsUnspecified() {
		host = net.IPv4(127, 0, 0, 1)
	}
	return "https://" + net.JoinHostPort(host.String(), strconv.Itoa(tcp.Port))
}

// names are what the serving certificate must cover: this machine, the names clients inside Kubernetes use, and extras.
func names(l net.Listener, sans []string) (pki.Names, error) {
	n := pki.Names{
		DNS: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
		IPs: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	hostname, err := os.Hostname()
	if err != nil {
		return n, fmt.Errorf("find this machine's name: %w", err)
	}
	if hostname != "" {
		n.DNS = append(n.DNS, hostname)
	}
	if tcp, ok := l.Addr().(*net.TCPAddr); ok && !tcp.IP.IsUnspecified() {
		n.IPs = append(n.IPs, tcp.IP)
	}
	for _, san := range sans {
		if ip := net.ParseIP(san); ip != nil {
			n.IPs = append(n.IPs, ip)
		} else {
			n.DNS = append(n.DNS, san)
		}
	}
	return n, nil
}

// limitMemory sets a soft limit unless the environment does: large lists otherwise double the heap before it is collected.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}
