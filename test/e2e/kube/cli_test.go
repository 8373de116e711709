package kube

import (
	"fmt"
	"strings"
	"testing"

	"castellan.dev/castellan/test/e2e/kube/stand"
)

// commandLine does with castellan alone what a user of the cluster wants, through the API server.
func commandLine(t *testing.T, c *stand.Cluster) {
	t.Helper()
	at := []string{"--context", c.Context(), "-n", c.Namespace}
	run := func(stdin string, args ...string) string {
		t.Helper()
		return must(t, c.CastellanIn(stdin, append(args, at...)...))
	}
	if status := run("", "status"); !strings.Contains(status, "orders") || !strings.Contains(status, "Ready") {
		t.Errorf("castellan status says %q", status)
	}
	run("", "topics", "create", "lines", "--partitions", "3")
	var lines strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&lines, "line %d\n", i)
	}
	run(lines.String(), "produce", "lines")
	read := strings.Split(strings.TrimSpace(run("", "consume", "lines", "--from", "beginning", "--until-end")), "\n")
	different := map[string]bool{}
	for _, line := range read {
		different[line] = true
	}
	if len(different) != 1000 {
		t.Errorf("%d different lines of 1000 came back", len(different))
	}
	if logs := run("", "logs", "orders/1", "--tail", "50"); !strings.Contains(logs, "INFO") {
		t.Errorf("castellan logs shows %q", logs)
	}
	k := c.Object()
	k.Spec.Config["queued.max.requests"] = "300"
	k.ManagedFields, k.ResourceVersion, k.UID = nil, "", ""
	k.APIVersion, k.Kind = "castellan.dev/v1alpha1", "KafkaCluster"
	plan := run(stand.YAML(t, k), "plan", "-f", "-")
	for id := range 3 {
		if step := fmt.Sprintf("UpdateProcess node %d\n     config queued.max.requests", id); !strings.Contains(plan, step) {
			t.Errorf("castellan plan does not say %q: %q", step, plan)
		}
	}
}
