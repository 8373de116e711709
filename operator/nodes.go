package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/engine"
	hostsub "castellan.dev/castellan/substrate/host"
)

const (
	// nodeFinalizer keeps a KafkaNode until its process has stopped and its claims are free.
	nodeFinalizer = "castellan.dev/node"
	// removeData on a KafkaNode says that its volumes go with it (deletionPolicy: Delete).
	removeData = "castellan.dev/remove-data"
)

// replaceVolumes on a KafkaNode is a user's word that its volumes are lost for good; another
// value is another request.
const replaceVolumes = "castellan.dev/replace-volumes"

// nodesPort reads and writes KafkaNodes and takes their facts from their substrates.
type nodesPort struct {
	client client.Client
	live   client.Reader
	on     substrates
	seen   *seenNodes
}

// seenNodes are the generations (a spec has one, a status has none) of the KafkaNodes that
// a pass read. A write rests on what was read: an operator that was held up while another
// one took over must not take back what that one did since.
type seenNodes struct {
	mu          sync.Mutex
	generations map[client.ObjectKey]map[string]int64 // by cluster and name
}

func newSeenNodes() *seenNodes {
	return &seenNodes{generations: map[client.ObjectKey]map[string]int64{}}
}

func (s *seenNodes) read(cluster client.ObjectKey, nodes []api.KafkaNode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generations[cluster] = make(map[string]int64, len(nodes))
	for i := range nodes {
		s.generations[cluster][nodes[i].Name] = nodes[i].Generation
	}
}

func (s *seenNodes) wrote(cluster client.ObjectKey, node *api.KafkaNode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.generations[cluster] == nil {
		s.generations[cluster] = map[string]int64{}
	}
	s.generations[cluster][node.Name] = node.Generation
}

// changed says what happened to a node since it was read; generation is 0 when it does not
// exist now.
func (s *seenNodes) changed(cluster client.ObjectKey, name string, generation int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch was := s.generations[cluster][name]; {
	case was == generation:
		return nil
	case was == 0:
		return fmt.Errorf("it exists, but without the label %s=%s that makes it one of the cluster's nodes: put the label back", LabelCluster, cluster.Name)
	case generation == 0:
		return errors.New("it was deleted since this pass read it; the next pass looks again")
	default:
		return errors.New("its spec changed since this pass read it; the next pass looks again")
	}
}

func nodeName(cluster string, id int32) string { return fmt.Sprintf("%s-%d", cluster, id) }

// List implements engine.Nodes.
func (p nodesPort) List(ctx context.Context, of *api.KafkaCluster, how engine.Freshness) ([]plan.Node, error) {
	from := client.Reader(p.client)
	if how == engine.Fresh {
		from = p.live
	}
	var list api.KafkaNodeList
	if err := from.List(ctx, &list, client.InNamespace(of.Namespace), client.MatchingLabels{LabelCluster: of.Name}); err != nil {
		return nil, err
	}
	if how == engine.Fresh {
		p.seen.read(client.ObjectKeyFromObject(of), list.Items)
	}
	nodes := make([]plan.Node, len(list.Items))
	// Past the cache each costs requests, and what they find must not grow old meanwhile.
	const atOnce = 8
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i := range list.Items {
		group.Go(func() (err error) {
			nodes[i], err = p.observe(ctx, &list.Items[i], how)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(nodes, func(a, b plan.Node) int { return int(a.Spec.NodeID) - int(b.Spec.NodeID) })
	return nodes, nil
}

func (p nodesPort) observe(ctx context.Context, node *api.KafkaNode, how engine.Freshness) (plan.Node, error) {
	st, err := p.on.of(node).Status(ctx, *node, how)
	if err != nil {
		return plan.Node{}, fmt.Errorf("read the state of node %s: %w", node.Name, err)
	}
	rack := node.Spec.Rack
	if isPod(node) && st.Placement != nil {
		rack = st.Placement.Zone
	}
	return plan.Node{Spec: node.Spec, Status: st, Rack: rack, ReplaceAsked: node.Annotations[replaceVolumes]}, nil
}

// Write implements engine.Nodes.
func (p nodesPort) Write(ctx context.Context, of *api.KafkaCluster, spec *api.KafkaNodeSpec) error {
	node := &api.KafkaNode{ObjectMeta: metav1.ObjectMeta{Namespace: of.Namespace, Name: nodeName(of.Name, spec.NodeID)}}
	if spec.Host != "" {
		ports := slices.Sorted(maps.Values(spec.Ports))
		if err := p.on.hosts.Claim(ctx, spec.Host, ports, hostsub.Owner(*node)); err != nil {
			return err
		}
	}
	// Status writes of others move the object between our read and our write.
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error { return p.put(ctx, of, node, spec) })
	if err != nil {
		return fmt.Errorf("write KafkaNode %s: %w", node.Name, err)
	}
	return nil
}

func (p nodesPort) put(ctx context.Context, of *api.KafkaCluster, node *api.KafkaNode, spec *api.KafkaNodeSpec) error {
	err := p.live.Get(ctx, client.ObjectKeyFromObject(node), node)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read it: %w", err)
	}
	create := apierrors.IsNotFound(err)
	if create {
		node.Generation = 0
	}
	cluster := client.ObjectKeyFromObject(of)
	if err := p.seen.changed(cluster, node.Name, node.Generation); err != nil {
		return err
	}
	if node.Labels == nil {
		node.Labels = map[string]string{}
	}
	node.Labels[LabelCluster] = of.Name
	controllerutil.AddFinalizer(node, nodeFinalizer)
	node.Spec = *spec
	if create {
		err = p.client.Create(ctx, node, fieldOwner)
	} else {
		err = p.client.Update(ctx, node, fieldOwner)
	}
	if err == nil {
		p.seen.wrote(cluster, node)
	}
	return err
}

// Delete implements engine.Nodes.
func (p nodesPort) Delete(ctx context.Context, of *api.KafkaCluster, id int32, withData bool) error {
	node := &api.KafkaNode{}
	key := client.ObjectKey{Namespace: of.Namespace, Name: nodeName(of.Name, id)}
	if err := p.live.Get(ctx, key, node); err != nil {
		return client.IgnoreNotFound(err)
	}
	if withData != (node.Annotations[removeData] == "true") {
		before := node.DeepCopy()
		delete(node.Annotations, removeData) // also when the user has thought better of it
		if withData {
			metav1.SetMetaDataAnnotation(&node.ObjectMeta, removeData, "true")
		}
		if err := p.client.Patch(ctx, node, client.MergeFrom(before), fieldOwner); err != nil {
			return fmt.Errorf("mark the data of KafkaNode %s, which is to be kept or not: %w", node.Name, err)
		}
	}
	if node.DeletionTimestamp != nil {
		return nil
	}
	return client.IgnoreNotFound(p.client.Delete(ctx, node))
}

// catalogPort reads Packages and Hosts.
type catalogPort struct {
	client client.Reader
	hosts  *hostsub.Realizer
}

// Packages implements engine.Catalog.
func (p catalogPort) Packages(ctx context.Context) ([]api.Package, error) {
	if p.hosts == nil {
		return nil, nil // no host is served, so nothing runs a Package
	}
	var list api.PackageList
	err := p.client.List(ctx, &list)
	return list.Items, err
}

// Hosts implements engine.Catalog.
func (p catalogPort) Hosts(ctx context.Context) ([]plan.Host, []api.Host, error) {
	if p.hosts == nil {
		return nil, nil, nil
	}
	var list api.HostList
	if err := p.client.List(ctx, &list); err != nil {
		return nil, nil, err
	}
	hosts := make([]plan.Host, 0, len(list.Items))
	for _, h := range list.Items {
		host, err := p.host(ctx, h)
		if err != nil {
			return nil, nil, err
		}
		hosts = append(hosts, host)
	}
	slices.SortFunc(hosts, func(a, b plan.Host) int { return cmp.Compare(a.Name, b.Name) })
	return hosts, list.Items, nil
}

func (p catalogPort) host(ctx context.Context, h api.Host) (plan.Host, error) {
	alive, _, err := p.hosts.Alive(ctx, h.Name)
	if err != nil {
		return plan.Host{}, err
	}
	claims, err := p.hosts.Claimed(ctx, h.Name)
	if err != nil {
		return plan.Host{}, err
	}
	host := plan.Host{Name: h.Name, Spec: h.Spec, Labels: h.Labels, Reachable: alive, Claimed: make(map[int32]string, len(claims))}
	owners := map[api.OwnerRef]bool{}
	for port, owner := range claims {
		host.Claimed[port] = owner.Namespace + "/" + owner.Name
		owners[owner] = true
	}
	host.Nodes = len(owners)
	return host, nil
}

// same says whether two objects are equal as they would be stored.
func same(a, b client.Object) bool { return equality.Semantic.DeepEqual(a, b) }
