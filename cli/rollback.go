package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

// annotationRolledBack of a KafkaCluster names the number of the revision that its spec was
// taken from.
const annotationRolledBack = "castellan.dev/rolled-back-to"

type rollbackOptions struct {
	*options
	to  int64
	yes bool
}

func rollbackCommand(o *options) *cobra.Command {
	r := &rollbackOptions{options: o}
	cmd := &cobra.Command{
		Use:   "rollback CLUSTER [--to N]",
		Short: "Go back to the spec of an earlier revision; without --to, list them",
		Long: `Write the spec of an earlier revision into a KafkaCluster, as you. What changes is shown before.
The nodes follow in an operation of its own: those that had been changed go back in reverse
order, others are not touched.

Without --to it lists the revisions there are.`,
		Example: "  castellan rollback orders\n  castellan rollback orders --to 6",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("to") && r.to < 1 {
				return usagef("--to %d: revisions are counted from 1", r.to)
			}
			return r.run(cmd.Context(), args[0])
		},
	}
	o.addNamespace(cmd)
	cmd.Flags().Int64Var(&r.to, "to", 0, "number of the revision")
	cmd.Flags().BoolVarP(&r.yes, "yes", "y", false, "do not ask")
	return cmd
}

func (r *rollbackOptions) run(ctx context.Context, name string) error {
	c, _, namespace, err := r.objects()
	if err != nil {
		return err
	}
	cluster, err := findCluster(ctx, c, namespace, name, "")
	if err != nil {
		return err
	}
	revisions, err := revisionsOf(ctx, c, cluster)
	if err != nil {
		return err
	}
	if r.to == 0 {
		if r.yes {
			return usagef("say which revision to go back to: --to N")
		}
		return r.list(cluster, revisions)
	}
	i := slices.IndexFunc(revisions, func(rev api.ClusterRevision) bool { return rev.Spec.Number == r.to })
	if i < 0 {
		return &NotFoundError{Message: fmt.Sprintf("cluster %s has no revision %d; it has: %s", name, r.to, cmp.Or(numbers(revisions), "none"))}
	}
	return r.back(ctx, c, cluster, &revisions[i])
}

// revisionsOf are the revisions of a cluster that are kept, oldest first.
func revisionsOf(ctx context.Context, c client.Reader, cluster *api.KafkaCluster) ([]api.ClusterRevision, error) {
	var list api.ClusterRevisionList
	if err := c.List(ctx, &list, client.InNamespace(cluster.Namespace)); err != nil {
		return nil, fmt.Errorf("list the ClusterRevisions of namespace %s: %w", cluster.Namespace, err)
	}
	revisions := slices.DeleteFunc(list.Items, func(rev api.ClusterRevision) bool { return rev.Spec.ClusterName != cluster.Name })
	slices.SortFunc(revisions, func(a, b api.ClusterRevision) int { return cmp.Compare(a.Spec.Number, b.Spec.Number) })
	return revisions, nil
}

func numbers(revisions []api.ClusterRevision) string {
	texts := make([]string, len(revisions))
	for i := range revisions {
		texts[i] = strconv.FormatInt(revisions[i].Spec.Number, 10)
	}
	return strings.Join(texts, ", ")
}

func (r *rollbackOptions) list(cluster *api.KafkaCluster, revisions []api.ClusterRevision) error {
	if len(revisions) == 0 {
		fmt.Fprintf(r.Err, "Cluster %s has no revision yet: no spec of it was accepted.\n", cluster.Name)
		return nil
	}
	var rows [][]string
	for i := range revisions {
		rev := &revisions[i]
		force, held := "", ""
		if rev.Name == cluster.Status.Revision {
			force = "in force"
		}
		if h := rev.Spec.Held; h != nil {
			held = fmt.Sprintf("since %s: %s", h.Since.UTC().Format(time.RFC3339), oneLine(h.Reason))
		}
		rows = append(rows, []string{
			strconv.FormatInt(rev.Spec.Number, 10), strconv.FormatInt(rev.Spec.Generation, 10), rev.Spec.Cluster.Version,
			rev.CreationTimestamp.UTC().Format(time.RFC3339), force, held,
		})
	}
	return printTable(r.Out, []string{"NUMBER", "GENERATION", "VERSION", "CREATED", "STATE", "HELD"}, rows)
}

// back writes the spec of a revision. The server judges it before anybody is asked.
func (r *rollbackOptions) back(ctx context.Context, c client.Client, cluster *api.KafkaCluster, rev *api.ClusterRevision) error {
	edit := specEdit{
		shown: cluster, spec: rev.Spec.Cluster, annotations: map[string]string{annotationRolledBack: strconv.FormatInt(rev.Spec.Number, 10)},
	}
	difference, err := edit.diff(fmt.Sprintf("revision %d", rev.Spec.Number))
	if err != nil {
		return err
	}
	if difference == "" {
		_, err := fmt.Fprintf(r.Out, "kafkacluster.castellan.dev/%s has the spec of revision %d already\n", cluster.Name, rev.Spec.Number)
		return err
	}
	fmt.Fprintf(r.Out, "The spec of KafkaCluster %s/%s would change to that of revision %d (Kafka %s):\n\n%s\n",
		cluster.Namespace, cluster.Name, rev.Spec.Number, rev.Spec.Cluster.Version, difference)
	if _, err := edit.write(ctx, c, client.DryRunAll); err != nil {
		return fmt.Errorf("cluster %s cannot go back to revision %d: %w", cluster.Name, rev.Spec.Number, err)
	}
	r.warn(r.Err, rev)
	to := fmt.Sprintf("go back to revision %d", rev.Spec.Number)
	if err := r.ask(ctx, r.yes, "Go back to it?", to); err != nil {
		return err
	}
	if _, err := edit.write(ctx, c); err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	if err := handOver(ctx, c, client.ObjectKeyFromObject(cluster)); err != nil {
		fmt.Fprintf(r.Err, "The next `%s apply` will need --force-conflicts: %v\n", r.program(), err)
	}
	_, err = fmt.Fprintf(r.Out, "kafkacluster.castellan.dev/%s has the spec of revision %d: `%s watch %[1]s -n %[4]s` shows how it goes\n",
		cluster.Name, rev.Spec.Number, r.program(), cluster.Namespace)
	return err
}

// warn tells what a spec brings along that stops what it is written for.
func (r *rollbackOptions) warn(w io.Writer, rev *api.ClusterRevision) {
	if rev.Spec.Cluster.State == api.StateStopped {
		fmt.Fprintln(w, "That revision has spec.state Stopped: it stops every node.")
	}
	if rev.Spec.Cluster.Paused {
		fmt.Fprintln(w, "That revision has spec.paused: no node changes before that is taken back.")
	}
}
