package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// envHelm names the helm to render with; without it bin/helm of the module is taken.
const envHelm = "CASTELLAN_HELM"

// helm runs helm, whose errors are part of what is asserted.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	binary := os.Getenv(envHelm)
	if binary == "" {
		binary = filepath.Join("..", "bin", "helm")
	}
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("no helm to render with: %v: build test/kube's tools, or name one in %s", err, envHelm)
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	return out.String() + errs.String(), err
}

func render(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return helm(t, append([]string{"template", "castellan", "helm/castellan", "--namespace", DefaultNamespace, "--kube-version", "1.36.0"}, args...)...)
}

// TestChartRenders compares with the golden files; the definitions are left out of these.
func TestChartRenders(t *testing.T) {
	for _, name := range []string{"default", "namespaced", "everything"} {
		out, err := render(t, "--values", "testdata/"+name+".values.yaml")
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		var got strings.Builder
		for _, o := range documents(t, out) {
			if o.GetKind() != "CustomResourceDefinition" {
				got.WriteString("---\n" + encodeYAML(t, o.Object))
			}
		}
		golden := "testdata/" + name + ".golden.yaml"
		if *update {
			if err := os.WriteFile(golden, []byte(got.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("%s differs from what helm renders (- golden, + helm); if that is meant, run 'go test ./deploy -update':\n%s", golden, diff)
		}
	}
}

// TestChartIsWhatObjectsSays: helm, kubectl and castellan up install the same.
func TestChartIsWhatObjectsSays(t *testing.T) {
	for name, options := range map[string]Options{"default": {}, "namespaced": {WatchNamespaces: []string{"orders", "billing"}}} {
		out, err := render(t, "--values", "testdata/"+name+".values.yaml")
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		objects, err := Objects(options)
		if err != nil {
			t.Fatal(err)
		}
		want := byName(objects)
		delete(want, "Namespace "+DefaultNamespace) // helm makes the release's own
		if diff := cmp.Diff(want, byName(documents(t, out))); diff != "" {
			t.Errorf("%s: Objects and chart differ (- Objects, + chart):\n%s", name, diff)
		}
	}
}

func TestChartLeavesTheDefinitionsToAnother(t *testing.T) {
	out, err := render(t, "--set", "crds.install=false")
	if err != nil || strings.Contains(out, "CustomResourceDefinition") {
		t.Errorf("definitions are installed all the same, %v", err)
	}
}

func TestChartPassesLint(t *testing.T) {
	out, err := helm(t, "lint", "--strict", "--kube-version", "1.36.0", "helm/castellan")
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestChartRefusesBadValues(t *testing.T) {
	for values, reason := range map[string]string{
		"replicas=-1":                         "minimum",
		"watchNamespaces[0]=Orders":           "pattern",
		"logLevel=verbose":                    "one of",
		"certmanager.enabled=true":            "additional properties",
		"metrics.serviceMonitor.enabled=true": "metrics",
		"resources.limits.memory=null":        "memory",
	} {
		out, err := render(t, "--set", values)
		if err == nil || !strings.Contains(out, reason) {
			t.Errorf("%s: %v does not say %q:\n%s", values, err, reason, out)
		}
	}
}

func documents(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	for document := range strings.SplitSeq("\n"+text, "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
	return out
}

// byName are objects as YAML, by kind and name.
func byName(objects []*unstructured.Unstructured) map[string]any {
	out := map[string]any{}
	for _, o := range objects {
		key := strings.TrimSpace(o.GetKind() + " " + strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/"))
		data, err := yaml.Marshal(o.Object)
		if err != nil {
			out[key] = err
			continue
		}
		out[key] = string(data)
	}
	return out
}
