package local

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/host"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/pki"
)

const (
	clusterPoll = 500 * time.Millisecond
	// patience is how long the same thing may block before `up` gives up on it. The cluster
	// stays as it is, and goes on when the cause is mended.
	patience = 30 * time.Second
	// passing is how long a block may stand without being told: many go away by themselves.
	passing = 3 * time.Second
	// tooOften is how many times operator or agent may end before `up` gives up.
	tooOften = 5
	// operatorLease is the name of the operator's Lease in systemNamespace.
	operatorLease = "castellan-operator"
)

// RefusedError says that a spec was not accepted, though the API server took it.
type RefusedError struct {
	Cluster string
	// Message names every problem by field path.
	Message string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the spec of KafkaCluster %s is not accepted: %s", e.Cluster, e.Message)
}

// await waits until every target is Ready and tells what it waits for.
func (u *up) await(ctx context.Context) ([]Running, error) {
	var running []Running
	for _, key := range u.targets {
		w := waiter{up: u, key: key}
		r, err := w.await(ctx)
		if err != nil {
			return nil, err
		}
		running = append(running, r)
	}
	return running, nil
}

// waiter waits for one cluster.
type waiter struct {
	*up
	key client.ObjectKey
	// stalled is what blocks, since when and seen when at last.
	stalled     string
	since, seen time.Time
	told        bool
}

func (w *waiter) await(ctx context.Context) (Running, error) {
	ticker := time.NewTicker(clusterPoll)
	defer ticker.Stop()
	doing := "waiting for the operator"
	for {
		c, text, err := w.look(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			return Running{}, err
		case err == nil && text == "":
			return Running{
				Namespace: c.Namespace, Name: c.Name, Version: c.Status.Version, Nodes: c.Status.Nodes.Ready,
				Listeners: c.Status.Listeners, Stopped: c.Spec.State == api.StateStopped,
			}, nil
		case err == nil:
			doing = text
			w.Progress.Doing("KafkaCluster %s: %s", w.key, doing)
		}
		select {
		case <-ctx.Done():
			return Running{}, w.unfinished(ctx, doing)
		case <-ticker.C:
		}
	}
}

// unfinished says how far the cluster is when waiting ends.
func (w *waiter) unfinished(ctx context.Context, doing string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("KafkaCluster %s is not Ready after %s (%s): %w; it goes on in the background, see `castellan status` and %s",
			w.key, w.Timeout, doing, ctx.Err(), w.Dir.Log(Operator))
	}
	return fmt.Errorf("KafkaCluster %s is not Ready yet (%s): %w", w.key, doing, ctx.Err())
}

// look returns what is still waited for, nothing when the cluster is Ready.
func (w *waiter) look(ctx context.Context) (*api.KafkaCluster, string, error) {
	if err := w.childTrouble(); err != nil {
		return nil, "", err
	}
	c := &api.KafkaCluster{}
	if err := w.client.Get(ctx, w.key, c); err != nil {
		if client.IgnoreNotFound(err) == nil {
			return nil, "", fmt.Errorf("KafkaCluster %s was deleted", w.key)
		}
		return c, fmt.Sprintf("the control plane does not answer: %v", err), nil
	}
	if c.Spec.State == api.StateStopped {
		return c, "", nil
	}
	if conditionNow(c, api.ConditionReady, metav1.ConditionTrue) != nil {
		return c, cmp.Or(w.silent(ctx), w.serves(ctx, c)), nil
	}
	if refused := conditionNow(c, api.ConditionAccepted, metav1.ConditionFalse); refused != nil {
		return nil, "", &RefusedError{Cluster: w.key.String(), Message: refused.Message}
	}
	if err := w.blocked(c); err != nil {
		return nil, "", err
	}
	var nodes api.KafkaNodeList
	if err := w.client.List(ctx, &nodes, client.InNamespace(c.Namespace)); err != nil {
		return c, fmt.Sprintf("the control plane does not answer: %v", err), nil
	}
	return c, describe(c, nodes.Items), nil
}

// silent names the first of operator and agent that the API server has not heard of since
// it was started: until then the API says what was true before.
func (w *waiter) silent(ctx context.Context) string {
	state, _ := readState(w.Dir)
	for _, child := range []struct {
		name  string
		lease client.ObjectKey
	}{
		{Operator, client.ObjectKey{Namespace: systemNamespace, Name: operatorLease}},
		{Agent, client.ObjectKey{Namespace: host.Namespace(HostName), Name: host.LeaseName}},
	} {
		var lease coordinationv1.Lease
		if err := w.client.Get(ctx, child.lease, &lease); client.IgnoreNotFound(err) != nil {
			return fmt.Sprintf("the control plane does not answer: %v", err)
		}
		if !heard(state.Children[child.name], lease.Spec.RenewTime) {
			return "waiting for the " + child.name
		}
	}
	return ""
}

// heard says whether a child runs and has renewed its Lease since it was started.
func heard(c ChildState, renewed *metav1.MicroTime) bool {
	return c.Running && renewed != nil && !renewed.Time.Before(c.StartedAt.Truncate(time.Microsecond))
}

// serves asks Kafka itself: after a reboot the API still says what was true before it. It
// returns what is waited for. At a listener that wants to know its clients nothing can be asked,
// so one that accepts connections serves; neither where a certificate is the user's own, with names of its own.
func (w *waiter) serves(ctx context.Context, c *api.KafkaCluster) string {
	for _, l := range c.Status.Listeners {
		if !open(c, l.Name) {
			if err := kafka.Reach(ctx, kafka.ClientConfig{Brokers: strings.Split(l.BootstrapServers, ",")}); err != nil {
				return fmt.Sprintf("Kafka does not answer yet: %v", err)
			}
			continue
		}
		config, err := w.clientConfig(ctx, c.Namespace, l)
		if err != nil {
			return err.Error()
		}
		kc, err := kafka.Dial(ctx, config)
		if err != nil {
			return fmt.Sprintf("Kafka does not answer yet: %v", err)
		}
		topics, err := kc.Topics(ctx)
		kc.Close()
		if err != nil {
			return fmt.Sprintf("Kafka does not answer yet: %v", err)
		}
		for _, t := range topics {
			if t.Offline > 0 {
				return fmt.Sprintf("topic %s has %d partitions without a leader", t.Name, t.Offline)
			}
		}
	}
	return ""
}

// open says whether anybody may ask through a listener that dials the address which it shows.
func open(c *api.KafkaCluster, listener string) bool {
	own := slices.ContainsFunc(c.Spec.Listeners, func(l api.Listener) bool { return l.Name == listener && l.TLS != nil && l.TLS.SecretRef != nil })
	return !own && c.Spec.Authentication(listener) == api.AuthenticationNone
}

func (w *waiter) clientConfig(ctx context.Context, namespace string, l api.ListenerStatus) (kafka.ClientConfig, error) {
	config := kafka.ClientConfig{Brokers: strings.Split(l.BootstrapServers, ","), ID: userManager}
	if l.CASecretRef == nil {
		return config, nil
	}
	var secret corev1.Secret
	if err := w.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: l.CASecretRef.Name}, &secret); err != nil {
		return config, fmt.Errorf("read the cluster's CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(secret.Data[pki.KeyCACert]) {
		return config, fmt.Errorf("secret %s holds no CA", secret.Name)
	}
	config.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return config, nil
}

// blocked fails when the same thing has blocked the cluster for long enough.
func (w *waiter) blocked(c *api.KafkaCluster) error {
	stalled := conditionNow(c, api.ConditionStalled, metav1.ConditionTrue)
	if stalled == nil {
		return nil // a process that ends again and again is not blocked while it starts
	}
	if stalled.Message != w.stalled || time.Since(w.seen) > patience {
		w.stalled, w.since, w.told = stalled.Message, time.Now(), false
	}
	w.seen = time.Now()
	if !w.told && time.Since(w.since) > passing {
		w.told = true
		w.Progress.Done("KafkaCluster %s is blocked: %s", w.key, stalled.Message)
	}
	if time.Since(w.since) < patience {
		return nil
	}
	return fmt.Errorf("KafkaCluster %s is blocked: %s; it goes on by itself when that is mended (`castellan status`)", w.key, stalled.Message)
}

func (w *waiter) childTrouble() error {
	state, alive := readState(w.Dir)
	if !alive {
		return errors.New("the server has ended; its log is " + w.Dir.Log(ServerCommand) + "; run `castellan up` again")
	}
	for _, name := range state.childNames() {
		if c := state.Children[name]; c.Exits >= tooOften && !c.Running {
			return fmt.Errorf("the %s ends again and again: %s (log: %s)", name, c.LastExit, w.Dir.Log(name))
		}
	}
	return nil
}

// conditionNow returns a condition that speaks of the newest generation and has that status.
func conditionNow(c *api.KafkaCluster, kind string, status metav1.ConditionStatus) *metav1.Condition {
	condition := meta.FindStatusCondition(c.Status.Conditions, kind)
	if condition == nil || condition.Status != status || condition.ObservedGeneration != c.Generation {
		return nil
	}
	return condition
}

// describe says in a line what a cluster does and how its nodes are.
func describe(c *api.KafkaCluster, nodes []api.KafkaNode) string {
	var parts []string
	switch reconciling := meta.FindStatusCondition(c.Status.Conditions, api.ConditionReconciling); {
	case len(c.Status.Conditions) == 0:
		parts = append(parts, "waiting for the operator")
	case reconciling != nil && reconciling.Status == metav1.ConditionTrue && reconciling.Message != "":
		parts = append(parts, reconciling.Message)
	case c.Status.Doing != "":
		parts = append(parts, c.Status.Doing)
	}
	var waiting []string
	ready := 0
	slices.SortFunc(nodes, func(a, b api.KafkaNode) int { return cmp.Compare(a.Spec.NodeID, b.Spec.NodeID) })
	for _, n := range nodes {
		if n.Spec.ClusterName != c.Name {
			continue
		}
		if n.Status.Ready {
			ready++
			continue
		}
		waiting = append(waiting, describeNode(n))
	}
	if ready+len(waiting) > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d nodes ready", ready, ready+len(waiting)))
	}
	parts = append(parts, waiting...)
	if len(parts) == 0 {
		return "waiting"
	}
	return strings.Join(parts, "; ")
}

func describeNode(n api.KafkaNode) string {
	text := fmt.Sprintf("node %d %s", n.Spec.NodeID, cmp.Or(string(n.Status.State), "Pending"))
	if n.Status.Reason != "" {
		text += " (" + n.Status.Reason + ")"
	}
	return text
}
