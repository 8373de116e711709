package deploy

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"castellan.dev/castellan/operator"
)

var update = flag.Bool("update", false, "write the generated files anew")

// TestGeneratedFiles: what is committed is what the code says.
func TestGeneratedFiles(t *testing.T) {
	for file, want := range map[string][]byte{
		"castellan.yaml":                      manifest(t),
		"helm/castellan/templates/crds.yaml":  definitionsTemplate(t),
		"helm/castellan/templates/_rules.tpl": rulesTemplate(t),
	} {
		if *update {
			if err := os.WriteFile(file, want, 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is older than the code (%v): run 'go test ./deploy -update'", file, err)
		}
	}
}

func encodeYAML(t *testing.T, v any) string {
	t.Helper()
	data, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func manifest(t *testing.T) []byte {
	t.Helper()
	objects, err := Objects(Options{})
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.NewBufferString("# Castellan's operator for all namespaces of a Kubernetes cluster. Generated: go test ./deploy -update\n")
	out.WriteString("# kubectl apply --server-side -f castellan.yaml   (server-side: the definitions are too long for kubectl's annotation)\n")
	for _, o := range objects {
		fmt.Fprintf(out, "---\n%s", encodeYAML(t, o.Object))
	}
	return out.Bytes()
}

func definitionsTemplate(t *testing.T) []byte {
	t.Helper()
	all, err := definitions()
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.NewBufferString("{{- /* Generated: go test ./deploy -update. As templates, so that helm upgrade upgrades them; kept by helm uninstall. */}}\n{{- if .Values.crds.install }}\n")
	for _, d := range all {
		text := encodeYAML(t, d.Object)
		if strings.Contains(text, "{{") {
			t.Fatalf("%s holds what helm would take for an action", d.GetName())
		}
		fmt.Fprintf(out, "---\n%s", text)
	}
	out.WriteString("{{- end }}\n")
	return out.Bytes()
}

func rulesTemplate(t *testing.T) []byte {
	t.Helper()
	const place = "place-of-the-operator"
	access := operator.KubernetesAccess(place)
	out := bytes.NewBufferString("{{- /* Generated: go test ./deploy -update. */}}\n")
	for _, set := range []struct {
		name  string
		rules []rbacv1.PolicyRule
	}{
		{"namespaced", access.Namespaced},
		{"cluster", slices.Concat(access.Cluster, access.Admission)},
		{"own", access.Own},
	} {
		text := strings.ReplaceAll(encodeYAML(t, set.rules), place, "{{ .Release.Namespace }}")
		fmt.Fprintf(out, "{{- define \"castellan.rules.%s\" -}}\n%s{{- end }}\n", set.name, text)
	}
	return out.Bytes()
}
