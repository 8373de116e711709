package stand

import (
	"context"
	"strings"
)

// Dump shows what a person needs to understand a failed test of a namespace.
func (k *Kubernetes) Dump(namespace string) {
	k.tb.Helper()
	k.dumped[namespace] = true
	for _, args := range [][]string{
		{"get", "kafkaclusters", "-o", `jsonpath={range .items[*]}{.metadata.name}{"\n"}{range .status.conditions[*]}  {.type}={.status} {.reason}: {.message}{"\n"}{end}{end}`},
		{"get", "kafkanodes", "-o", "wide"},
		{"get", "pods,statefulsets,pvc,poddisruptionbudgets,services", "-o", "wide"},
		{"get", "events", "--sort-by=.lastTimestamp"},
	} {
		k.show(60, append(args, "-n", namespace)...)
	}
	k.show(20, "get", "nodes", "-o", "wide")
	k.show(20, "get", "pods", "-n", OperatorNamespace, "-o", "wide")
	k.show(120, "logs", "-n", OperatorNamespace, "-l", operatorSelector, "--all-containers", "--tail=60", "--prefix")
	pods := k.kubectl(context.Background(), "", "get", "pods", "-n", namespace, "-o", "name")
	for pod := range strings.FieldsSeq(pods.Stdout) {
		k.show(60, "logs", "-n", namespace, pod, "--all-containers", "--tail=50")
	}
}

// show runs kubectl not in the test's context, which may have ended.
func (k *Kubernetes) show(lines int, args ...string) {
	k.tb.Helper()
	out := k.kubectl(context.Background(), "", args...)
	k.tb.Logf("kubectl %s\n%s\n%s", strings.Join(args, " "), tail(out.Stdout, lines), tail(out.Stderr, 5))
}
