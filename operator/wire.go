package operator

import (
	"context"
	"errors"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/engine"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/packages"
	"castellan.dev/castellan/pki"
	hostsub "castellan.dev/castellan/substrate/host"
)

// setup adds to the manager what the operator does.
func setup(mgr ctrl.Manager, c Config, clients *kafka.Clients) error {
	realizer := hostsub.New(mgr.GetClient(), mgr.GetAPIReader())
	w := wire(mgr.GetClient(), mgr.GetAPIReader(), realizer, clients)
	recorder := mgr.GetEventRecorder("castellan-operator")
	errs := []error{
		(&clusterReconciler{client: mgr.GetClient(), live: mgr.GetAPIReader(), engine: w.engine, clients: clients, events: recorder, log: c.Log}).setup(mgr),
		(&nodeReconciler{client: mgr.GetClient(), hosts: realizer, log: c.Log}).setup(mgr),
	}
	var known func(context.Context) ([]api.Package, error)
	if c.serves(SubstrateHost) {
		errs = append(errs, (&packageReconciler{client: mgr.GetClient(), store: &packages.Store{Dir: c.PackagesDir}, log: c.Log}).setup(mgr))
		// Past the cache: a Package may stand in the same file, just before its cluster.
		known = catalogPort{client: mgr.GetAPIReader(), hosts: realizer}.Packages
	}
	var rights *RightsCheck
	if c.serves(SubstrateKubernetes) {
		rights = newRightsCheck(mgr.GetClient(), c)
		errs = append(errs, mgr.Add(&rightsReporter{client: mgr.GetClient(), live: mgr.GetAPIReader(), rights: rights, namespaces: c.namespaces(), log: c.Log}))
	}
	return errors.Join(append(errs, addProbes(mgr), addAdmission(mgr, c, rights, w.revisions, known))...)
}

// wired is an engine with its ports.
type wired struct {
	engine    *engine.Engine
	revisions revisionsPort
	catalog   catalogPort
}

func wire(c client.Client, live client.Reader, realizer *hostsub.Realizer, clients *kafka.Clients) wired {
	store := pki.Store{Client: c}
	w := wired{
		revisions: revisionsPort{client: c, live: live},
		catalog:   catalogPort{client: c, hosts: realizer},
	}
	w.engine = &engine.Engine{
		Kafka:     kafkaPort{clients: clients, pki: store},
		Nodes:     nodesPort{client: c, live: live, hosts: realizer, seen: newSeenNodes()},
		Catalog:   w.catalog,
		Revisions: w.revisions, Certificates: certificatesPort{pki: store},
		Fresh: randomIDs, Now: time.Now, CASecret: pki.TrustSecretName,
	}
	return w
}
