// Package controllers runs the few controllers that an API server cannot do without when nobody else runs them: namespace
// deletion, garbage collection, default service accounts and aggregation of cluster roles. One lease makes sure that only
// one process runs them. It never reads a cached Secret: garbage collection sees metadata only.
package controllers

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

const (
	leaseName = "castellan-controlplane"
	// An idle control plane writes nothing but this lease, once per retry period. A restarted process takes its own lease
	// back at once, so the duration only matters between processes.
	leaseDuration = 20 * time.Second
	renewDeadline = 15 * time.Second
	retryPeriod   = 5 * time.Second
	namespacePoll = 50 * time.Millisecond
	// stopTimeout bounds a stop when etcd no longer answers.
	stopTimeout = 5 * time.Second
)

// Runner runs the controllers while it holds the lease.
type Runner struct {
	config   *rest.Config
	identity string
	log      *slog.Logger

	stopping chan struct{} // closed when the controllers must end
	started  atomic.Bool
	done     chan struct{} // closed when the lease is released
	once     sync.Once
}

// New prepares the controllers of the process that is known by identity.
func New(config *rest.Config, identity string, log *slog.Logger) *Runner {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 200, 400
	return &Runner{config: config, identity: identity, log: log, stopping: make(chan struct{}), done: make(chan struct{})}
}

// Start runs until ctx ends or Stop is called; it returns at once.
func (r *Runner) Start(ctx context.Context) {
	r.started.Store(true)
	go func() {
		defer close(r.done)
		r.lead(ctx)
	}()
}

// Stop ends the controllers, then gives the lease up, and waits for both.
func (r *Runner) Stop() {
	r.once.Do(func() { close(r.stopping) })
	if !r.started.Load() {
		return // stopped before the server was up
	}
	select {
	case <-r.done:
	case <-time.After(stopTimeout):
		r.log.Warn("built-in controllers did not stop in time", slog.Duration("waited", stopTimeout))
	}
}

// lead campaigns again whenever the lease is lost, for instance because etcd stood still.
func (r *Runner) lead(ctx context.Context) {
	for ctx.Err() == nil && !r.isStopping() {
		err := r.awaitNamespace(ctx)
		if err == nil {
			err = r.term(ctx)
		}
		if err != nil && ctx.Err() == nil {
			r.log.ErrorContext(ctx, "built-in controllers do not run, trying again", slog.String("error", err.Error()))
			r.pause(ctx)
		}
	}
}

// awaitNamespace waits for the lease's namespace, which the server makes in its first moments; the first attempt at the
// lease would otherwise fail and cost a whole retry period.
func (r *Runner) awaitNamespace(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(r.config)
	if err != nil {
		return fmt.Errorf("create client: %w", err)
	}
	ticker := time.NewTicker(namespacePoll)
	defer ticker.Stop()
	for {
		_, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stopped while waiting for namespace %s: %w", metav1.NamespaceSystem, err)
		case <-r.stopping:
			return nil
		case <-ticker.C:
		}
	}
}

func (r *Runner) isStopping() bool {
	select {
	case <-r.stopping:
		return true
	default:
		return false
	}
}

func (r *Runner) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-r.stopping:
	case <-time.After(retryPeriod):
	}
}

// term waits for the lease, runs the controllers until it is lost or they must stop, and only then gives it up.
func (r *Runner) term(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	won := make(chan context.Context, 1)
	elector, err := r.elector(func(held context.Context) { won <- held })
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		elector.Run(ctx)
	}()
	select {
	case held := <-won:
		err = r.control(held) //nolint:contextcheck // the lease's context is a child of ctx
	case <-r.stopping:
	case <-ended:
	}
	cancel()
	<-ended
	return err
}

func (r *Runner) elector(won func(context.Context)) (*leaderelection.LeaderElector, error) {
	client, err := kubernetes.NewForConfig(r.config)
	if err != nil {
		return nil, fmt.Errorf("create lease client: %w", err)
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: leaseName,
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: leaseName},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: r.identity},
		},
		LeaseDuration:   leaseDuration,
		RenewDeadline:   renewDeadline,
		RetryPeriod:     retryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: won,
			OnStoppedLeading: func() {}, // the context given to won has ended
		},
	})
	if err != nil {
		return nil, fmt.Errorf("set up the lease: %w", err)
	}
	return elector, nil
}

// control runs the controllers until the lease is lost or they must stop, and waits for all of them.
func (r *Runner) control(held context.Context) error {
	ctx, cancel := context.WithCancel(held)
	defer cancel()
	set, err := newSet(ctx, r.config)
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	for _, run := range set.loops {
		running.Go(func() { run(ctx) })
	}
	set.startInformers(ctx)
	select {
	case <-ctx.Done():
	case <-r.stopping:
		cancel()
	}
	running.Wait()
	set.stopInformers()
	return nil
}
