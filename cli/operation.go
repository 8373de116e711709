package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

// labelCluster of an Operation names its KafkaCluster.
const labelCluster = "castellan.dev/cluster"

func operationCommands(o *options) []*cobra.Command {
	return []*cobra.Command{
		opsCommand(o), watchCommand(o), restartCommand(o), scaleCommand(o), drainCommand(o), rebalanceCommand(o), upgradeCommand(o),
		pauseCommand(o), resumeCommand(o), cancelCommand(o), throttleCommand(o), ignoreCommand(o), retryCommand(o), approveCommand(o), rollbackCommand(o),
	}
}

// operationLabels are those of an Operation. A cluster's name may be longer than a label may
// be; spec.clusterRef is what counts.
func operationLabels(cluster string) map[string]string {
	if len(validation.IsValidLabelValue(cluster)) > 0 {
		return nil
	}
	return map[string]string{labelCluster: cluster}
}

// change is what a decision writes: members of an Operation's spec, none when it is so
// already, and what to tell of it.
type change struct {
	spec map[string]any
	said string
}

// decide writes a decision into an Operation: only the members that it is about, judged anew
// when somebody else wrote in between.
func (o *options) decide(ctx context.Context, name string, judge func(context.Context, client.Client, *api.Operation) (change, error)) error {
	c, _, namespace, err := o.objects()
	if err != nil {
		return err
	}
	op, err := o.operationToChange(ctx, c, namespace, name)
	if err != nil {
		return err
	}
	return o.write(ctx, c, op, judge)
}

func (o *options) write(ctx context.Context, c client.Client, op *api.Operation, judge func(context.Context, client.Client, *api.Operation) (change, error)) error {
	var made change
	uid := op.UID
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var err error
		if made, err = judge(ctx, c, op); err != nil || made.spec == nil {
			return err
		}
		patch, err := mergePatch(op, made.spec)
		if err != nil {
			return err
		}
		failed := c.Patch(ctx, op, patch, client.FieldOwner(FieldManager))
		if !apierrors.IsConflict(failed) {
			return notWritten(op, failed)
		}
		if err := c.Get(ctx, client.ObjectKeyFromObject(op), op); err != nil {
			return err
		}
		if op.UID != uid {
			return &NotFoundError{Message: fmt.Sprintf("Operation %s was deleted, and another one has its name: look at it with `%s ops %[1]s -v`", op.Name, o.program())}
		}
		return failed
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(o.Out, "operation.castellan.dev/%s %s\n", op.Name, made.said)
	return err
}

func notWritten(op *api.Operation, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("change Operation %s/%s: %w", op.Namespace, op.Name, err)
}

// mergePatch writes members of a spec if the object is still as it was read.
func mergePatch(op *api.Operation, spec map[string]any) (client.Patch, error) { //nolint:ireturn // what a client takes
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": op.UID, "resourceVersion": op.ResourceVersion},
		"spec":     spec,
	})
	if err != nil {
		return nil, fmt.Errorf("write the change: %w", err)
	}
	return client.RawPatch(types.MergePatchType, data), nil
}

// operationToChange finds an Operation by its name, or the only active one of a cluster.
func (o *options) operationToChange(ctx context.Context, c client.Client, namespace, name string) (*api.Operation, error) {
	op := &api.Operation{}
	err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, op)
	if err == nil {
		return op, nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read Operation %s/%s: %w", namespace, name, err)
	}
	active, err := activeOf(ctx, c, namespace, name)
	if err != nil {
		return nil, err
	}
	if len(active) == 1 {
		fmt.Fprintf(o.Err, "Of cluster %s the operation %s is active.\n", name, active[0].Name)
		return &active[0], nil
	}
	if err := o.missing(ctx, c, namespace, name); err != nil {
		return nil, err
	}
	if len(active) == 0 {
		return nil, &NotFoundError{Message: fmt.Sprintf("no operation of cluster %s is active: `%s ops %[1]s` shows those that are over", name, o.program())}
	}
	return nil, usagef("several operations of cluster %s are active: name one of %s", name, strings.Join(names(active), ", "))
}

// missing is the error about a name that is neither an Operation nor a KafkaCluster; nil if
// it is a KafkaCluster.
func (o *options) missing(ctx context.Context, c client.Client, namespace, name string) error {
	err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &api.KafkaCluster{})
	if apierrors.IsNotFound(err) {
		return &NotFoundError{Message: fmt.Sprintf("namespace %s has neither an Operation nor a KafkaCluster %s: `%s ops -n %[1]s` lists what there is", namespace, name, o.program())}
	}
	if err != nil {
		return fmt.Errorf("read KafkaCluster %s/%s: %w", namespace, name, err)
	}
	return nil
}

// operationsOf reads the Operations of a cluster ("" is of every one), oldest first.
func operationsOf(ctx context.Context, c client.Reader, namespace, cluster string) ([]api.Operation, error) {
	var list api.OperationList
	if err := c.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the Operations of namespace %s: %w", cmp.Or(namespace, "*"), err)
	}
	ops := slices.DeleteFunc(list.Items, func(op api.Operation) bool { return cluster != "" && op.Spec.ClusterRef.Name != cluster })
	slices.SortFunc(ops, byAge)
	return ops, nil
}

func activeOf(ctx context.Context, c client.Reader, namespace, cluster string) ([]api.Operation, error) {
	ops, err := operationsOf(ctx, c, namespace, cluster)
	return slices.DeleteFunc(ops, func(op api.Operation) bool { return op.Status.Phase.Final() }), err
}

func byAge(a, b api.Operation) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

func names(ops []api.Operation) []string {
	out := make([]string, len(ops))
	for i := range ops {
		out[i] = ops[i].Name
	}
	return out
}

// refuseOver refuses to change an Operation that comes to nothing any more.
func (o *options) refuseOver(op *api.Operation) error {
	switch {
	case op.Status.Phase.Final():
		return refusedf("operation %s is over (%s): %s", op.Name, op.Status.Phase, o.afterwards(op))
	case op.DeletionTimestamp != nil:
		return refusedf("operation %s is being deleted, which cancels it: `%s ops %s` shows what goes on", op.Name, o.program(), op.Spec.ClusterRef.Name)
	case op.Spec.Cancelled:
		return refusedf("operation %s was cancelled; nodes under way end: `%s retry %[1]s` begins it again once it is over", op.Name, o.program())
	}
	return nil
}

// afterwards says what can be done about an Operation that is over.
func (o *options) afterwards(op *api.Operation) string {
	if op.Status.Phase == api.OperationSucceeded {
		return "there is nothing left to decide"
	}
	return fmt.Sprintf("`%s retry %s` begins it again, `%[1]s rollback %[3]s` shows what there is to go back to", o.program(), op.Name, op.Spec.ClusterRef.Name)
}

// about are the ids of the nodes that an Operation is about, and as text for people.
func about(ctx context.Context, c client.Reader, op *api.Operation) ([]int32, string, error) {
	var ids []int32
	for _, n := range op.Status.Nodes {
		ids = append(ids, n.ID)
	}
	if len(ids) == 0 {
		ids = slices.Clone(op.Spec.Nodes)
	}
	if len(ids) == 0 {
		var err error
		if ids, err = nodeIDs(ctx, c, op.Namespace, op.Spec.ClusterRef.Name); err != nil {
			return nil, "", err
		}
	}
	slices.Sort(ids)
	return ids, idText(ids), nil
}

// nodeIDs are the ids of a cluster's nodes.
func nodeIDs(ctx context.Context, c client.Reader, namespace, cluster string) ([]int32, error) {
	var list api.KafkaNodeList
	if err := c.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the KafkaNodes of namespace %s: %w", namespace, err)
	}
	var ids []int32
	for i := range list.Items {
		if spec := &list.Items[i].Spec; spec.ClusterName == cluster {
			ids = append(ids, spec.NodeID)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

func idText(ids []int32) string {
	if len(ids) == 0 {
		return "none"
	}
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = strconv.Itoa(int(id))
	}
	return strings.Join(texts, ", ")
}

// addIDs adds a flag for node ids.
func addIDs(cmd *cobra.Command, ids *[]int32, name, usage string) {
	cmd.Flags().Int32SliceVar(ids, name, nil, usage)
	cmd.Flags().Lookup(name).DefValue = "" // no [] in the help
}

// checkIDs refuses what is no node id, and sorts those that are.
func checkIDs(flag string, ids []int32) ([]int32, error) {
	for _, id := range ids {
		if id < 0 {
			return nil, usagef("--%s %d: a node id is 0 or more", flag, id)
		}
	}
	ids = slices.Clone(ids)
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// ask has the person at the terminal confirm; without one, --yes is the word.
func (o *options) ask(ctx context.Context, yes bool, question, to string) error {
	if yes {
		return nil
	}
	if !o.Interactive {
		return usagef("nobody can be asked here: say --yes to %s", to)
	}
	fmt.Fprintf(o.Out, "%s [y/N] ", question)
	type line struct {
		text string
		err  error
	}
	lines := make(chan line, 1)
	go func() { // ends with the program at the latest: a read of a terminal cannot be called off
		text, err := bufio.NewReader(o.In).ReadString('\n')
		lines <- line{text, err}
	}()
	select {
	case <-ctx.Done():
		return fmt.Errorf("interrupted, nothing was changed: %w", ctx.Err())
	case l := <-lines:
		if l.err != nil && l.text == "" {
			return fmt.Errorf("read the answer: %w", l.err)
		}
		if a := strings.ToLower(strings.TrimSpace(l.text)); a != "y" && a != "yes" {
			return &RefusedError{Message: "nothing was changed"}
		}
		return nil
	}
}

func refusedf(format string, args ...any) error {
	return &RefusedError{Message: fmt.Sprintf(format, args...)}
}
