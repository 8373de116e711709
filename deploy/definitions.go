package deploy

import (
	"fmt"
	"io/fs"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"castellan.dev/castellan/api/crds"
)

// keep tells helm to leave the definitions when the chart is uninstalled: with them every
// cluster's description would go.
const keep = "helm.sh/resource-policy"

// definitions are the CustomResourceDefinitions, all of them: an API server knows the same
// kinds wherever its nodes run.
func definitions() ([]*unstructured.Unstructured, error) {
	files, err := fs.Glob(crds.Files, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list the definitions: %w", err)
	}
	out := make([]*unstructured.Unstructured, 0, len(files))
	for _, file := range files {
		data, err := crds.Files.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(data, &u.Object); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		annotations := u.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[keep] = "keep"
		u.SetAnnotations(annotations)
		out = append(out, u)
	}
	return out, nil
}
