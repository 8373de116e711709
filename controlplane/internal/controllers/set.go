package controllers

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
)

const (
	resync = 10 * time.Minute
	// collectorSync is how soon a new kind of object takes part in garbage collection.
	collectorSync = 5 * time.Second

	namespaceWorkers, accountWorkers, roleWorkers, collectorWorkers = 4, 1, 1, 8
)

// set is one generation of the controllers; informers cannot be started twice, so each term builds a new one.
type set struct {
	loops    []func(context.Context)
	typed    informers.SharedInformerFactory
	metadata metadatainformer.SharedInformerFactory
	started  chan struct{}
}

func newSet(ctx context.Context, config *rest.Config) (*set, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("create client of the built-in controllers: %w", err)
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("create metadata client of the built-in controllers: %w", err)
	}
	s := &set{
		typed:    informers.NewSharedInformerFactory(client, resync),
		metadata: metadatainformer.NewSharedInformerFactory(meta, resync),
		started:  make(chan struct{}),
	}
	s.addNamespaces(ctx, client, meta)
	s.addClusterRoles(client)
	if err := s.addServiceAccounts(ctx, client); err != nil {
		return nil, err
	}
	return s, s.addCollector(ctx, client, meta)
}

func (s *set) addNamespaces(ctx context.Context, client kubernetes.Interface, meta metadata.Interface) {
	c := namespace.NewNamespaceController(ctx, client, meta, client.Discovery().ServerPreferredNamespacedResources,
		s.typed.Core().V1().Namespaces(), resync, corev1.FinalizerKubernetes)
	s.loops = append(s.loops, func(ctx context.Context) { c.Run(ctx, namespaceWorkers) })
}

func (s *set) addClusterRoles(client kubernetes.Interface) {
	c := clusterroleaggregation.NewClusterRoleAggregation(s.typed.Rbac().V1().ClusterRoles(), client.RbacV1())
	s.loops = append(s.loops, func(ctx context.Context) { c.Run(ctx, roleWorkers) })
}

func (s *set) addServiceAccounts(ctx context.Context, client kubernetes.Interface) error {
	core := s.typed.Core().V1()
	c, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx), core.ServiceAccounts(), core.Namespaces(), client,
		serviceaccount.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return fmt.Errorf("create the service account controller: %w", err)
	}
	s.loops = append(s.loops, func(ctx context.Context) { c.Run(ctx, accountWorkers) })
	return nil
}

func (s *set) addCollector(ctx context.Context, client kubernetes.Interface, meta metadata.Interface) error {
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	c, err := garbagecollector.NewGarbageCollector(ctx, client, meta, mapper, garbagecollector.DefaultIgnoredResources(),
		metadataOnly{s.metadata}, s.started)
	if err != nil {
		return fmt.Errorf("create the garbage collector: %w", err)
	}
	s.loops = append(s.loops,
		func(ctx context.Context) { c.Run(ctx, collectorWorkers, collectorSync) },
		func(ctx context.Context) { c.Sync(ctx, client.Discovery(), collectorSync) },
	)
	return nil
}

func (s *set) startInformers(ctx context.Context) {
	s.typed.Start(ctx.Done())
	s.metadata.Start(ctx.Done())
	close(s.started)
}

// stopInformers waits for the informers, whose context has ended.
func (s *set) stopInformers() {
	s.typed.Shutdown()
	s.metadata.Shutdown()
}

// metadataOnly gives the garbage collector metadata informers for every kind. The stock factory would hand out the typed
// ones and with them cache every Secret and ConfigMap in full.
type metadataOnly struct {
	factory metadatainformer.SharedInformerFactory
}

// ForResource never fails: metadata can be asked of any resource.
func (m metadataOnly) ForResource(resource schema.GroupVersionResource) (informers.GenericInformer, error) { //nolint:ireturn // the collector's interface
	return m.factory.ForResource(resource), nil
}

// Start starts the informers made since the last call.
func (m metadataOnly) Start(stop <-chan struct{}) { m.factory.Start(stop) }
