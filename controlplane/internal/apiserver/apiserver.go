// Package apiserver assembles Kubernetes' generic control plane: custom resources, RBAC, admission, namespaces, Secrets,
// ConfigMaps, events and leases, without pods, nodes and Services. It stores nothing itself and starts no controllers of
// its own; those are added as hooks. One process can hold one API server: its feature gates and metrics are global.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"

	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/rest"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/metrics/prometheus/workqueue" // registers the metrics of the controllers' queues
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"
	"k8s.io/kubernetes/pkg/controlplane/apiserver/options"
	_ "k8s.io/kubernetes/pkg/features" // registers the feature gates of the built-in APIs

	"castellan.dev/castellan/controlplane/internal/datadir"
	"castellan.dev/castellan/controlplane/internal/logfilter"
)

// Config is what a server needs to know.
type Config struct {
	Dir          datadir.Dir
	Listener     net.Listener // owned by the server from New on
	EtcdEndpoint string
	AuditLog     string   // path of the audit log
	Extra        []string // further kube-apiserver flags
	Log          *logfilter.Writer
}

// Server is an assembled API server that does not serve yet.
type Server struct{ front *aggregator.APIAggregator }

// New assembles a server on an etcd that is already serving. ctx ends what the server starts in the background.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if err := logsapi.AddFeatureGates(feature.DefaultMutableFeatureGate); err != nil {
		return nil, fmt.Errorf("register feature gates: %w", err)
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // the server must not log the warnings it gives itself
	opts, err := complete(ctx, cfg)
	if err != nil {
		return nil, err
	}
	chain, err := newChain(opts)
	if err != nil {
		return nil, err
	}
	front, err := chain.build()
	if err != nil {
		return nil, err
	}
	return &Server{front: front}, nil
}

func complete(ctx context.Context, cfg Config) (options.CompletedOptions, error) {
	opts := options.NewOptions()
	opts.Admission.GenericAdmission.DefaultOffPlugins = disabledAdmission()
	opts.Authentication.ServiceAccounts.OptionalTokenGetter = newTokenSubjects
	if err := parse(opts, cfg); err != nil {
		return options.CompletedOptions{}, err
	}
	if err := compatibility.DefaultComponentGlobalsRegistry.Set(); err != nil {
		return options.CompletedOptions{}, fmt.Errorf("apply feature gates: %w", err)
	}
	opts.SecureServing.Listener = cfg.Listener
	opts.GenericServerRunOptions.AdvertiseAddress = net.ParseIP(host(cfg.Listener))

	cfg.Log.Info = opts.Logs.Verbosity > 0
	streams := &logsapi.LoggingOptions{ErrorStream: cfg.Log, InfoStream: cfg.Log}
	if err := logsapi.ValidateAndApplyWithOptions(opts.Logs, streams, feature.DefaultFeatureGate); err != nil {
		return options.CompletedOptions{}, fmt.Errorf("set up logs: %w", err)
	}
	completed, err := opts.Complete(ctx, nil, nil)
	if err != nil {
		return options.CompletedOptions{}, fmt.Errorf("complete kube-apiserver flags: %w", err)
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return options.CompletedOptions{}, fmt.Errorf("kube-apiserver flags: %w", errors.Join(errs...))
	}
	return completed, nil
}

// Loopback connects to this server as itself, with every right.
func (s *Server) Loopback() *rest.Config { return s.front.GenericAPIServer.LoopbackClientConfig }

// AddHooks runs start when the server serves, with a context that ends when it stops, and stop before it stops serving,
// waiting for it. Call it before Run.
func (s *Server) AddHooks(name string, start func(context.Context), stop func()) error {
	err := s.front.GenericAPIServer.AddPostStartHook(name, func(hook server.PostStartHookContext) error {
		start(hook.Context)
		return nil
	})
	if err != nil {
		return fmt.Errorf("add start hook %s: %w", name, err)
	}
	err = s.front.GenericAPIServer.AddPreShutdownHook(name, func() error {
		stop()
		return nil
	})
	if err != nil {
		return fmt.Errorf("add stop hook %s: %w", name, err)
	}
	return nil
}

// Run serves until ctx ends and every request in flight is answered.
func (s *Server) Run(ctx context.Context) error {
	prepared, err := s.front.PrepareRun()
	if err != nil {
		return fmt.Errorf("prepare the API server: %w", err)
	}
	if err := prepared.Run(ctx); err != nil {
		return fmt.Errorf("run the API server: %w", err)
	}
	return nil
}
