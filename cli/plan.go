package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	api "castellan.dev/castellan/api/v1alpha1"
)

func planCommand(o *options) *cobra.Command {
	var files []string
	var output string
	cmd := &cobra.Command{
		Use:   "plan -f FILE",
		Short: "Show what applying a KafkaCluster would lead to, and do nothing",
		Long: `Show the steps that applying a KafkaCluster would lead to, in order and with their reasons,
as far as they can be known now. Nothing is changed: the API server completes and judges
the object in a dry run. The same code decides here and in the operator.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.plan(cmd.Context(), files, output) },
	}
	o.addNamespace(cmd)
	cmd.Flags().StringSliceVarP(&files, "filename", "f", nil, "file with KafkaClusters; - is standard input")
	addOutput(cmd.Flags(), &output, "json", "yaml")
	return cmd
}

func (o *options) plan(ctx context.Context, files []string, output string) error {
	if err := checkOutput(output, "json", "yaml"); err != nil {
		return err
	}
	if o.Preview == nil {
		return errNoPreview
	}
	objects, err := o.readDocuments(files)
	if err != nil {
		return err
	}
	c, err := o.connect()
	if err != nil {
		return err
	}
	clusters, refused := 0, 0
	for _, object := range objects {
		if object.GroupVersionKind() != api.GroupVersion.WithKind("KafkaCluster") {
			fmt.Fprintf(o.Err, "%s %s is no KafkaCluster and has no plan\n", object.GetKind(), object.GetName())
			continue
		}
		clusters++
		view, err := o.planOne(ctx, c, object, output)
		if err != nil {
			return err
		}
		if len(view.Problems) > 0 {
			refused++
		}
	}
	if clusters == 0 {
		return usagef("no KafkaCluster in %s", strings.Join(files, ", "))
	}
	if refused > 0 {
		return &RefusedError{Message: fmt.Sprintf("%d of %d KafkaClusters would be refused", refused, clusters)}
	}
	return nil
}

// planOne lets the server judge and complete the object in a dry run, and plans what came back.
func (o *options) planOne(ctx context.Context, c *connection, object *unstructured.Unstructured, output string) (PlanView, error) {
	resource, _, err := c.resource(object)
	if err != nil {
		return PlanView{}, err
	}
	complete, err := resource.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{
		FieldManager: FieldManager, Force: true, DryRun: []string{metav1.DryRunAll},
	})
	if err != nil {
		return PlanView{}, err
	}
	// Through JSON: apimachinery's converter cannot read a number as the text of a Kafka key.
	data, err := complete.MarshalJSON()
	if err != nil {
		return PlanView{}, fmt.Errorf("read KafkaCluster %s: %w", object.GetName(), err)
	}
	cluster := &api.KafkaCluster{}
	if err := json.Unmarshal(data, cluster); err != nil {
		return PlanView{}, fmt.Errorf("read KafkaCluster %s: %w", object.GetName(), err)
	}
	view, err := o.Preview(ctx, c.config, cluster)
	if err != nil {
		return PlanView{}, fmt.Errorf("plan KafkaCluster %s/%s: %w", cluster.Namespace, cluster.Name, err)
	}
	if output != "" {
		return view, printData(o.Out, output, view)
	}
	view.print(o.Out, cluster)
	return view, nil
}

func (v PlanView) print(w io.Writer, cluster *api.KafkaCluster) {
	fmt.Fprintf(w, "KafkaCluster %s/%s\n", cluster.Namespace, cluster.Name)
	for _, p := range v.Problems {
		fmt.Fprintf(w, "  refused: %s\n", p)
	}
	for _, warning := range v.Warnings {
		fmt.Fprintf(w, "  warning: %s\n", warning)
	}
	for i, s := range v.Steps {
		fmt.Fprintf(w, "%3d. %s\n     %s\n", i+1, s.What, s.Reason)
	}
	for _, b := range v.Blocked {
		fmt.Fprintf(w, "  waits: %s\n     %s\n", b.What, b.Reason)
	}
	if len(v.Problems)+len(v.Steps)+len(v.Blocked) == 0 {
		fmt.Fprintln(w, "  nothing to do")
	}
}
