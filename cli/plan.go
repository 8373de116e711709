package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	api "castellan.dev/castellan/api/v1alpha1"
)

func planCommand(o *options) *cobra.Command {
	var files []string
	var output string
	cmd := &cobra.Command{
		Use:   "plan -f FILE",
		Short: "Show what applying a KafkaCluster would lead to, and do nothing",
		Long: `Show the steps that applying a KafkaCluster would lead to, in order and with their reasons,
as far as they can be known now. Nothing is changed. The same code decides here and in the operator.`,
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
	clusters, err := o.readClusters(files)
	if err != nil {
		return err
	}
	config, namespace, err := o.restConfig()
	if err != nil {
		return err
	}
	refused := 0
	for _, cluster := range clusters {
		if cluster.Namespace == "" {
			cluster.Namespace = namespace
		}
		view, err := o.Preview(ctx, config, cluster)
		if err != nil {
			return fmt.Errorf("plan KafkaCluster %s/%s: %w", cluster.Namespace, cluster.Name, err)
		}
		if len(view.Problems) > 0 {
			refused++
		}
		if output != "" {
			err = printData(o.Out, output, view)
		} else {
			err = view.print(o.Out, cluster)
		}
		if err != nil {
			return err
		}
	}
	if refused > 0 {
		return &RefusedError{Message: fmt.Sprintf("%d of %d KafkaClusters would be refused", refused, len(clusters))}
	}
	return nil
}

func (o *options) readClusters(files []string) ([]*api.KafkaCluster, error) {
	objects, err := o.readDocuments(files)
	if err != nil {
		return nil, err
	}
	var clusters []*api.KafkaCluster
	for _, object := range objects {
		if object.GroupVersionKind() != api.GroupVersion.WithKind("KafkaCluster") {
			fmt.Fprintf(o.Err, "%s %s is no KafkaCluster and has no plan\n", object.GetKind(), object.GetName())
			continue
		}
		cluster := &api.KafkaCluster{}
		// Through JSON: apimachinery's converter cannot read a number as the text of a Kafka key.
		data, err := object.MarshalJSON()
		if err == nil {
			err = json.Unmarshal(data, cluster)
		}
		if err != nil {
			return nil, &RefusedError{Message: fmt.Sprintf("KafkaCluster %s: %v", object.GetName(), err)}
		}
		clusters = append(clusters, cluster)
	}
	if len(clusters) == 0 {
		return nil, usagef("no KafkaCluster in %s", strings.Join(files, ", "))
	}
	return clusters, nil
}

func (v PlanView) print(w io.Writer, cluster *api.KafkaCluster) error {
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
	return nil
}
