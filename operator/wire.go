package operator

import (
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"castellan.dev/castellan/engine"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/pki"
	hostsub "castellan.dev/castellan/substrate/host"
)

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
