package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	api "castellan.dev/castellan/api/v1alpha1"
)

func describeCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "describe KIND NAME...",
		Short:   "Show all of an object: conditions, spec, status, events",
		Example: "  castellan describe kc orders",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if kind, name, ok := strings.Cut(args[0], "/"); ok {
				args = append([]string{kind, name}, args[1:]...)
			}
			if len(args) < 2 {
				return usagef("name the object: castellan describe %s NAME", args[0])
			}
			return o.describe(cmd.Context(), args[0], args[1:])
		},
	}
	o.addNamespace(cmd)
	return cmd
}

func (o *options) describe(ctx context.Context, kind string, names []string) error {
	c, err := o.connect()
	if err != nil {
		return err
	}
	m, err := c.mapping(kind)
	if err != nil {
		return err
	}
	for i, name := range names {
		object, err := c.of(m, c.namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if i > 0 {
			fmt.Fprintln(o.Out)
		}
		if err := o.describeObject(ctx, c, object); err != nil {
			return err
		}
	}
	return nil
}

func (o *options) describeObject(ctx context.Context, c *connection, object *unstructured.Unstructured) error {
	fmt.Fprintf(o.Out, "Name:        %s\n", object.GetName())
	if object.GetNamespace() != "" {
		fmt.Fprintf(o.Out, "Namespace:   %s\n", object.GetNamespace())
	}
	fmt.Fprintf(o.Out, "Kind:        %s (%s)\nCreated:     %s\nGeneration:  %d\n", object.GetKind(), object.GetAPIVersion(),
		object.GetCreationTimestamp().UTC().Format(time.RFC3339), object.GetGeneration())
	if deleted := object.GetDeletionTimestamp(); deleted != nil {
		fmt.Fprintf(o.Out, "Deleting:    since %s, waiting for %s\n", deleted.UTC().Format(time.RFC3339), strings.Join(object.GetFinalizers(), ", "))
	}
	for _, pairs := range []struct {
		name   string
		values map[string]string
	}{{"Labels", object.GetLabels()}, {"Annotations", object.GetAnnotations()}} {
		for i, key := range slices.Sorted(maps.Keys(pairs.values)) {
			name := ""
			if i == 0 {
				name = pairs.name + ":"
			}
			fmt.Fprintf(o.Out, "%-12s %s=%s\n", name, key, pairs.values[key])
		}
	}
	if err := o.describeConditions(object); err != nil {
		return err
	}
	unstructured.RemoveNestedField(object.Object, "status", "conditions")
	if err := o.describeProposal(object); err != nil {
		return err
	}
	for _, section := range []string{"spec", "status"} {
		if err := o.describeSection(object, section); err != nil {
			return err
		}
	}
	return o.describeEvents(ctx, c, object)
}

func (o *options) describeConditions(object *unstructured.Unstructured) error {
	conditions, _, err := unstructured.NestedSlice(object.Object, "status", "conditions")
	if err != nil || len(conditions) == 0 {
		return nil //nolint:nilerr // another kind's status may have any shape
	}
	var rows [][]string
	for _, entry := range conditions {
		if condition, ok := entry.(map[string]any); ok {
			rows = append(rows, []string{
				"  " + text(condition["type"]), text(condition["status"]), text(condition["reason"]),
				text(condition["lastTransitionTime"]), text(condition["message"]),
			})
		}
	}
	fmt.Fprintln(o.Out, "\nConditions:")
	return printTable(o.Out, []string{"  TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"}, rows)
}

// describeProposal shows what the moves of an Operation are to bring as tables.
func (o *options) describeProposal(object *unstructured.Unstructured) error {
	content, found, err := unstructured.NestedMap(object.Object, "status", "proposal")
	if err != nil || !found || object.GroupVersionKind() != api.GroupVersion.WithKind("Operation") {
		return nil //nolint:nilerr // another kind's status may have any shape
	}
	var p api.OperationProposal
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, &p); err != nil {
		return fmt.Errorf("read the proposal of Operation %s: %w", object.GetName(), err)
	}
	unstructured.RemoveNestedField(object.Object, "status", "proposal")
	fmt.Fprintf(o.Out, "\nProposal: %s\n", proposalText(&p))
	return printProposal(o.Out, &p)
}

func text(v any) string {
	if v == nil {
		return ""
	}
	return strings.ReplaceAll(fmt.Sprint(v), "\n", " ")
}

func (o *options) describeSection(object *unstructured.Unstructured, section string) error {
	content, ok := object.Object[section].(map[string]any)
	if !ok || len(content) == 0 {
		return nil
	}
	data, err := yaml.Marshal(content)
	if err != nil {
		return fmt.Errorf("write %s: %w", section, err)
	}
	fmt.Fprintf(o.Out, "\n%s:\n", strings.ToUpper(section[:1])+section[1:])
	for line := range strings.Lines(string(data)) {
		fmt.Fprint(o.Out, "  ", line)
	}
	return nil
}

func (o *options) describeEvents(ctx context.Context, c *connection, object *unstructured.Unstructured) error {
	events := c.dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "events"})
	list, err := events.Namespace(cmp.Or(object.GetNamespace(), metav1.NamespaceDefault)).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.uid=" + string(object.GetUID()), Limit: pageSize,
	})
	if err != nil {
		return fmt.Errorf("list the events: %w", err)
	}
	if len(list.Items) == 0 {
		return nil
	}
	var rows [][]string
	for _, e := range list.Items {
		when := text(e.Object["lastTimestamp"])
		if when == "" {
			when = text(e.Object["eventTime"])
		}
		rows = append(rows, []string{"  " + when, text(e.Object["type"]), text(e.Object["reason"]), text(e.Object["message"])})
	}
	slices.SortFunc(rows, func(a, b []string) int { return cmp.Compare(a[0], b[0]) })
	fmt.Fprintln(o.Out, "\nEvents:")
	return printTable(o.Out, []string{"  LAST SEEN", "TYPE", "REASON", "MESSAGE"}, rows)
}
