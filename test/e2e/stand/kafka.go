package stand

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/kafka"
)

// Bootstrap is the comma-separated bootstrap servers of a client listener.
func (s *Stand) Bootstrap(listener string) string {
	s.tb.Helper()
	for _, l := range s.Cluster().Status.Listeners {
		if l.Name == listener {
			return l.BootstrapServers
		}
	}
	s.tb.Fatalf("KafkaCluster %s shows no listener %s", s.cluster, listener)
	return ""
}

// ClientConfig connects to a plaintext client listener.
func (s *Stand) ClientConfig(listener string) kafka.ClientConfig {
	s.tb.Helper()
	return kafka.ClientConfig{Brokers: strings.Split(s.Bootstrap(listener), ","), ID: "stand"}
}

// BrokerTarget is how the operator itself reaches the cluster: INTERNAL and CONTROLLER listeners, with its certificate.
func (s *Stand) BrokerTarget() kafka.Target {
	s.tb.Helper()
	t := kafka.Target{TLS: s.operatorTLS(), ClusterID: s.Cluster().Status.ClusterID}
	for _, n := range s.Nodes() {
		at := func(listener string) string {
			return net.JoinHostPort(n.Spec.Address, strconv.Itoa(int(n.Spec.Ports[listener])))
		}
		if slices.Contains(n.Spec.Roles, api.RoleBroker) {
			t.Brokers = append(t.Brokers, at(layout.InternalListener))
		}
		if slices.Contains(n.Spec.Roles, api.RoleController) {
			t.Controllers = append(t.Controllers, at(layout.ControllerListener))
		}
	}
	return t
}

func (s *Stand) operatorTLS() *tls.Config {
	s.tb.Helper()
	var secret corev1.Secret
	key := types.NamespacedName{Namespace: s.cluster.Namespace, Name: s.cluster.Name + "-operator"}
	if err := s.Client().Get(s.tb.Context(), key, &secret); err != nil {
		s.tb.Fatalf("read the operator's Secret: %v", err)
	}
	config, err := mutualTLS(secret.Data)
	if err != nil {
		s.tb.Fatalf("read the operator's Secret: %v", err)
	}
	return config
}

func mutualTLS(data map[string][]byte) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, fmt.Errorf("read the key pair: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data["ca.crt"]) {
		return nil, fmt.Errorf("ca.crt holds no certificate")
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}
