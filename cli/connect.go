package cli

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// connection is a way to an API server.
type connection struct {
	config    *rest.Config
	dynamic   dynamic.Interface
	mapper    meta.RESTMapper
	expander  restmapper.CategoryExpander
	namespace string
}

// restConfig finds the API server, and the namespace of the context. What the server warns
// of goes to standard error.
func (o *options) restConfig() (*rest.Config, string, error) {
	loader, err := o.loader()
	if err != nil {
		return nil, "", err
	}
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("read the kubeconfig: %w", err)
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("read the namespace of the kubeconfig: %w", err)
	}
	if o.namespace != "" {
		namespace = o.namespace
	}
	config.QPS, config.Burst = 50, 100
	config.UserAgent = "castellan/" + o.Version
	config.WarningHandler = rest.NewWarningWriter(o.Err, rest.WarningWriterOptions{Deduplicate: true})
	return config, namespace, nil
}

func (o *options) connect() (*connection, error) {
	config, namespace, err := o.restConfig()
	if err != nil {
		return nil, err
	}
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	cached := memory.NewMemCacheClient(d)
	resources, err := restmapper.GetAPIGroupResources(cached)
	if err != nil {
		return nil, fmt.Errorf("ask the API server at %s what it serves: %w; is it running? (castellan status)", config.Host, err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return &connection{
		config: config, dynamic: client, namespace: namespace,
		mapper:   restmapper.NewShortcutExpander(restmapper.NewDiscoveryRESTMapper(resources), cached, nil),
		expander: restmapper.NewDiscoveryCategoryExpander(cached),
	}, nil
}
