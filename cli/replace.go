package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

// annotationReplace of a KafkaNode asks for fresh volumes. Each value is one request;
// spec.replaced is the last one that was granted.
const annotationReplace = "castellan.dev/replace-volumes"

func nodeCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Replace the volumes of a node",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddGroup(&cobra.Group{ID: groupKafka, Title: "Kafka:"})
	replace := replaceCommand(o)
	replace.GroupID = groupKafka
	cmd.AddCommand(replace)
	return cmd
}

type replaceOptions struct {
	*options
	yes bool
}

func replaceCommand(o *options) *cobra.Command {
	r := &replaceOptions{options: o}
	cmd := &cobra.Command{
		Use:   "replace CLUSTER/ID | KAFKANODE",
		Short: "Give a node fresh volumes where its own are lost",
		Long: `Give a node in Kubernetes fresh volumes under the same id, because its own are lost or out of
reach for good. Kafka copies the data back from the other replicas.

This only says that the volumes may be given up: the operator does it when it has seen that no
last copy of anything is on them. The old PersistentVolumeClaims stay.`,
		Example: "  castellan node replace orders/2\n  castellan node replace orders-2 --yes",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return r.run(cmd.Context(), args[0]) },
	}
	o.addNamespace(cmd)
	cmd.Flags().BoolVarP(&r.yes, "yes", "y", false, "do not ask")
	return cmd
}

func (r *replaceOptions) run(ctx context.Context, name string) error {
	c, _, namespace, err := r.objects()
	if err != nil {
		return err
	}
	node, err := findNode(ctx, c, namespace, "", name)
	if err != nil {
		return err
	}
	if !isPod(node) {
		return &RefusedError{Message: fmt.Sprintf("node %s is not a pod but runs on host %s: only volumes of pods are replaced", node.Name, node.Spec.Host)}
	}
	if asked := node.Annotations[annotationReplace]; asked != "" && asked != node.Spec.Replaced {
		fmt.Fprintf(r.Out, "The volumes of node %s were given up already (%s); the operator has not replaced them yet: %s\n",
			node.Name, asked, cmp.Or(node.Status.Message, "it will look again soon"))
		r.tellNext(node)
		return nil
	}
	if err := r.show(ctx, c, node); err != nil {
		return err
	}
	what := "the volumes of node " + node.Name
	if err := r.ask(ctx, r.yes, "\nGive up "+what+"?", "give up "+what); err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":         node.UID, // what was shown is what is given up
		"annotations": map[string]string{annotationReplace: time.Now().UTC().Format(time.RFC3339)},
	}})
	if err != nil {
		return fmt.Errorf("write the request: %w", err)
	}
	if err := c.Patch(ctx, node, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldManager)); err != nil {
		return fmt.Errorf("ask for fresh volumes of node %s: %w", node.Name, err)
	}
	fmt.Fprintf(r.Out, "\nkafkanode.castellan.dev/%s: its volumes are given up\n", node.Name)
	r.tellNext(node)
	return nil
}

// show says what is given up, and how the rest of the cluster is.
func (r *replaceOptions) show(ctx context.Context, c client.Client, node *api.KafkaNode) error {
	fmt.Fprintf(r.Out, "Node %s (id %d, %s) is %s.\n", node.Name, node.Spec.NodeID, rolesOf(node),
		strings.TrimSpace(strings.Join([]string{string(cmp.Or(node.Status.State, api.NodePending)), node.Status.Reason, node.Status.Message}, " ")))
	if p := node.Status.Placement; p != nil {
		lost := ""
		if p.Lost {
			lost = ", which is out of service or gone"
		}
		fmt.Fprintf(r.Out, "Its machine is %s%s.\n", p.Node, lost)
	}
	fmt.Fprintln(r.Out, "\nGiven up for it (the claims stay; nothing reads them any more):")
	var rows [][]string
	for _, v := range node.Spec.Volumes {
		found := "not seen"
		for _, s := range node.Status.Volumes {
			if s.Name == v.Name {
				found = string(s.State)
			}
		}
		size := ""
		if v.Size != nil {
			size = v.Size.String()
		}
		rows = append(rows, []string{"  " + v.Name, v.Claim, size, found, r.volumeOf(ctx, c, node.Namespace, v.Claim)})
	}
	if err := printTable(r.Out, []string{"  VOLUME", "CLAIM", "SIZE", "LAST SEEN", "PERSISTENTVOLUME"}, rows); err != nil {
		return err
	}
	return r.showOthers(ctx, c, node)
}

// volumeOf names a claim's volume, as far as it may be read.
func (r *replaceOptions) volumeOf(ctx context.Context, c client.Client, namespace, claim string) string {
	var pvc corev1.PersistentVolumeClaim
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: claim}, &pvc); err != nil {
		return "unknown: " + err.Error()
	}
	return cmp.Or(pvc.Spec.VolumeName, "none yet") + " (" + string(pvc.Status.Phase) + ")"
}

func (r *replaceOptions) showOthers(ctx context.Context, c client.Client, node *api.KafkaNode) error {
	cluster, err := findCluster(ctx, c, node.Namespace, node.Spec.ClusterName, "")
	if err != nil {
		return err
	}
	var nodes api.KafkaNodeList
	if err := c.List(ctx, &nodes, client.InNamespace(node.Namespace)); err != nil {
		return fmt.Errorf("list the KafkaNodes of namespace %s: %w", node.Namespace, err)
	}
	var others, down []string
	for i := range nodes.Items {
		n := &nodes.Items[i]
		if n.Spec.ClusterName != cluster.Name || n.Name == node.Name {
			continue
		}
		others = append(others, n.Name)
		if !n.Status.Ready {
			down = append(down, n.Name+" "+string(cmp.Or(n.Status.State, api.NodePending)))
		}
	}
	fmt.Fprintf(r.Out, "\n%d of %d other nodes are ready", len(others)-len(down), len(others))
	if len(down) > 0 {
		slices.Sort(down)
		fmt.Fprintf(r.Out, "; not: %s", strings.Join(down, ", "))
	}
	fmt.Fprintln(r.Out, ".")
	if q := cluster.Status.Quorum; q != nil && slices.Contains(q.Voters, node.Spec.NodeID) {
		fmt.Fprintf(r.Out, "It is one of the %d voters %v of the quorum.\n", len(q.Voters), q.Voters)
	}
	available := meta.FindStatusCondition(cluster.Status.Conditions, api.ConditionAvailable)
	switch {
	case available == nil:
		fmt.Fprintln(r.Out, "Whether all partitions are in sync without it is not known.")
	case available.Status == "True":
		fmt.Fprintf(r.Out, "Clients are served: %s\n", cmp.Or(available.Message, available.Reason))
	default:
		fmt.Fprintf(r.Out, "Clients are NOT served fully (%s): %s\n", available.Reason, available.Message)
	}
	return nil
}

func rolesOf(n *api.KafkaNode) string {
	roles := make([]string, len(n.Spec.Roles))
	for i, role := range n.Spec.Roles {
		roles[i] = string(role)
	}
	return strings.Join(roles, " and ")
}

func (r *replaceOptions) tellNext(node *api.KafkaNode) {
	fmt.Fprintf(r.Out, `
What happens: as soon as no last copy of a partition or of the quorum is on them, the operator gives
node %d claims of new names; its pod starts on empty volumes and copies the data from the others.
Watch it:
  %s status %s -n %s
  kubectl get kafkanode %s -n %s -o wide --watch
`, node.Spec.NodeID, r.program(), node.Spec.ClusterName, node.Namespace, node.Name, node.Namespace)
}
