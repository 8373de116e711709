package entities

import (
	"cmp"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"

	api "castellan.dev/castellan/api/v1alpha1"
)

func limitsOf(q *api.Quota) Limits {
	if q == nil {
		return Limits{}
	}
	return Limits{
		ProducerByteRate: number(q.ProducerByteRate), ConsumerByteRate: number(q.ConsumerByteRate),
		RequestPercentage: number(q.RequestPercentage), ControllerMutationRate: number(q.ControllerMutationRate),
	}
}

func number(q *resource.Quantity) float64 {
	if q == nil {
		return 0
	}
	return q.AsApproximateFloat64()
}

// userQuotas are the limits that a spec wants, by client id.
func userQuotas(q *api.UserQuotas) map[Part]Limits {
	if q == nil {
		return nil
	}
	want := map[Part]Limits{}
	if l := limitsOf(&q.Quota); l != (Limits{}) {
		want[""] = l
	}
	for i := range q.Clients {
		if l := limitsOf(&q.Clients[i].Quota); l != (Limits{}) {
			want[Named(q.Clients[i].ClientID)] = l
		}
	}
	return want
}

func quotaActions(principal string, want, have map[Part]Limits) []Action {
	if len(want)+len(have) == 0 {
		return nil
	}
	var do []Action
	for _, id := range slices.Sorted(maps.Keys(union(want, have))) {
		if want[id] != have[id] {
			do = append(do, AlterQuota{Entity: QuotaEntity{User: Named(principal), ClientID: id}, From: have[id], To: want[id]})
		}
	}
	return do
}

// clusterQuotas bring about the quotas of no single user; the policy names all of them.
func (w *World) clusterQuotas() []Action {
	want := map[QuotaEntity]Limits{}
	for i := range w.policy.Quotas {
		q := &w.policy.Quotas[i]
		l := limitsOf(q.Limits)
		if q.ConnectionCreationRate != nil {
			l.ConnectionCreationRate = float64(*q.ConnectionCreationRate)
		}
		want[entityOf(q)] = l
	}
	all := slices.SortedFunc(maps.Keys(union(want, w.have.Quotas)), func(a, b QuotaEntity) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.ClientID, b.ClientID), cmp.Compare(a.Address, b.Address))
	})
	var do []Action
	for _, e := range all {
		if from, to := w.have.Quotas[e], want[e]; from != to {
			do = append(do, AlterQuota{Entity: e, From: from, To: to})
		}
	}
	return do
}

func entityOf(q *api.ClusterQuota) QuotaEntity {
	switch {
	case q.ClientID != "":
		return QuotaEntity{ClientID: Named(q.ClientID)}
	case q.Address != "":
		return QuotaEntity{Address: Named(q.Address)}
	case q.EveryClientID != nil:
		return QuotaEntity{ClientID: Every}
	case q.EveryAddress != nil:
		return QuotaEntity{Address: Every}
	default:
		return QuotaEntity{User: Every}
	}
}

func union[K comparable](a, b map[K]Limits) map[K]Limits {
	out := make(map[K]Limits, len(a)+len(b))
	maps.Copy(out, a)
	maps.Copy(out, b)
	return out
}
