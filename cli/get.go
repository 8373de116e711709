package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type getOptions struct {
	*options
	allNamespaces bool
	selector      string
	output        string
}

func getCommand(o *options) *cobra.Command {
	g := &getOptions{options: o}
	cmd := &cobra.Command{
		Use:   "get KIND[,KIND...] [NAME...]",
		Short: "Show objects, one a line",
		Long: `Show objects, one a line, in the columns that the API server gives.

KIND is any kind that the server knows, by its name or short name: kafkacluster (kc),
kafkanode (kn), host (kh), package (kp), or castellan for all of Castellan's own.`,
		Example: "  castellan get kc\n  castellan get kafkanodes -o wide\n  castellan get kc orders -o yaml",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return g.run(cmd.Context(), args[0], args[1:]) },
	}
	o.addNamespace(cmd)
	cmd.Flags().BoolVarP(&g.allNamespaces, "all-namespaces", "A", false, "objects of every namespace")
	cmd.Flags().StringVarP(&g.selector, "selector", "l", "", "only objects with these labels: key=value,...")
	addOutput(cmd.Flags(), &g.output, "wide", "json", "yaml", "name")
	return cmd
}

func (g *getOptions) run(ctx context.Context, kinds string, names []string) error {
	if err := checkOutput(g.output, "wide", "json", "yaml", "name"); err != nil {
		return err
	}
	if kind, name, ok := strings.Cut(kinds, "/"); ok {
		kinds, names = kind, append([]string{name}, names...)
	}
	if len(names) > 0 && (g.allNamespaces || g.selector != "") {
		return usagef("a name goes with neither --all-namespaces nor --selector")
	}
	c, err := g.connect()
	if err != nil {
		return err
	}
	mappings, err := c.mappings(kinds)
	if err != nil {
		return err
	}
	if g.output == "" || g.output == "wide" {
		return g.tables(ctx, c, mappings, names)
	}
	return g.objects(ctx, c, mappings, names)
}

func (g *getOptions) tables(ctx context.Context, c *connection, mappings []*meta.RESTMapping, names []string) error {
	printed := 0
	for _, m := range mappings {
		t, err := g.table(ctx, c, m, names)
		if err != nil {
			return err
		}
		if len(t.Rows) == 0 {
			continue
		}
		if printed > 0 {
			fmt.Fprintln(g.Out)
		}
		printed++
		namespaced := m.Scope.Name() == meta.RESTScopeNameNamespace
		view := tableView{wide: g.output == "wide", namespace: g.allNamespaces && namespaced, kind: len(mappings) > 1, mapping: m}
		if err := view.print(g.Out, t); err != nil {
			return err
		}
	}
	if printed == 0 {
		g.tellNone(c)
	}
	return nil
}

// table reads all objects of a kind, or the named ones, into one table.
func (g *getOptions) table(ctx context.Context, c *connection, m *meta.RESTMapping, names []string) (*metav1.Table, error) {
	q := tableQuery{mapping: m, namespace: c.namespace, selector: g.selector}
	if g.allNamespaces {
		q.namespace = ""
	}
	if len(names) == 0 {
		return c.table(ctx, q)
	}
	var all *metav1.Table
	for _, name := range names {
		q.name = name
		t, err := c.table(ctx, q)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = t
		} else {
			all.Rows = append(all.Rows, t.Rows...)
		}
	}
	return all, nil
}

func (g *getOptions) tellNone(c *connection) {
	if g.allNamespaces {
		fmt.Fprintln(g.Err, "Nothing found.")
		return
	}
	fmt.Fprintf(g.Err, "Nothing found in namespace %s.\n", c.namespace)
}

func (g *getOptions) objects(ctx context.Context, c *connection, mappings []*meta.RESTMapping, names []string) error {
	var found []unstructured.Unstructured
	var kinds []*meta.RESTMapping
	for _, m := range mappings {
		items, err := g.read(ctx, c, m, names)
		if err != nil {
			return err
		}
		for range items {
			kinds = append(kinds, m)
		}
		found = append(found, items...)
	}
	if g.output == "name" {
		for i, o := range found {
			fmt.Fprintln(g.Out, title(kinds[i], o.GetName()))
		}
		return nil
	}
	for i := range found {
		found[i].SetManagedFields(nil)
	}
	if len(names) == 1 && len(found) == 1 {
		return printData(g.Out, g.output, found[0].Object)
	}
	items := make([]any, len(found))
	for i := range found {
		items[i] = found[i].Object
	}
	return printData(g.Out, g.output, map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
}

func (g *getOptions) read(ctx context.Context, c *connection, m *meta.RESTMapping, names []string) ([]unstructured.Unstructured, error) {
	namespace := c.namespace
	if g.allNamespaces {
		namespace = ""
	}
	resource := c.of(m, namespace)
	var found []unstructured.Unstructured
	for _, name := range names {
		o, err := resource.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		found = append(found, *o)
	}
	if len(names) > 0 {
		return found, nil
	}
	options := metav1.ListOptions{LabelSelector: g.selector, Limit: pageSize}
	for {
		list, err := resource.List(ctx, options)
		if err != nil {
			return nil, err
		}
		found = append(found, list.Items...)
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return found, nil
		}
	}
}
