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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

type opsOptions struct {
	*options
	allNamespaces bool
	verbose       bool
	output        string
}

func opsCommand(o *options) *cobra.Command {
	v := &opsOptions{options: o}
	cmd := &cobra.Command{
		Use:   "ops [CLUSTER|OPERATION]",
		Short: "Show what is being done to clusters, and what was",
		Long: `Show the operations: those that are not over first, then the others, the newest first. With -v
also how each node is, and the last lines of the log of one that failed.`,
		Example: "  castellan ops\n  castellan ops orders\n  castellan ops orders-rollout-7 -v",
		Args:    cobra.MaximumNArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return v.run(cmd.Context(), strings.Join(args, "")) },
	}
	o.addNamespace(cmd)
	cmd.Flags().BoolVarP(&v.allNamespaces, "all-namespaces", "A", false, "operations of every namespace")
	cmd.Flags().BoolVarP(&v.verbose, "verbose", "v", false, "how each node is")
	addOutput(cmd.Flags(), &v.output, "json", "yaml")
	return cmd
}

func (v *opsOptions) run(ctx context.Context, name string) error {
	if err := checkOutput(v.output, "json", "yaml"); err != nil {
		return err
	}
	if name != "" && v.allNamespaces {
		return usagef("a name does not go with --all-namespaces")
	}
	c, _, namespace, err := v.objects()
	if err != nil {
		return err
	}
	if v.allNamespaces {
		namespace = ""
	}
	ops, single, err := v.read(ctx, c, namespace, name)
	if err != nil {
		return err
	}
	slices.SortStableFunc(ops, finishedLast)
	switch {
	case v.output != "":
		return v.data(ops, single)
	case len(ops) == 0:
		fmt.Fprintf(v.Err, "No operation %s.\n", where(namespace, name))
		return nil
	case v.verbose:
		return v.details(ops)
	default:
		return v.table(ops)
	}
}

func where(namespace, cluster string) string {
	switch {
	case cluster != "":
		return "of cluster " + cluster
	case namespace != "":
		return "in namespace " + namespace
	default:
		return "anywhere"
	}
}

// read finds the Operation of that name, or those of the cluster of that name.
func (v *opsOptions) read(ctx context.Context, c client.Client, namespace, name string) (ops []api.Operation, single bool, err error) {
	if name == "" {
		ops, err = operationsOf(ctx, c, namespace, "")
		return ops, false, err
	}
	var op api.Operation
	err = c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &op)
	if err == nil {
		return []api.Operation{op}, true, nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, false, fmt.Errorf("read Operation %s/%s: %w", namespace, name, err)
	}
	if ops, err = operationsOf(ctx, c, namespace, name); err == nil && len(ops) == 0 {
		err = v.missing(ctx, c, namespace, name)
	}
	return ops, false, err
}

// finishedLast sorts those that are not over to the front; of the others the newest end
// comes first.
func finishedLast(a, b api.Operation) int {
	over := func(op api.Operation) int {
		if op.Status.Phase.Final() {
			return 1
		}
		return 0
	}
	if order := cmp.Compare(over(a), over(b)); order != 0 || over(a) == 0 {
		return order
	}
	return endOf(b).Compare(endOf(a))
}

func endOf(op api.Operation) time.Time {
	if op.Status.FinishedAt != nil {
		return op.Status.FinishedAt.Time
	}
	return op.CreationTimestamp.Time
}

func (v *opsOptions) data(ops []api.Operation, single bool) error {
	for i := range ops {
		ops[i].ManagedFields = nil
		ops[i].SetGroupVersionKind(api.GroupVersion.WithKind("Operation")) // lists leave it out
	}
	if single {
		return printData(v.Out, v.output, ops[0])
	}
	if ops == nil {
		ops = []api.Operation{}
	}
	return printData(v.Out, v.output, map[string]any{"apiVersion": "v1", "kind": "List", "items": ops})
}

func (v *opsOptions) table(ops []api.Operation) error {
	header := []string{"NAME", "CLUSTER", "TYPE", "PHASE", "DONE", "PERCENT", "MOVES", "STARTED", "TOOK/END", "MESSAGE"}
	if v.allNamespaces {
		header = slices.Insert(header, 0, "NAMESPACE")
	}
	now := time.Now()
	var rows [][]string
	for i := range ops {
		op := &ops[i]
		row := []string{
			op.Name, op.Spec.ClusterRef.Name, string(op.Spec.Type), phaseOf(op), fmt.Sprintf("%d/%d", op.Status.Steps.Done, op.Status.Steps.Total),
			strconv.Itoa(int(op.Status.Steps.Percent)) + "%", movesText(op.Status.Moves), timeText(op.Status.StartedAt), tookText(op, now), oneLine(op.Status.Message),
		}
		if v.allNamespaces {
			row = slices.Insert(row, 0, op.Namespace)
		}
		rows = append(rows, row)
	}
	return printTable(v.Out, header, rows)
}

func phaseOf(op *api.Operation) string { return string(cmp.Or(op.Status.Phase, api.OperationPending)) }

func timeText(t *metav1.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// tookText is how long it took or, in front of the end that is expected, takes by now.
func tookText(op *api.Operation, now time.Time) string {
	s := &op.Status
	switch {
	case s.StartedAt == nil:
		return ""
	case s.FinishedAt != nil:
		return duration.HumanDuration(s.FinishedAt.Sub(s.StartedAt.Time))
	case s.EstimatedEnd != nil:
		return "about " + timeText(s.EstimatedEnd)
	default:
		return duration.HumanDuration(now.Sub(s.StartedAt.Time)) + " so far"
	}
}

func (v *opsOptions) details(ops []api.Operation) error {
	for i := range ops {
		if i > 0 {
			fmt.Fprintln(v.Out)
		}
		if err := printOperation(v.Out, &ops[i], time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// whatOf says what an Operation does, in few words.
func whatOf(op *api.Operation) string {
	what := string(op.Spec.Type) + " of cluster " + op.Spec.ClusterRef.Name
	if op.Spec.ToRevision != "" {
		what += " to revision " + op.Spec.ToRevision
	}
	return what
}

func printOperation(w io.Writer, op *api.Operation, now time.Time) error {
	fmt.Fprintf(w, "Operation %s/%s: %s\n  %s\n", op.Namespace, op.Name, phaseOf(op), whatOf(op))
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "  %-12s %s\n", name, strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", 15)))
		}
	}
	line("Reason:", op.Spec.Reason)
	line("Message:", op.Status.Message)
	steps := op.Status.Steps
	line("Done:", fmt.Sprintf("%d of %d (%d%%)", steps.Done, steps.Total, steps.Percent))
	line("Moves:", movesLine(op.Status.Moves))
	if p := op.Status.Proposal; p != nil {
		line("Proposal:", proposalText(p))
	}
	line("Started:", timeText(op.Status.StartedAt))
	line("Finished:", timeText(op.Status.FinishedAt))
	line("Took/end:", tookText(op, now))
	line("Asked for:", askedFor(op))
	line("Waits at:", op.Status.Point)
	if waitsForPlan(op) && !op.Status.Phase.Final() {
		line("Plan to approve:", "\n"+strings.Join(op.Status.Plan, "\n"))
	}
	if err := printProposal(w, op.Status.Proposal); err != nil {
		return err
	}
	if err := section(w, "Nodes", []string{"ID", "STATE", "RETRY", "STARTED", "TOOK", "REASON"}, nodeRows(op, now)); err != nil {
		return err
	}
	for _, n := range op.Status.Nodes {
		if n.Log == "" {
			continue
		}
		fmt.Fprintf(w, "\nLog of node %d:\n", n.ID)
		for text := range strings.Lines(strings.TrimRight(n.Log, "\n") + "\n") {
			fmt.Fprintf(w, "  %s", text)
		}
	}
	return nil
}

// askedFor is what users have decided about it.
func askedFor(op *api.Operation) string {
	var out []string
	add := func(on bool, text string) {
		if on {
			out = append(out, text)
		}
	}
	s := &op.Spec
	add(s.Rebalance != nil, rebalanceText(s.Rebalance))
	add(s.Cancelled && !s.Revert, "cancelled")
	add(s.Cancelled && s.Revert, "cancelled, moves taken back")
	add(s.Paused, "paused")
	add(len(s.Nodes) > 0, "nodes "+idText(s.Nodes))
	add(len(s.Order) > 0, "order "+idText(s.Order))
	add(len(s.IgnoredNodes) > 0, "ignored "+idText(s.IgnoredNodes))
	add(len(s.Passed) > 0, "passed "+strings.Join(s.Passed, ", "))
	add(s.Finalize, "finalize")
	if s.BytesPerSecond != nil {
		add(true, "at most "+s.BytesPerSecond.String()+" bytes a second")
	}
	return strings.Join(out, "; ")
}

func rebalanceText(r *api.Rebalance) string {
	if r == nil {
		return ""
	}
	out := "mode " + string(r.Mode)
	if r.ReplicationFactor != nil {
		out += fmt.Sprintf(" %d", *r.ReplicationFactor)
	}
	if len(r.Brokers) > 0 {
		out += " of brokers " + idText(r.Brokers)
	}
	if len(r.Topics) > 0 {
		out += " of topics " + strings.Join(r.Topics, ", ")
	}
	if r.RepairLogDirs {
		out += " with repair of log dirs"
	}
	return out
}

func nodeRows(op *api.Operation, now time.Time) [][]string {
	var rows [][]string
	for i := range op.Status.Nodes {
		n := &op.Status.Nodes[i]
		attempt := ""
		if n.Attempt > 0 {
			attempt = strconv.Itoa(int(n.Attempt))
		}
		rows = append(rows, []string{strconv.Itoa(int(n.ID)), string(n.State), attempt, timeText(n.StartedAt), nodeTook(n, now), n.Reason})
	}
	return rows
}

func nodeTook(n *api.OperationNode, now time.Time) string {
	switch {
	case n.StartedAt == nil:
		return ""
	case n.FinishedAt != nil:
		return duration.HumanDuration(n.FinishedAt.Sub(n.StartedAt.Time))
	case n.State == api.OperationNodeRunning:
		return duration.HumanDuration(now.Sub(n.StartedAt.Time)) + " so far"
	default:
		return ""
	}
}

// oneLine is a text without line ends.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
