package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/csaupgrade"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "castellan.dev/castellan/api/v1alpha1"
)

// specEdit is another spec for a KafkaCluster that was shown.
type specEdit struct {
	shown       *api.KafkaCluster
	spec        api.KafkaClusterSpec
	annotations map[string]string
}

// diff is the difference as unified YAML; empty when there is none.
func (e specEdit) diff(to string) (string, error) {
	var texts [2]string
	for i, spec := range []*api.KafkaClusterSpec{&e.shown.Spec, &e.spec} {
		data, err := yaml.Marshal(spec)
		if err != nil {
			return "", fmt.Errorf("write a spec as YAML: %w", err)
		}
		texts[i] = string(data)
	}
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: slices.Collect(strings.Lines(texts[0])), FromFile: "spec now",
		B: slices.Collect(strings.Lines(texts[1])), ToFile: to, Context: 6,
	})
	if err != nil {
		return "", fmt.Errorf("compare the specs: %w", err)
	}
	return text, nil
}

// write puts the spec in place of the one that was shown: what others write meanwhile (the
// operator its status) is no hindrance as long as the spec is the same. It returns what the
// server made of it.
func (e specEdit) write(ctx context.Context, c client.Client, options ...client.PatchOption) (*api.KafkaCluster, error) {
	cluster := e.shown
	var after *api.KafkaCluster
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var conflict error
		after, conflict = e.patch(ctx, c, cluster, options...)
		if !apierrors.IsConflict(conflict) {
			return conflict
		}
		cluster = &api.KafkaCluster{}
		if err := c.Get(ctx, client.ObjectKeyFromObject(e.shown), cluster); err != nil {
			return err
		}
		if cluster.UID != e.shown.UID || cluster.Generation != e.shown.Generation {
			return fmt.Errorf("somebody changed the spec meanwhile (generation %d, now %d), so nothing was written: begin again", e.shown.Generation, cluster.Generation)
		}
		return conflict
	})
	return after, err
}

// patch writes what differs, if the object is still as it was read.
func (e specEdit) patch(ctx context.Context, c client.Client, cluster *api.KafkaCluster, options ...client.PatchOption) (*api.KafkaCluster, error) {
	after := cluster.DeepCopy()
	after.Spec = *e.spec.DeepCopy()
	if after.Annotations == nil {
		after.Annotations = map[string]string{}
	}
	maps.Copy(after.Annotations, e.annotations)
	patch := client.MergeFromWithOptions(cluster, client.MergeFromWithOptimisticLock{})
	return after, c.Patch(ctx, after, patch, append(options, client.FieldOwner(FieldManager))...)
}

// handOver makes the fields that were patched those of castellan apply: a file applied later may
// change them without a conflict, and what it leaves out goes.
func handOver(ctx context.Context, c client.Client, key client.ObjectKey) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		cluster := &api.KafkaCluster{}
		if err := c.Get(ctx, key, cluster); err != nil {
			return err
		}
		patch, err := csaupgrade.UpgradeManagedFieldsPatch(cluster, sets.New(FieldManager), FieldManager)
		if err != nil || len(patch) == 0 {
			return err
		}
		return c.Patch(ctx, cluster, client.RawPatch(types.JSONPatchType, patch), client.FieldOwner(FieldManager))
	})
}

// editOptions are those of a command that changes a spec.
type editOptions struct {
	*options
	dryRun bool
}

func (e *editOptions) flags(cmd *cobra.Command) {
	e.addNamespace(cmd)
	cmd.Flags().BoolVar(&e.dryRun, "dry-run", false, "show what it would lead to and change nothing")
}

// edit changes the spec of a KafkaCluster by a function that says what to tell of it. The
// difference and its plan are shown, and the server judges before anything is written.
func (e *editOptions) edit(ctx context.Context, name string, change func(context.Context, client.Client, *api.KafkaCluster) ([]string, error)) error {
	c, config, namespace, err := e.objects()
	if err != nil {
		return err
	}
	cluster, err := findCluster(ctx, c, namespace, name, "")
	if err != nil {
		return err
	}
	wanted := cluster.DeepCopy()
	told, err := change(ctx, c, wanted)
	if err != nil {
		return err
	}
	edit := specEdit{shown: cluster, spec: wanted.Spec}
	difference, err := edit.diff("spec wanted")
	if err != nil {
		return err
	}
	if difference == "" {
		_, err := fmt.Fprintf(e.Out, "kafkacluster.castellan.dev/%s is described so already\n", cluster.Name)
		return err
	}
	judged, err := edit.write(ctx, c, client.DryRunAll)
	if err != nil {
		return fmt.Errorf("cluster %s cannot change so: %w", cluster.Name, err)
	}
	fmt.Fprintf(e.Out, "%s\n", difference)
	for _, line := range told {
		fmt.Fprintln(e.Out, line)
	}
	if err := e.preview(ctx, config, judged); err != nil {
		return err
	}
	if e.dryRun {
		_, err := fmt.Fprintf(e.Out, "kafkacluster.castellan.dev/%s unchanged (dry run)\n", cluster.Name)
		return err
	}
	if _, err := edit.write(ctx, c); err != nil {
		return fmt.Errorf("change cluster %s: %w", cluster.Name, err)
	}
	if err := handOver(ctx, c, client.ObjectKeyFromObject(cluster)); err != nil {
		fmt.Fprintf(e.Err, "The next `%s apply` will need --force-conflicts: %v\n", e.program(), err)
	}
	_, err = fmt.Fprintf(e.Out, "kafkacluster.castellan.dev/%s changed: `%s watch %[1]s -n %[3]s` shows how it goes\n", cluster.Name, e.program(), namespace)
	return err
}

// preview shows the plan and refuses what the plan's maker refuses. Without a plan the change
// goes on: it is the operator that judges.
func (e *editOptions) preview(ctx context.Context, config *rest.Config, judged *api.KafkaCluster) error {
	if e.Preview == nil {
		return nil
	}
	view, err := e.Preview(ctx, config, judged)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted, nothing was changed: %w", ctx.Err())
	case err != nil:
		fmt.Fprintf(e.Err, "The plan cannot be told now: %v\n", err)
		return nil
	}
	view.print(e.Out, judged)
	if len(view.Problems) > 0 {
		return refusedf("cluster %s cannot change so: %s", judged.Name, strings.Join(view.Problems, "\n"))
	}
	return nil
}
