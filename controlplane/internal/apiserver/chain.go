package apiserver

import (
	"fmt"
	"net/url"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	extensionsserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	validatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/util/notfoundhandler"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/kubernetes"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/controlplane"
	genericplane "k8s.io/kubernetes/pkg/controlplane/apiserver"
	"k8s.io/kubernetes/pkg/controlplane/apiserver/options"
	"k8s.io/kubernetes/pkg/generated/openapi"
	kubeoptions "k8s.io/kubernetes/pkg/kubeapiserver/options"
)

// disabledAdmission is every plugin but those that mean something without pods, nodes, quota and certificate signing.
func disabledAdmission() sets.Set[string] {
	return sets.New(kubeoptions.AllOrderedPlugins...).Delete(
		lifecycle.PluginName,
		mutatingpolicy.PluginName,
		mutatingwebhook.PluginName,
		validatingpolicy.PluginName,
		validatingwebhook.PluginName,
	)
}

// resources are the generic control plane's, without those that nothing here would act on.
func resources() *serverstorage.ResourceConfig {
	config := controlplane.DefaultGenericAPIResourceConfigSource()
	config.DisableVersions(certificatesv1.SchemeGroupVersion)
	config.DisableResources(corev1.SchemeGroupVersion.WithResource("resourcequotas"))
	return config
}

// noServices refuses to resolve a Service: there are none, and guessing a DNS name would hide the mistake.
type noServices struct{}

// ResolveEndpoint always fails and says what to use instead.
func (noServices) ResolveEndpoint(namespace, name string, _ int32) (*url.URL, error) {
	return nil, fmt.Errorf("service %s/%s cannot be reached: this control plane has no Services, use clientConfig.url", namespace, name)
}

// chain holds the configuration of the three servers that answer a request one after the other.
type chain struct {
	aggregator *aggregator.Config
	native     *genericplane.Config
	extensions *extensionsserver.Config
}

func newChain(opts options.CompletedOptions) (*chain, error) {
	schemes := []*runtime.Scheme{legacyscheme.Scheme, extensionsserver.Scheme, aggregatorscheme.Scheme}
	generic, informers, storage, err := genericplane.BuildGenericConfig(opts, schemes, resources(), openapi.GetOpenAPIDefinitions)
	if err != nil {
		return nil, fmt.Errorf("configure the server: %w", err)
	}
	generic.OpenAPIConfig.Info.Title = "Castellan control plane"
	generic.OpenAPIV3Config.Info.Title = "Castellan control plane"

	native, plugins, err := genericplane.CreateConfig(opts, generic, informers, storage, noServices{}, nil)
	if err != nil {
		return nil, fmt.Errorf("configure the built-in APIs: %w", err)
	}
	auth := webhook.NewDefaultAuthenticationInfoResolverWrapper(native.ProxyTransport, generic.EgressSelector, generic.LoopbackClientConfig, generic.TracerProvider)
	extensions, err := genericplane.CreateAPIExtensionsConfig(*generic, informers, plugins, opts, 1, noServices{}, auth)
	if err != nil {
		return nil, fmt.Errorf("configure custom resources: %w", err)
	}
	aggregated, err := genericplane.CreateAggregatorConfig(*generic, opts, informers, noServices{}, native.ProxyTransport, native.PeerProxy, plugins)
	if err != nil {
		return nil, fmt.Errorf("configure the aggregator: %w", err)
	}
	aggregated.ExtraConfig.DisableRemoteAvailableConditionController = true
	return &chain{aggregator: aggregated, native: native, extensions: extensions}, nil
}

// build connects the servers: the aggregator asks the built-in APIs, those ask the custom resources, and then nobody.
func (c *chain) build() (*aggregator.APIAggregator, error) {
	notFound := notfoundhandler.New(c.native.Generic.Serializer, filters.NoMuxAndDiscoveryIncompleteKey)
	extensions, err := c.extensions.Complete().New(server.NewEmptyDelegateWithCustomHandler(notFound))
	if err != nil {
		return nil, fmt.Errorf("create the server of custom resources: %w", err)
	}
	native, err := c.buildNative(extensions.GenericAPIServer)
	if err != nil {
		return nil, err
	}
	crds := apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")
	front, err := genericplane.CreateAggregatorServer(
		c.aggregator.Complete(), native.GenericAPIServer,
		extensions.Informers.Apiextensions().V1().CustomResourceDefinitions(),
		c.extensions.GenericConfig.MergedResourceConfig.ResourceEnabled(crds),
		genericplane.DefaultGenericAPIServicePriorities(),
	)
	if err != nil {
		return nil, fmt.Errorf("create the aggregator: %w", err)
	}
	return front, nil
}

func (c *chain) buildNative(next server.DelegationTarget) (*genericplane.Server, error) {
	completed := c.native.Complete()
	native, err := completed.New("castellan-controlplane", next)
	if err != nil {
		return nil, fmt.Errorf("create the server of the built-in APIs: %w", err)
	}
	client, err := kubernetes.NewForConfig(c.native.Generic.LoopbackClientConfig)
	if err != nil {
		return nil, fmt.Errorf("create loopback client: %w", err)
	}
	providers, err := completed.GenericStorageProviders(client.Discovery())
	if err != nil {
		return nil, fmt.Errorf("create storage of the built-in APIs: %w", err)
	}
	if err := native.InstallAPIs(providers...); err != nil {
		return nil, fmt.Errorf("install the built-in APIs: %w", err)
	}
	return native, nil
}
