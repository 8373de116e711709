package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/kafka"
)

// target says which Kafka cluster a command speaks to.
type target struct {
	*options
	cluster  string
	listener string
	brokers  []string
	tls      bool
	files    kafka.TLSFiles
}

func (t *target) addFlags(cmd *cobra.Command) {
	t.addNamespace(cmd)
	flags := cmd.Flags()
	flags.StringVar(&t.cluster, "cluster", "", "KafkaCluster to speak to (default the only one of the namespace)")
	flags.StringVar(&t.listener, "listener", "", "its listener to connect to (default the first)")
	flags.StringSliceVar(&t.brokers, "bootstrap-server", nil, "host:port of any Kafka cluster, without an API server")
	flags.BoolVar(&t.tls, "tls", false, "speak TLS to --bootstrap-server")
	flags.StringVar(&t.files.CA, "tls-ca", "", "PEM file with the CA to trust (implies --tls)")
	flags.StringVar(&t.files.Cert, "tls-cert", "", "PEM file with the client's certificate (implies --tls)")
	flags.StringVar(&t.files.Key, "tls-key", "", "PEM file with the client's key")
}

func (t *target) dial(ctx context.Context) (*kafka.Client, error) {
	config, err := t.clientConfig(ctx)
	if err != nil {
		return nil, err
	}
	return kafka.Dial(ctx, config)
}

func (t *target) clientConfig(ctx context.Context) (kafka.ClientConfig, error) {
	if len(t.brokers) == 0 {
		return t.fromCluster(ctx)
	}
	if t.cluster != "" || t.listener != "" {
		return kafka.ClientConfig{}, usagef("--bootstrap-server goes with neither --cluster nor --listener")
	}
	config := kafka.ClientConfig{Brokers: t.brokers, ID: FieldManager}
	if t.tls || t.files != (kafka.TLSFiles{}) {
		loaded, err := kafka.LoadTLS(t.files)
		if err != nil {
			return kafka.ClientConfig{}, err
		}
		config.TLS = loaded
	}
	return config, nil
}

func (t *target) fromCluster(ctx context.Context) (kafka.ClientConfig, error) {
	rest, namespace, err := t.restConfig()
	if err != nil {
		return kafka.ClientConfig{}, err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, api.AddToScheme} {
		if err := add(scheme); err != nil {
			return kafka.ClientConfig{}, fmt.Errorf("register API types: %w", err)
		}
	}
	c, err := client.New(rest, client.Options{Scheme: scheme})
	if err != nil {
		return kafka.ClientConfig{}, fmt.Errorf("connect to the API server: %w", err)
	}
	cluster, err := t.find(ctx, c, namespace)
	if err != nil {
		return kafka.ClientConfig{}, err
	}
	listener, err := t.choose(cluster)
	if err != nil {
		return kafka.ClientConfig{}, err
	}
	config := kafka.ClientConfig{Brokers: strings.Split(listener.BootstrapServers, ","), ID: FieldManager}
	if listener.CASecretRef != nil {
		config.TLS, err = trust(ctx, c, client.ObjectKey{Namespace: namespace, Name: listener.CASecretRef.Name})
	}
	return config, err
}

func (t *target) find(ctx context.Context, c client.Client, namespace string) (*api.KafkaCluster, error) {
	if t.cluster != "" {
		cluster := &api.KafkaCluster{}
		if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: t.cluster}, cluster); err != nil {
			return nil, fmt.Errorf("read KafkaCluster %s/%s: %w", namespace, t.cluster, err)
		}
		return cluster, nil
	}
	var clusters api.KafkaClusterList
	if err := c.List(ctx, &clusters, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the KafkaClusters of namespace %s: %w", namespace, err)
	}
	switch len(clusters.Items) {
	case 1:
		return &clusters.Items[0], nil
	case 0:
		return nil, &NotFoundError{Message: fmt.Sprintf("there is no KafkaCluster in namespace %s: name another namespace with -n, or give --bootstrap-server", namespace)}
	}
	names := make([]string, len(clusters.Items))
	for i := range clusters.Items {
		names[i] = clusters.Items[i].Name
	}
	slices.Sort(names)
	return nil, usagef("namespace %s has several KafkaClusters: choose one with --cluster: %s", namespace, strings.Join(names, ", "))
}

func (t *target) choose(cluster *api.KafkaCluster) (api.ListenerStatus, error) {
	var names []string
	for _, l := range cluster.Status.Listeners {
		if l.BootstrapServers == "" {
			continue
		}
		if t.listener == "" || t.listener == l.Name {
			return l, nil
		}
		names = append(names, l.Name)
	}
	if t.listener != "" {
		return api.ListenerStatus{}, &NotFoundError{Message: fmt.Sprintf("KafkaCluster %s has no listener %s with an address; it has: %s", cluster.Name, t.listener, strings.Join(names, ", "))}
	}
	return api.ListenerStatus{}, fmt.Errorf("KafkaCluster %s has no address for clients yet: `castellan describe kc %[1]s` says what it waits for", cluster.Name)
}

// trust reads the CA that a cluster's TLS listeners show.
func trust(ctx context.Context, c client.Client, key client.ObjectKey) (*tls.Config, error) {
	var secret corev1.Secret
	if err := c.Get(ctx, key, &secret); err != nil {
		return nil, fmt.Errorf("read the cluster's CA in Secret %s: %w", key, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(secret.Data["ca.crt"]) {
		return nil, fmt.Errorf("read the cluster's CA: key ca.crt of Secret %s holds no certificate", key)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}
