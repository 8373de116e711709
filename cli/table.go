package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// The server prints the columns itself, so that they are kubectl's.
const acceptTable = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

// tableQuery says which objects to show.
type tableQuery struct {
	mapping   *meta.RESTMapping
	namespace string // "" is all
	name      string // "" is all
	selector  string
}

// pageSize bounds one answer of the server.
const pageSize = 500

func (c *connection) table(ctx context.Context, q tableQuery) (*metav1.Table, error) {
	client, err := c.rawClient(q.mapping.GroupVersionKind.GroupVersion())
	if err != nil {
		return nil, err
	}
	var all *metav1.Table
	for next := ""; ; {
		page, err := q.page(ctx, client, next)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = page
		} else {
			all.Rows = append(all.Rows, page.Rows...)
		}
		if next = page.Continue; next == "" {
			return all, nil
		}
	}
}

func (q tableQuery) page(ctx context.Context, client rest.Interface, next string) (*metav1.Table, error) {
	request := client.Get().SetHeader("Accept", acceptTable).Resource(q.mapping.Resource.Resource).Param("includeObject", "Metadata")
	if q.mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		request = request.NamespaceIfScoped(q.namespace, q.namespace != "")
	}
	if q.name != "" {
		request = request.Name(q.name)
	} else {
		request = request.Param("limit", fmt.Sprint(pageSize))
		for key, value := range map[string]string{"labelSelector": q.selector, "continue": next} {
			if value != "" {
				request = request.Param(key, value)
			}
		}
	}
	result := request.Do(ctx)
	if err := result.Error(); err != nil {
		return nil, err // the server's own words; Raw would not read them
	}
	raw, err := result.Raw()
	if err != nil {
		return nil, fmt.Errorf("read the server's table: %w", err)
	}
	var t metav1.Table
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, fmt.Errorf("read the server's table: %w", err)
	}
	return &t, nil
}

func (c *connection) rawClient(gv schema.GroupVersion) (rest.Interface, error) { //nolint:ireturn // client-go gives only the interface
	config := rest.CopyConfig(c.config)
	config.GroupVersion = &gv
	config.APIPath = "/apis"
	if gv.Group == "" {
		config.APIPath = "/api"
	}
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return client, nil
}

// tableView is how a table is shown.
type tableView struct {
	wide, namespace, kind bool
	mapping               *meta.RESTMapping
}

func (v tableView) print(w io.Writer, t *metav1.Table) error {
	var header []string
	if v.namespace {
		header = append(header, "NAMESPACE")
	}
	var shown []int
	for i, column := range t.ColumnDefinitions {
		if column.Priority == 0 || v.wide {
			shown = append(shown, i)
			header = append(header, strings.ToUpper(column.Name))
		}
	}
	rows := make([][]string, 0, len(t.Rows))
	for _, r := range t.Rows {
		rows = append(rows, v.row(r, shown))
	}
	return printTable(w, header, rows)
}

func (v tableView) row(r metav1.TableRow, shown []int) []string {
	var row []string
	if v.namespace {
		row = append(row, metadataOf(r).Namespace)
	}
	for _, i := range shown {
		text := ""
		if i < len(r.Cells) && r.Cells[i] != nil {
			text = cellText(r.Cells[i])
		}
		if v.kind && i == shown[0] {
			text = title(v.mapping, text)
		}
		row = append(row, text)
	}
	return row
}

// cellText prints a JSON value; whole numbers come as floats.
func cellText(cell any) string {
	if f, ok := cell.(float64); ok && f == float64(int64(f)) {
		return fmt.Sprint(int64(f))
	}
	return strings.ReplaceAll(fmt.Sprint(cell), "\n", " ")
}

func metadataOf(r metav1.TableRow) metav1.ObjectMeta {
	var o metav1.PartialObjectMetadata
	if err := json.Unmarshal(r.Object.Raw, &o); err != nil {
		return metav1.ObjectMeta{}
	}
	return o.ObjectMeta
}
