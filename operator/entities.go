package operator

import (
	"context"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/engine"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/operator/entities"
)

// addEntities keeps the topics and users of every cluster.
func addEntities(mgr ctrl.Manager, c Config, w wired, recorder events.EventRecorder, held *bindings) error {
	// The limit that the operator's other requests share would hold back thousands of objects that come at once.
	unpaced := rest.CopyConfig(mgr.GetConfig())
	unpaced.QPS = -1
	writer, err := client.New(unpaced, client.Options{Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), HTTPClient: mgr.GetHTTPClient()})
	if err != nil {
		return fmt.Errorf("reach the API server: %w", err)
	}
	config := entities.Config{
		Client: mgr.GetClient(), Writer: writer, Live: mgr.GetAPIReader(), Cache: mgr.GetCache(),
		Reach: w.reach, Certificates: w.kafka.pki, Events: recorder, Log: c.Log, Now: c.Now,
		Hold: held.hold, Release: held.release,
	}
	if !c.serves(SubstrateHost) {
		// The cache has only Secrets of ours there, and a password may be given in another one.
		foreign, err := c.secretNames(mgr)
		if err != nil {
			return err
		}
		config.Foreign = foreign
		if err := mgr.Add(foreign); err != nil {
			return err
		}
	}
	return mgr.Add(entities.New(config))
}

// secretNames watches the metadata of all Secrets, of which it keeps name and version.
func (c Config) secretNames(mgr ctrl.Manager) (cache.Cache, error) { //nolint:ireturn // it is what controller-runtime has
	o := cache.Options{Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), HTTPClient: mgr.GetHTTPClient(), DefaultTransform: leanMetadata}
	if len(c.WatchNamespaces) > 0 {
		o.DefaultNamespaces = map[string]cache.Config{}
		for _, n := range c.WatchNamespaces {
			o.DefaultNamespaces[n] = cache.Config{}
		}
	}
	found, err := cache.New(mgr.GetConfig(), o)
	if err != nil {
		return nil, fmt.Errorf("watch the names of Secrets: %w", err)
	}
	return found, nil
}

func leanMetadata(in any) (any, error) {
	m, ok := in.(*metav1.PartialObjectMetadata)
	if !ok {
		return in, nil
	}
	return &metav1.PartialObjectMetadata{TypeMeta: m.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion, OwnerReferences: m.OwnerReferences,
	}}, nil
}

// reach is the way to the Kafka of a cluster that runs.
func (w wired) reach(ctx context.Context, kc *api.KafkaCluster) (*kafka.Cluster, error) {
	if kc.Spec.State == api.StateStopped {
		return nil, errors.New("the cluster is stopped (spec.state)")
	}
	nodes, err := w.nodes.List(ctx, kc, engine.Cached)
	if err != nil {
		return nil, fmt.Errorf("list the nodes of KafkaCluster %s: %w", client.ObjectKeyFromObject(kc), err)
	}
	at := engine.EndpointsOf(nodes)
	if len(at.Brokers) == 0 || at.ClusterID == "" {
		return nil, errors.New("no broker of the cluster runs yet")
	}
	return w.kafka.cluster(ctx, kc, at)
}
