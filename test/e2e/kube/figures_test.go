package kube

import (
	"slices"
	"testing"
	"time"

	"castellan.dev/castellan/test/e2e/kube/stand"
	hosts "castellan.dev/castellan/test/e2e/stand"
)

// readyBound is how many times as long as bare Kafka a cluster may take. A benchmark fails where a fact is wrong and
// prints where a time is: that depends on the machine.
const readyBound = 2.0

// BenchmarkKubeReady measures apply to Ready of three combined nodes beside three bare JVMs that form the same cluster on the
// same machine, in turn.
func BenchmarkKubeReady(b *testing.B) {
	k := shared.For(b)
	k.Operator()
	var ratios []float64
	for b.Loop() {
		alone := hosts.New(b, hosts.Options{Down: true}).KafkaAlone(stand.Version, 3)
		const namespace = "kube-figures"
		k.Namespace(namespace)
		c := &stand.Cluster{Kubernetes: k, Namespace: namespace, Name: "orders"}
		began := time.Now()
		c.Apply(stand.Small(namespace, 3))
		c.WaitReady()
		took := time.Since(began)
		ratios = append(ratios, took.Seconds()/alone.Seconds())
		b.Logf("3 nodes: Kafka alone %.1f s, apply to Ready %.1f s, ratio %.2f (goal %.1f)", alone.Seconds(), took.Seconds(), ratios[len(ratios)-1], readyBound)
	}
	b.ReportMetric(slices.Max(ratios), "ready/alone")
}
