package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/engine"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/packages"
	"castellan.dev/castellan/pki"
	"castellan.dev/castellan/pki/secrets"
	hostsub "castellan.dev/castellan/substrate/host"
	kubesub "castellan.dev/castellan/substrate/kube"
)

// setup adds to the manager what the operator does.
func setup(ctx context.Context, mgr ctrl.Manager, c Config, clients *kafka.Clients) error {
	cached, live := mgr.GetClient(), mgr.GetAPIReader()
	nodes := &nodeReconciler{client: cached, log: c.Log}
	recorder := mgr.GetEventRecorder("castellan-operator")
	var known func(context.Context) ([]api.Package, error)
	var errs []error
	if c.serves(SubstrateHost) {
		nodes.on.hosts = hostsub.New(cached, live)
		errs = append(errs, (&packageReconciler{client: cached, store: &packages.Store{Dir: c.PackagesDir}, log: c.Log}).setup(mgr))
		// Past the cache: a Package may stand in the same file, just before its cluster.
		known = catalogPort{client: live, hosts: nodes.on.hosts}.Packages
	}
	var rights *RightsCheck
	var held *bindings
	if c.serves(SubstrateKubernetes) {
		nodes.reports = make(chan event.TypedGenericEvent[types.NamespacedName], 1024)
		reports := kubesub.NewReports(secrets.Store{Client: cached}.OperatorConfig, c.Dial, nodes.reported)
		errs = append(errs, mgr.Add(reports), kubesub.Index(ctx, mgr.GetFieldIndexer()))
		nodes.on.pods = kubesub.New(ownOnly(cached), live, reports)
		if err := look(ctx, live, nodes.on.pods); err != nil {
			return err
		}
		rights = newRightsCheck(cached, c)
		errs = append(errs, mgr.Add(&rightsReporter{client: cached, live: live, rights: rights, namespaces: c.namespaces(), events: recorder, log: c.Log}))
		held = newBindings(cached, live, c)
		errs = append(errs, mgr.Add(held))
	}
	w := wire(cached, live, nodes.on, clients, c.Dial)
	w.engine.Supervisor = c.SupervisorImage
	errs = append(errs,
		(&clusterReconciler{client: cached, engine: w.engine, ops: w.operations, clients: clients, events: recorder, rights: rights, held: held, on: nodes.on, log: c.Log}).setup(mgr),
		nodes.setup(mgr),
	)
	errs = append(errs, addEntities(mgr, c, w, recorder, held))
	return errors.Join(append(errs, addProbes(mgr), addAdmission(ctx, mgr, c, rights, w.revisions, known))...)
}

// wired is an engine with its ports.
type wired struct {
	engine     *engine.Engine
	revisions  revisionsPort
	operations operationsPort
	catalog    catalogPort
	nodes      nodesPort
	kafka      kafkaPort
}

func wire(c client.Client, live client.Reader, on substrates, clients *kafka.Clients, dial kafka.DialFunc) wired {
	store := secrets.Store{Client: c, Named: live}
	w := wired{
		revisions:  revisionsPort{client: c, live: live},
		operations: operationsPort{client: c, live: live},
		catalog:    catalogPort{client: c, hosts: on.hosts},
		nodes:      nodesPort{client: c, live: live, on: on, seen: newSeenNodes()},
		kafka:      kafkaPort{clients: clients, pki: store},
	}
	w.engine = &engine.Engine{
		Kafka:     w.kafka,
		Nodes:     w.nodes,
		Catalog:   w.catalog,
		Revisions: w.revisions, Operations: w.operations, Certificates: certificatesPort{pki: store, pods: on.pods, dial: dial, sights: newSights()},
		Shared: sharedPort{on.pods}, Reread: reread(live),
		Fresh: randomIDs, Now: time.Now, CASecret: pki.TrustSecretName,
	}
	return w
}

// reread reads a KafkaCluster past the cache.
func reread(live client.Reader) func(context.Context, *api.KafkaCluster) (*api.KafkaCluster, error) {
	return func(ctx context.Context, kc *api.KafkaCluster) (*api.KafkaCluster, error) {
		fresh := &api.KafkaCluster{}
		err := live.Get(ctx, client.ObjectKeyFromObject(kc), fresh)
		if apierrors.IsNotFound(err) {
			return nil, nil //nolint:nilnil // there is none, says the contract
		}
		return fresh, err
	}
}

// lookTimeout bounds the two requests that try what may be read.
const lookTimeout = 30 * time.Second

// look finds out what the operator may read beside the clusters' own namespaces. What it may
// not is named by the check of rights.
func look(ctx context.Context, live client.Reader, pods *kubesub.Realizer) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	sight, _, err := kubesub.Look(ctx, live)
	if err != nil {
		return fmt.Errorf("look at what may be read: %w", err)
	}
	pods.SetSight(sight)
	return nil
}
