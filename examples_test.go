package castellan_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/packages"
)

// An example that is refused, or warned about, teaches the wrong thing.
func TestExamplesAreAcceptedWithoutAWarning(t *testing.T) {
	files, err := filepath.Glob("examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("find the examples: %v, %v", files, err)
	}
	catalog := builtin(t)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("read the example: %v", err)
		}
		var kc api.KafkaCluster
		if err := yaml.UnmarshalStrict(text, &kc); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		m, problems := cluster.Resolve(cluster.Input{Namespace: kc.Namespace, Name: kc.Name, Spec: kc.Spec, Catalog: catalog})
		for _, p := range problems {
			t.Errorf("%s: %s", file, p)
		}
		want := 0
		for _, p := range kc.Spec.Pools {
			want += int(p.Replicas)
		}
		if len(m.Nodes) != want {
			t.Errorf("%s resolves to %d nodes, want %d", file, len(m.Nodes), want)
		}
	}
}

func TestExamplesOfTopicsAndUsersAreAccepted(t *testing.T) {
	files, err := filepath.Glob("examples/clients/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("find the examples: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("read the example: %v", err)
		}
		for document := range strings.SplitSeq(string(text), "\n---\n") {
			var topic api.KafkaTopic
			var user api.KafkaUser
			problem := ""
			if strings.Contains(document, "kind: KafkaTopic") {
				err = yaml.UnmarshalStrict([]byte(document), &topic)
				problem = entities.CheckTopic(&topic)
			} else {
				err = yaml.UnmarshalStrict([]byte(document), &user)
				problem = entities.CheckUser(&user)
			}
			if err != nil || problem != "" {
				t.Errorf("%s: %v %s, in:\n%s", file, err, problem, document)
			}
		}
	}
}

// builtin is a catalog with the versions that Castellan itself knows how to get.
func builtin(t *testing.T) cluster.Catalog {
	t.Helper()
	specs, err := packages.Builtin()
	if err != nil {
		t.Fatalf("read the built-in packages: %v", err)
	}
	var c cluster.Catalog
	for _, s := range specs {
		c.Packages = append(c.Packages, api.Package{Spec: api.PackageSpec{Product: api.Product(s.Product), Version: s.Version}})
	}
	return c
}
