package crds_test

import (
	"io/fs"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"castellan.dev/castellan/api/crds"
)

// bound is what all definitions together may have as JSON, in bytes: an API server keeps
// several copies of each, and kubectl and Helm carry them around.
const bound = 400 << 10

func size(t testing.TB) int {
	t.Helper()
	names, err := fs.Glob(crds.Files, "*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no definitions: %v", err)
	}
	total := 0
	for _, name := range names {
		content, err := fs.ReadFile(crds.Files, name)
		if err != nil {
			t.Fatal(err)
		}
		data, err := yaml.YAMLToJSONStrict(content)
		if err != nil {
			t.Fatalf("%s: %v", strings.TrimSuffix(name, ".yaml"), err)
		}
		total += len(data)
	}
	return total
}

func TestDefinitionsStaySmall(t *testing.T) {
	if total := size(t); total > bound {
		t.Errorf("the definitions have %d bytes of JSON, more than %d: shorten descriptions (crd:maxDescLen) or embed less", total, bound)
	}
}

func BenchmarkDefinitions(b *testing.B) {
	total := 0
	for b.Loop() {
		total = size(b)
	}
	b.ReportMetric(float64(total)/1024, "KiB-JSON")
	b.ReportMetric(bound/1024, "KiB-bound")
}
