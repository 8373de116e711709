package cli

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// mappings resolves what a user calls a kind: kc, kafkacluster, kafkaclusters.castellan.dev,
// several with commas, or a category such as castellan.
func (c *connection) mappings(argument string) ([]*meta.RESTMapping, error) {
	var mappings []*meta.RESTMapping
	for word := range strings.SplitSeq(argument, ",") {
		if resources, ok := c.expander.Expand(word); ok {
			for _, r := range resources {
				m, err := c.mapping(r.String())
				if err != nil {
					return nil, err
				}
				mappings = append(mappings, m)
			}
			continue
		}
		m, err := c.mapping(word)
		if err != nil {
			return nil, err
		}
		mappings = append(mappings, m)
	}
	return mappings, nil
}

func (c *connection) mapping(word string) (*meta.RESTMapping, error) {
	resource := schema.ParseGroupResource(strings.ToLower(word))
	kind, err := c.mapper.KindFor(resource.WithVersion(""))
	if meta.IsNoMatchError(err) {
		return nil, &NotFoundError{Message: fmt.Sprintf("the API server knows no kind %q; Castellan's are kafkacluster (kc), kafkanode (kn), clusterrevision (cr), operation (op), host (kh), hostprocess (hp) and package (kp)", word)}
	}
	if err != nil {
		return nil, fmt.Errorf("resolve kind %s: %w", word, err)
	}
	m, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, fmt.Errorf("resolve kind %s: %w", word, err)
	}
	return m, nil
}

// resource is where an object is written and read.
func (c *connection) resource(o *unstructured.Unstructured) (dynamic.ResourceInterface, *meta.RESTMapping, error) { //nolint:ireturn // client-go gives only the interface
	gvk := o.GroupVersionKind()
	m, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) {
		return nil, nil, &NotFoundError{Message: fmt.Sprintf("the API server knows no %s of %s: check kind and apiVersion", gvk.Kind, gvk.GroupVersion())}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("resolve %s: %w", gvk.Kind, err)
	}
	if m.Scope.Name() == meta.RESTScopeNameNamespace && o.GetNamespace() == "" {
		o.SetNamespace(c.namespace)
	}
	return c.of(m, o.GetNamespace()), m, nil
}

func (c *connection) of(m *meta.RESTMapping, namespace string) dynamic.ResourceInterface { //nolint:ireturn // client-go gives only the interface
	r := c.dynamic.Resource(m.Resource)
	if m.Scope.Name() == meta.RESTScopeNameNamespace {
		return r.Namespace(namespace)
	}
	return r
}

// title names an object as kubectl does: kafkacluster.castellan.dev/orders.
func title(m *meta.RESTMapping, name string) string {
	kind := strings.ToLower(m.GroupVersionKind.Kind)
	if group := m.GroupVersionKind.Group; group != "" {
		kind += "." + group
	}
	return kind + "/" + name
}
