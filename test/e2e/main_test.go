// Package e2e tells stories on real Kafka: everything that a user does through bin/castellan, with the processes of one
// machine, and what must hold whatever is killed. A cluster costs half a minute, so one test tells all stories that can
// share one. Nothing here runs in parallel.
package e2e

import (
	"os"
	"testing"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard()) // else it complains that it has none
	os.Exit(m.Run())
}
