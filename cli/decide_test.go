package cli_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/cli"
	"castellan.dev/castellan/controlplanetest"
)

const revisedCluster = `
apiVersion: castellan.dev/v1alpha1
kind: KafkaCluster
metadata: {name: orders, namespace: default}
spec: {version: %s, pools: [{name: nodes, roles: [broker, controller], replicas: 2}]}
status: {doing: %s}
`

const earlierRevision = `
apiVersion: castellan.dev/v1alpha1
kind: ClusterRevision
metadata: {name: orders-1, namespace: default}
spec:
  clusterName: orders
  number: 1
  generation: 1
  digest: sha256:1
  cluster: {version: 4.2.1, pools: [{name: nodes, roles: [broker, controller], replicas: 2}]}
`

// What somebody else writes between looking and deciding is neither lost nor overwritten.
func TestDecisionsOfSeveral(t *testing.T) {
	config := controlplanetest.Start(t)
	kubeconfig := writeKubeconfig(t, config)
	objects := controlplanetest.Client(t, config)
	now := func(text string) {
		t.Helper()
		if err := given(t.Context(), objects, text); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string, o client.Object) {
		t.Helper()
		if err := objects.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: name}, o); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("all who ignore a node at once are heard", func(t *testing.T) {
		now(operationText("busy", "Running", 0, "Failed", "Failed", "Failed", "Failed"))
		var commands []*command
		for id := range 4 {
			c := newCommand(kubeconfig, nil, nil, "ignore", "busy", "--node", fmt.Sprint(id))
			c.start(t.Context())
			commands = append(commands, c)
		}
		for _, c := range commands {
			c.ended(t, cli.ExitOK)
		}
		var op api.Operation
		read("busy", &op)
		ignored := slices.Sorted(slices.Values(op.Spec.IgnoredNodes))
		if !slices.Equal(ignored, []int32{0, 1, 2, 3}) {
			t.Errorf("ignored %v", ignored)
		}
	})

	back := func(t *testing.T, between func(), code int) *command {
		t.Helper()
		now(fmt.Sprintf(revisedCluster, "4.3.1", "nothing"))
		in, answer := io.Pipe()
		c := newCommand(kubeconfig, in, nil, "rollback", "orders", "--to", "1")
		c.start(t.Context())
		c.out.await(t, "Go back to it? [y/N]")
		between()
		if _, err := answer.Write([]byte("y\n")); err != nil {
			t.Fatal(err)
		}
		c.ended(t, code)
		return c
	}
	now(earlierRevision)
	t.Run("a rollback minds no new status", func(t *testing.T) {
		back(t, func() { now(fmt.Sprintf(revisedCluster, "4.3.1", "something")) }, cli.ExitOK)
		var kc api.KafkaCluster
		if read("orders", &kc); kc.Spec.Version != "4.2.1" || kc.Annotations["castellan.dev/rolled-back-to"] != "1" || kc.Status.Doing != "something" {
			t.Errorf("version %s, annotations %v, doing %s", kc.Spec.Version, kc.Annotations, kc.Status.Doing)
		}
	})
	t.Run("a rollback overwrites no new spec", func(t *testing.T) {
		c := back(t, func() { now(fmt.Sprintf(revisedCluster, "4.3.0", "nothing")) }, cli.ExitFailure)
		c.err.await(t, "somebody changed the spec meanwhile")
		var kc api.KafkaCluster
		if read("orders", &kc); kc.Spec.Version != "4.3.0" {
			t.Errorf("version %s", kc.Spec.Version)
		}
	})
	t.Run("Ctrl-C at the question changes nothing", func(t *testing.T) {
		now(fmt.Sprintf(revisedCluster, "4.3.1", "nothing"))
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		in, answer := io.Pipe()
		defer func() { _ = answer.Close() }()
		c := newCommand(kubeconfig, in, nil, "rollback", "orders", "--to", "1")
		c.start(ctx)
		c.out.await(t, "Go back to it? [y/N]")
		interrupt()
		c.ended(t, cli.ExitInterrupted)
		var kc api.KafkaCluster
		if read("orders", &kc); kc.Spec.Version != "4.3.1" {
			t.Errorf("version %s", kc.Spec.Version)
		}
	})

	t.Run("a restart that is waited for", func(t *testing.T) {
		c := newCommand(kubeconfig, nil, nil, "restart", "orders", "--wait")
		c.start(t.Context())
		c.out.await(t, "Restart of cluster orders")
		var ops api.OperationList
		if err := objects.List(t.Context(), &ops, client.MatchingLabels{"castellan.dev/cluster": "orders"}); err != nil || len(ops.Items) != 1 {
			t.Fatalf("%d operations, %v", len(ops.Items), err)
		}
		now(operationText(ops.Items[0].Name, "Succeeded", 2, "Succeeded", "Succeeded"))
		c.ended(t, cli.ExitOK)
	})
}
