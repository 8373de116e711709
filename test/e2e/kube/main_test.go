// Package kube tells stories on a real Kubernetes: everything that a user does with Helm, kubectl and castellan, with
// several machines, and what must hold whatever is deleted, drained or loses its power. A cluster costs a minute, so one
// test tells all stories that can share one. Nothing here runs in parallel.
//
// Tests that begin with TestKube are for every change, those with TestMore take longer.
package kube

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"castellan.dev/castellan/test/e2e/kube/stand"
)

// shared is the Kubernetes of all stories.
var shared stand.Shared

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard()) // else it complains that it has none
	code := m.Run()
	if err := shared.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// story is one of several on one cluster.
type story struct {
	name string
	tell func(*testing.T, *stand.Cluster)
}

// tell tells stories one after another. After one that fails the cluster is shown, and the others are told only if it is
// Ready again: else they would only say the same.
func tell(t *testing.T, c *stand.Cluster, stories ...story) {
	t.Helper()
	for _, s := range stories {
		if t.Run(s.name, func(t *testing.T) { s.tell(t, c.For(t)) }) {
			continue
		}
		c.For(t).Dump(c.Namespace)
		if err := c.For(t).Within(time.Minute, c.For(t).Ready()); err != nil {
			t.Logf("what follows %q is not told: %v", s.name, err)
			return
		}
	}
}
