package install

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/kafka"
)

// caKey is the key of a cluster's CA in its Secret.
const caKey = "ca.crt"

// roundTrip sends a record through a listener as a client would, reads it back, and returns
// the CA that the client needs. What fails is tried again until the deadline: load
// balancers and DNS take their time.
func (s *session) roundTrip(ctx context.Context, c *api.KafkaCluster, l api.ListenerStatus) ([]byte, error) {
	config := kafka.ClientConfig{Brokers: strings.Split(l.BootstrapServers, ","), ID: manager, Dial: s.dial}
	var ca []byte
	if l.CASecretRef != nil {
		var secret corev1.Secret
		if err := s.client.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: l.CASecretRef.Name}, &secret); err != nil {
			return nil, fmt.Errorf("read the cluster's CA in Secret %s/%s: %w", c.Namespace, l.CASecretRef.Name, err)
		}
		ca = secret.Data[caKey]
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("read the cluster's CA: key %s of Secret %s/%s holds no certificate", caKey, c.Namespace, l.CASecretRef.Name)
		}
		config.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	trip, what := trip, "a record went through listener %s at %s and came back"
	if c.Spec.Authentication(l.Name) != api.AuthenticationNone { // we are none of its users
		trip, what = kafka.Reach, "listener %s answers at %s"
	}
	s.Doing("KafkaCluster %s/%s: a record through listener %s at %s", c.Namespace, c.Name, l.Name, l.BootstrapServers)
	for {
		err := trip(ctx, config)
		if err == nil {
			s.Done(what, l.Name, l.BootstrapServers)
			return ca, nil
		}
		if ctx.Err() != nil || !pause(ctx) {
			return nil, fmt.Errorf("KafkaCluster %s/%s is Ready, but no record went through its listener %s at %s from here (%w): %w",
				c.Namespace, c.Name, l.Name, l.BootstrapServers, err, ctx.Err())
		}
		s.Doing("listener %s does not work from here yet: %v", l.Name, err)
	}
}

// tripTimeout bounds one round trip.
const tripTimeout = 30 * time.Second

// trip makes a topic, writes a record, reads it, and removes the topic.
func trip(ctx context.Context, config kafka.ClientConfig) (err error) {
	ctx, cancel := context.WithTimeout(ctx, tripTimeout)
	defer cancel()
	kc, err := kafka.Dial(ctx, config)
	if err != nil {
		return err
	}
	defer kc.Close()
	text := rand.Text()
	topic := "castellan-round-trip-" + strings.ToLower(text)
	if err := kc.CreateTopic(ctx, kafka.NewTopic{Name: topic, Partitions: 1, ReplicationFactor: -1}); err != nil {
		return err
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), tripTimeout)
		defer cancel()
		err = errors.Join(err, kc.DeleteTopic(clean, topic))
	}()
	if _, err := kc.Produce(ctx, kafka.ProduceOptions{Topic: topic, DeliveryTimeout: tripTimeout / 2}, one(text)); err != nil {
		return err
	}
	for record, err := range kc.Consume(ctx, kafka.ConsumeOptions{Topic: topic, From: kafka.Start{Offset: kafka.Beginning}, Max: 1}) {
		if err != nil {
			return err
		}
		if string(record.Value) != text {
			return fmt.Errorf("topic %s holds %q in place of %q", topic, record.Value, text)
		}
		return nil
	}
	return fmt.Errorf("topic %s is empty after a record was acknowledged", topic)
}

func one(text string) iter.Seq2[kafka.Record, error] {
	return func(yield func(kafka.Record, error) bool) { yield(kafka.Record{Value: []byte(text)}, nil) }
}
