package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/engine"
)

// validateOperation answers for one Operation that is to be made. What it would refuse does no
// harm where nobody asks it: a plan takes no notice of nodes and revisions that are not there.
func (w validator) validateOperation(ctx context.Context, req admission.Request) admission.Response {
	if req.Operation != admissionv1.Create {
		return admission.Allowed("")
	}
	op := &api.Operation{}
	if err := json.Unmarshal(req.Object.Raw, op); err != nil {
		return admission.Errored(http.StatusBadRequest, fmt.Errorf("read the Operation: %w", err))
	}
	op.Namespace = req.Namespace
	problems, err := w.operationProblems(ctx, op)
	if err != nil {
		w.log.WarnContext(ctx, "admission could not judge", slog.String("operation", op.Namespace+"/"+op.Name), slog.Any("error", err))
		return admission.Allowed("").WithWarnings("Castellan could not check this Operation now: " + err.Error() + "; see its status")
	}
	return answer("Operation", op.Name, problems)
}

// operationProblems looks past the cache: what an Operation names may have been made just now.
func (w validator) operationProblems(ctx context.Context, op *api.Operation) ([]cluster.Problem, error) {
	live := w.revisions.live
	kc := &api.KafkaCluster{}
	err := live.Get(ctx, client.ObjectKey{Namespace: op.Namespace, Name: op.Spec.ClusterRef.Name}, kc)
	if apierrors.IsNotFound(err) {
		var all api.KafkaClusterList
		if err := live.List(ctx, &all, client.InNamespace(op.Namespace)); err != nil {
			return nil, fmt.Errorf("list the KafkaClusters: %w", err)
		}
		var names []string
		for i := range all.Items {
			names = append(names, all.Items[i].Name)
		}
		return []cluster.Problem{problem("spec.clusterRef.name",
			fmt.Sprintf("there is no KafkaCluster %s in namespace %s", op.Spec.ClusterRef.Name, op.Namespace),
			remedy("there", names))}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read KafkaCluster %s: %w", op.Spec.ClusterRef.Name, err)
	}
	var nodes api.KafkaNodeList
	if err := live.List(ctx, &nodes, client.InNamespace(op.Namespace), client.MatchingLabels{LabelCluster: kc.Name}); err != nil {
		return nil, fmt.Errorf("list the KafkaNodes of %s: %w", kc.Name, err)
	}
	var ids, brokers []int32
	for i := range nodes.Items {
		ids = append(ids, nodes.Items[i].Spec.NodeID)
		if slices.Contains(nodes.Items[i].Spec.Roles, api.RoleBroker) {
			brokers = append(brokers, nodes.Items[i].Spec.NodeID)
		}
	}
	slices.Sort(ids)
	slices.Sort(brokers)
	revisions, err := w.revisions.List(ctx, kc, engine.Fresh)
	if err != nil {
		return nil, fmt.Errorf("list the ClusterRevisions of %s: %w", kc.Name, err)
	}
	if op.Spec.Type == api.OperationScale {
		return scaleProblems(op, kc, revisions), nil
	}
	return slices.Concat(nodeProblems(op, ids), brokerProblems(op, ids, brokers), revisionProblems(op, revisions)), nil
}

// scaleProblems refuses what a user makes: how many nodes there are is said in one place. What
// the engine makes belongs to the cluster from the start, and its nodes may not be there yet. What
// was cancelled may be taken up again.
func scaleProblems(op *api.Operation, kc *api.KafkaCluster, revisions []api.ClusterRevision) []cluster.Problem {
	if n := len(revisions); n > 0 && revisions[n-1].Name == op.Spec.ToRevision && revisions[n-1].Spec.Held != nil {
		return nil
	}
	if slices.ContainsFunc(op.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == kc.UID }) {
		return nil
	}
	return []cluster.Problem{problem("spec.type", "an Operation Scale is made by Castellan, when the nodes of a cluster change",
		fmt.Sprintf("change spec.pools[].replicas or spec.pools[].remove of KafkaCluster %s instead; one that was cancelled is taken up again by castellan retry", kc.Name))}
}

// brokerProblems are about nodes whose replicas are to move, or that are to get some.
func brokerProblems(op *api.Operation, ids, brokers []int32) []cluster.Problem {
	var problems []cluster.Problem
	there := remedy("its brokers", numbersText(brokers))
	switch op.Spec.Type {
	case api.OperationDrain:
		for i, id := range op.Spec.Nodes {
			if slices.Contains(ids, id) && !slices.Contains(brokers, id) {
				problems = append(problems, problem(fmt.Sprintf("spec.nodes[%d]", i), fmt.Sprintf("node %d of KafkaCluster %s is no broker, so it holds no replicas", id, op.Spec.ClusterRef.Name), there))
			}
		}
	case api.OperationRebalance:
		if len(op.Spec.Nodes) > 0 {
			problems = append(problems, problem("spec.nodes", "a Rebalance moves replicas between brokers, and changes no nodes", "leave it out, or name brokers in spec.rebalance.brokers"))
		}
		if op.Spec.Rebalance == nil {
			break // the schema refuses it
		}
		for i, id := range op.Spec.Rebalance.Brokers {
			if !slices.Contains(brokers, id) {
				problems = append(problems, problem(fmt.Sprintf("spec.rebalance.brokers[%d]", i), fmt.Sprintf("KafkaCluster %s has no broker %d", op.Spec.ClusterRef.Name, id), there))
			}
		}
	default:
	}
	return problems
}

func numbersText(ids []int32) []string {
	texts := make([]string, 0, len(ids))
	for _, id := range ids {
		texts = append(texts, fmt.Sprint(id))
	}
	return texts
}

func nodeProblems(op *api.Operation, ids []int32) []cluster.Problem {
	var problems []cluster.Problem
	known := func(path string, id int32) {
		if !slices.Contains(ids, id) {
			problems = append(problems, problem(path, fmt.Sprintf("KafkaCluster %s has no node %d", op.Spec.ClusterRef.Name, id), remedy("its nodes", numbersText(ids))))
		}
	}
	lists := []struct {
		path string
		ids  []int32
	}{{"spec.nodes", op.Spec.Nodes}, {"spec.ignoredNodes", op.Spec.IgnoredNodes}, {"spec.order", op.Spec.Order}}
	for _, l := range lists {
		for i, id := range l.ids {
			known(fmt.Sprintf("%s[%d]", l.path, i), id)
		}
	}
	for i, r := range op.Spec.Retry {
		known(fmt.Sprintf("spec.retry[%d].id", i), r.ID)
	}
	for i, id := range op.Spec.Order { // the others are sets in the schema already
		if first := slices.Index(op.Spec.Order, id); first < i {
			problems = append(problems, problem(fmt.Sprintf("spec.order[%d]", i), fmt.Sprintf("node %d comes at place %d already", id, first), "name each node once"))
		}
	}
	return problems
}

func revisionProblems(op *api.Operation, revisions []api.ClusterRevision) []cluster.Problem {
	const path = "spec.toRevision"
	to, stays := op.Spec.ToRevision, false
	switch op.Spec.Type {
	case api.OperationRestart, api.OperationDrain, api.OperationRebalance:
		stays = true
	default:
	}
	names := make([]string, 0, len(revisions))
	for i := range revisions {
		names = append(names, revisions[i].Name)
	}
	switch {
	case stays && to != "":
		return []cluster.Problem{problem(path, fmt.Sprintf("a %s leads to no revision", strings.ToLower(string(op.Spec.Type))), "leave toRevision out, or change the spec of the KafkaCluster")}
	case stays:
		return nil
	case to == "":
		return []cluster.Problem{problem(path, fmt.Sprintf("a %s needs the revision that nodes are brought to", op.Spec.Type), remedy("there", names))}
	case !slices.Contains(names, to):
		return []cluster.Problem{problem(path, fmt.Sprintf("KafkaCluster %s has no ClusterRevision %s", op.Spec.ClusterRef.Name, to), remedy("there", names))}
	case to != names[len(names)-1]:
		return []cluster.Problem{problem(path, fmt.Sprintf("ClusterRevision %s is not in force", to),
			fmt.Sprintf("name %s, or go back with castellan rollback", names[len(names)-1]))}
	default:
		return nil
	}
}

func problem(path, reason, remedy string) cluster.Problem {
	return cluster.Problem{Path: path, Severity: cluster.Error, Reason: reason, Remedy: remedy}
}

// remedy says what there is to choose from.
func remedy(what string, names []string) string {
	const most = 20
	switch {
	case len(names) == 0:
		return what + " are none"
	case len(names) > most:
		names = append(names[:most:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	return what + " are " + strings.Join(names, ", ")
}
