package cli

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

// typedClient reads and writes Castellan's own kinds and those of Kubernetes beside them.
func typedClient(config *rest.Config) (client.Client, error) { //nolint:ireturn // controller-runtime gives only the interface
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return c, nil
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, api.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register API types: %w", err)
		}
	}
	return scheme, nil
}

// objects connects for the typed commands.
func (o *options) objects() (client.Client, *rest.Config, string, error) { //nolint:ireturn // controller-runtime gives only the interface
	config, namespace, err := o.restConfig()
	if err != nil {
		return nil, nil, "", err
	}
	c, err := typedClient(config)
	return c, config, namespace, err
}
