package kube

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	corekube "castellan.dev/castellan/core/kube"
)

// settledFor is how long a node is believed to be settled without comparing its objects
// again. Any change of them is seen at once; this bounds what a resourceVersion cannot tell,
// as after etcd was restored from a backup.
const settledFor = 10 * time.Minute

// digest stands for all that the cache shows of a node: what must be done about the node,
// and whether it is done, follows from it alone.
type digest [sha256.Size]byte

// verdict is what a look at a node found out; each is remembered by itself.
type verdict uint8

const (
	idle   verdict = 1 << iota // Apply has nothing to do
	done                       // all that its generation asks for was handed over
	undone                     // not all of it was
)

// settled remembers what was found out of nodes as long as nothing about them changes:
// comparing every object with what is wanted is the dearest part of a look at one. It is
// safe for concurrent use.
type settled struct {
	mu    sync.Mutex
	nodes map[types.NamespacedName]settledNode
	swept time.Time
}

type settledNode struct {
	of       digest
	verdicts verdict
	until    time.Time
}

func newSettled() *settled {
	return &settled{nodes: map[types.NamespacedName]settledNode{}}
}

// is says whether v was found out of the node when the cache showed the same.
func (s *settled) is(node types.NamespacedName, of digest, v verdict) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.nodes[node]
	return ok && known.of == of && known.verdicts&v != 0 && time.Now().Before(known.until)
}

// note remembers v. Nodes that nobody asks for any more are forgotten in time.
func (s *settled) note(node types.NamespacedName, of digest, v verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	known, ok := s.nodes[node]
	if !ok || known.of != of || !now.Before(known.until) {
		known = settledNode{of: of, until: now.Add(settledFor)}
	}
	known.verdicts |= v
	s.nodes[node] = known
	if now.Sub(s.swept) < settledFor {
		return
	}
	s.swept = now
	for name, other := range s.nodes {
		if !now.Before(other.until) {
			delete(s.nodes, name)
		}
	}
}

func (s *settled) forget(node types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.nodes, node)
}

// digest of all that was found of a node, objects by their resourceVersion. A machine has
// another one with each heartbeat, so what is told of it is there instead.
func (f *found) digest(node *api.KafkaNode) digest {
	facts := []string{
		fmt.Sprintf("%d %t %d %s", node.Generation, f.MachinesKnown, f.extras, corekube.PlacementText(corekube.PlacementOf(f.Pod, f.Machines))),
		version(node),
	}
	if f.StatefulSet != nil {
		facts = append(facts, version(f.StatefulSet))
	}
	if f.Pod != nil {
		facts = append(facts, version(f.Pod))
	}
	if f.secret != nil {
		facts = append(facts, version(f.secret))
	}
	for _, claim := range f.Claims {
		if claim != nil {
			facts = append(facts, version(claim))
		}
	}
	for i := range f.Services {
		facts = append(facts, version(&f.Services[i]))
	}
	for i := range f.maps {
		facts = append(facts, version(&f.maps[i]))
	}
	slices.Sort(facts) // a cache lists in any order
	return sha256.Sum256([]byte(strings.Join(facts, "\n")))
}

// version names one state of one object.
func version(o client.Object) string {
	return fmt.Sprintf("%T %s %s %s", o, o.GetName(), o.GetUID(), o.GetResourceVersion())
}
