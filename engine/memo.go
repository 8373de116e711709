package engine

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
)

// memos are what plans hand to the next pass over the same KafkaCluster. They only save
// work: an engine that has none decides the same.
type memos struct {
	mu sync.Mutex
	of map[types.NamespacedName]memo
}

// memo is of one very cluster: another one of its name has nothing to do with it.
type memo struct {
	uid  types.UID
	plan *plan.Memo
}

func (m *memos) recall(kc *api.KafkaCluster) *plan.Memo {
	m.mu.Lock()
	defer m.mu.Unlock()
	if kept := m.of[clusterKey(kc)]; kept.uid == kc.UID {
		return kept.plan
	}
	return nil
}

// keep replaces what is kept of a cluster; nil is nothing.
func (m *memos) keep(kc *api.KafkaCluster, p *plan.Memo) {
	if p == nil {
		m.forget(clusterKey(kc))
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = map[types.NamespacedName]memo{}
	}
	m.of[clusterKey(kc)] = memo{uid: kc.UID, plan: p}
}

func (m *memos) forget(cluster types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.of, cluster)
}

func clusterKey(kc *api.KafkaCluster) types.NamespacedName {
	return types.NamespacedName{Namespace: kc.Namespace, Name: kc.Name}
}

// Forget drops what is kept of a cluster, because it is gone.
func (e *Engine) Forget(cluster types.NamespacedName) { e.memos.forget(cluster) }
