package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/kafka"
)

// target says which Kafka cluster a command speaks to.
type target struct {
	*options
	cluster  string
	listener string
	user     string
	brokers  []string
	tls      bool
	files    kafka.TLSFiles
	direct   bool
	// forwarder is the way to Kafka in pods, once it was needed.
	forwarder Forwarder
}

func (t *target) addFlags(cmd *cobra.Command) {
	t.addNamespace(cmd)
	flags := cmd.Flags()
	flags.StringVar(&t.cluster, "cluster", "", "KafkaCluster to speak to (default the only one of the namespace)")
	flags.StringVar(&t.listener, "listener", "", "its listener to connect to (default the first that fits)")
	flags.StringVar(&t.user, "user", "", "KafkaUser to connect as; its Secret is read")
	flags.StringSliceVar(&t.brokers, "bootstrap-server", nil, "host:port of any Kafka cluster, without an API server")
	flags.BoolVar(&t.direct, "direct", false, "connect to pods over the network, not through the API server")
	flags.BoolVar(&t.tls, "tls", false, "speak TLS to --bootstrap-server")
	flags.StringVar(&t.files.CA, "tls-ca", "", "PEM file with the CA to trust (implies --tls)")
	flags.StringVar(&t.files.Cert, "tls-cert", "", "PEM file with the client's certificate (implies --tls)")
	flags.StringVar(&t.files.Key, "tls-key", "", "PEM file with the client's key")
}

// dial connects; the returned client's Close ends all that it goes through.
func (t *target) dial(ctx context.Context) (*connected, error) {
	config, err := t.clientConfig(ctx)
	if err != nil {
		return nil, t.hangUp(err)
	}
	client, err := kafka.Dial(ctx, config)
	if err != nil {
		return nil, t.hangUp(err)
	}
	return &connected{Client: client, target: t}, nil
}

// connected is a client with the way to it.
type connected struct {
	*kafka.Client
	target *target
}

// Close ends the connections.
func (c *connected) Close() {
	c.Client.Close()
	_ = c.target.hangUp(nil) // what was to be done is done
}

// hangUp ends the way to pods, if one was needed.
func (t *target) hangUp(err error) error {
	if t.forwarder == nil {
		return err
	}
	defer func() { t.forwarder = nil }()
	return errors.Join(err, t.forwarder.Close())
}

func (t *target) clientConfig(ctx context.Context) (kafka.ClientConfig, error) {
	if len(t.brokers) == 0 {
		return t.fromCluster(ctx)
	}
	if t.cluster != "" || t.listener != "" || t.user != "" {
		return kafka.ClientConfig{}, usagef("--bootstrap-server goes with none of --cluster, --listener and --user")
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
	c, err := typedClient(rest)
	if err != nil {
		return kafka.ClientConfig{}, err
	}
	cluster, err := t.find(ctx, c, namespace)
	if err != nil {
		return kafka.ClientConfig{}, err
	}
	as, err := t.identity(ctx, c, cluster, namespace)
	if err != nil {
		return kafka.ClientConfig{}, err
	}
	listener, err := t.choose(cluster, as)
	if err != nil {
		return kafka.ClientConfig{}, err
	}
	config := kafka.ClientConfig{Brokers: strings.Split(listener.BootstrapServers, ","), ID: FieldManager}
	if listener.CASecretRef != nil {
		config.TLS, err = trust(ctx, c, client.ObjectKey{Namespace: namespace, Name: listener.CASecretRef.Name})
		if err != nil {
			return kafka.ClientConfig{}, err
		}
	}
	as.configure(&config)
	if !t.direct && inPods(cluster) {
		if t.Forward == nil {
			return kafka.ClientConfig{}, errors.New("this build cannot reach pods through the API server: use --direct where the pod network is reached")
		}
		if t.forwarder, err = t.Forward(rest); err != nil {
			return kafka.ClientConfig{}, err
		}
		config.Dial = t.forwarder.DialContext
	}
	return config, nil
}

// inPods says whether a cluster's nodes are pods.
func inPods(cluster *api.KafkaCluster) bool {
	return slices.ContainsFunc(cluster.Spec.Pools, func(p api.Pool) bool { return p.Placement.Kubernetes != nil })
}

func (t *target) find(ctx context.Context, c client.Client, namespace string) (*api.KafkaCluster, error) {
	return findCluster(ctx, c, namespace, t.cluster, "choose one with --cluster")
}

// findCluster reads the KafkaCluster of that name, or the only one of the namespace.
func findCluster(ctx context.Context, c client.Client, namespace, name, choose string) (*api.KafkaCluster, error) {
	if name != "" {
		cluster := &api.KafkaCluster{}
		if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, cluster); err != nil {
			return nil, fmt.Errorf("read KafkaCluster %s/%s: %w", namespace, name, err)
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
		return nil, &NotFoundError{Message: fmt.Sprintf("there is no KafkaCluster in namespace %s: name another namespace with -n", namespace)}
	}
	names := make([]string, len(clusters.Items))
	for i := range clusters.Items {
		names[i] = clusters.Items[i].Name
	}
	slices.Sort(names)
	return nil, usagef("namespace %s has several KafkaClusters: %s: %s", namespace, choose, strings.Join(names, ", "))
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
