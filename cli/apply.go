package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// FieldManager names this program in an object's managed fields.
const FieldManager = "castellan-cli"

type applyOptions struct {
	*options
	files  []string
	force  bool
	dryRun bool
	output string
}

func applyCommand(o *options) *cobra.Command {
	a := &applyOptions{options: o}
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create or change objects as files say",
		Long: `Create or change objects as files say (server-side apply).

A field that is no longer in the file goes back to its default, and fields that others have
set stay. What the API server refuses is told with field path and remedy, what it
warns of on standard error.`,
		Example: "  castellan apply -f cluster.yaml\n  castellan apply --dry-run -f - < cluster.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.run(cmd.Context()) },
	}
	o.addNamespace(cmd)
	cmd.Flags().StringSliceVarP(&a.files, "filename", "f", nil, "file with objects in YAML or JSON; - is standard input")
	cmd.Flags().BoolVar(&a.force, "force-conflicts", false, "take over fields that somebody else has set")
	cmd.Flags().BoolVar(&a.dryRun, "dry-run", false, "let the server judge the objects and change nothing")
	addOutput(cmd.Flags(), &a.output, "json", "yaml", "name")
	return cmd
}

// run applies every object and reports all failures: one bad object does not hide another.
func (a *applyOptions) run(ctx context.Context) error {
	if err := checkOutput(a.output, "json", "yaml", "name"); err != nil {
		return err
	}
	objects, err := a.readDocuments(a.files)
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	var failures []error
	for _, o := range objects {
		if err := a.apply(ctx, c, o); err != nil {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

func (a *applyOptions) apply(ctx context.Context, c *connection, o *unstructured.Unstructured) error {
	resource, mapping, err := c.resource(o)
	if err != nil {
		return err
	}
	if o.GetName() == "" {
		return usagef("%s without metadata.name", o.GetKind())
	}
	before, err := resource.Get(ctx, o.GetName(), metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	options := metav1.ApplyOptions{FieldManager: FieldManager, Force: a.force}
	if a.dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	after, err := resource.Apply(ctx, o.GetName(), o, options)
	if apierrors.IsConflict(err) && !a.force {
		return fmt.Errorf("%w\nTake these fields out of the file, or take them over with --force-conflicts", err)
	}
	if err != nil {
		return err
	}
	switch a.output {
	case "json", "yaml":
		after.SetManagedFields(nil)
		if a.output == "yaml" {
			fmt.Fprintln(a.Out, "---")
		}
		return printData(a.Out, a.output, after.Object)
	case "name":
		_, err = fmt.Fprintln(a.Out, title(mapping, o.GetName()))
	default:
		_, err = fmt.Fprintf(a.Out, "%s %s%s\n", title(mapping, o.GetName()), verb(before, after), a.note())
	}
	return err
}

func (a *applyOptions) note() string {
	if a.dryRun {
		return " (dry run: nothing is changed)"
	}
	return ""
}

func verb(before, after *unstructured.Unstructured) string {
	switch {
	case before == nil || before.GetUID() == "":
		return "created"
	case before.GetResourceVersion() == after.GetResourceVersion() && before.GetGeneration() == after.GetGeneration():
		// A dry run gives no new resource version, but counts a changed spec.
		return "unchanged"
	default:
		return "configured"
	}
}
