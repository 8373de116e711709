package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/packages"
)

// PortRange is a range of ports, both ends included.
type PortRange struct{ From, To int32 }

// The ports that nodes of this machine get when a listener's own is taken.
const (
	defaultPortFrom = 19000
	defaultPortTo   = 19999
)

// What `up` makes when it is given no file.
const (
	defaultName      = "kafka"
	defaultNamespace = "default"
	defaultNodes     = 3
	defaultPool      = "nodes"
	defaultHeap      = "512Mi"
	clientPort       = 9092
)

func object(kind, namespace, name string, spec map[string]any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	o.SetAPIVersion(api.GroupVersion.String())
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

// localHost is this machine as a Host.
func localHost(d Dir, ports *PortRange) *unstructured.Unstructured {
	spec := map[string]any{
		"address":           "127.0.0.1",
		"allowedNamespaces": []any{"*"},
		"dataRoots":         []any{d.DataRoot()},
		"portRange":         map[string]any{"from": int64(defaultPortFrom), "to": int64(defaultPortTo)},
		"listenerPorts":     string(api.PortsIfFree),
	}
	if ports != nil {
		spec["portRange"] = map[string]any{"from": int64(ports.From), "to": int64(ports.To)}
		spec["listenerPorts"] = string(api.PortsFromRange)
	}
	return object("Host", "", HostName, spec)
}

// builtinPackages are the Packages of the versions that Castellan knows how to get. The
// user's own store is asked first: who puts an archive there needs no network.
func builtinPackages(store string) ([]*unstructured.Unstructured, error) {
	catalog, err := packages.Builtin()
	if err != nil {
		return nil, fmt.Errorf("read the built-in packages: %w", err)
	}
	objects := make([]*unstructured.Unstructured, 0, len(catalog))
	for _, s := range catalog {
		sources := []any{map[string]any{"cache": store}}
		for _, source := range s.Sources {
			sources = append(sources, map[string]any{"maven": map[string]any{"lock": source.Maven}})
		}
		objects = append(objects, object("Package", "", strings.ToLower(s.Product)+"-"+s.Version, map[string]any{
			"product": s.Product, "version": s.Version, "sources": sources,
		}))
	}
	return objects, nil
}

// newestKafka is the newest version in the built-in catalog.
func newestKafka() (string, error) {
	catalog, err := packages.Builtin()
	if err != nil {
		return "", fmt.Errorf("read the built-in packages: %w", err)
	}
	versions := catalog.Versions(string(api.ProductKafka))
	if len(versions) == 0 {
		return "", errors.New("no version of Kafka is built in: give one with -f and a Package")
	}
	return versions[len(versions)-1], nil
}

// mostNodesHere is how many nodes of a generated cluster this machine may be given later on.
const mostNodesHere = 100

// generatedCluster is the KafkaCluster that `up` makes when it is given no file: combined
// nodes on this machine with a plaintext listener on loopback.
func generatedCluster(version string, nodes int, config map[string]any) *unstructured.Unstructured {
	return object("KafkaCluster", defaultNamespace, defaultName, map[string]any{
		"version": version,
		"config":  config,
		"pools": []any{map[string]any{
			"name":      defaultPool,
			"roles":     []any{string(api.RoleBroker), string(api.RoleController)},
			"replicas":  int64(nodes),
			"jvm":       map[string]any{"heap": defaultHeap},
			"placement": map[string]any{"hosts": map[string]any{"maxPerHost": int64(mostNodesHere)}},
		}},
		"listeners": []any{map[string]any{"name": "plain", "port": int64(clientPort)}},
	})
}

// replication makes topics as safe as so many brokers can: three copies, one may be missing.
func replication(version string, nodes int) map[string]any {
	copies := min(nodes, 3)
	enough := max(1, copies-1)
	config := map[string]any{}
	for key, value := range map[string]int{
		"default.replication.factor":                       copies,
		"min.insync.replicas":                              enough,
		"offsets.topic.replication.factor":                 copies,
		"transaction.state.log.replication.factor":         copies,
		"transaction.state.log.min.isr":                    enough,
		"share.coordinator.state.topic.replication.factor": copies,
		"share.coordinator.state.topic.min.isr":            enough,
	} {
		if knows(version, key) {
			config[key] = int64(value)
		}
	}
	return config
}

// readObjects reads the objects of a file, "-" for standard input. A namespaced one
// without namespace is of the namespace default.
func readObjects(file string) ([]*unstructured.Unstructured, error) {
	name := file
	if file == "-" {
		name = "/dev/stdin"
	}
	data, err := os.ReadFile(name) //nolint:gosec // the user names the file
	if err != nil {
		return nil, fmt.Errorf("read the objects to apply: %w", err)
	}
	objects, err := parseDocuments(string(data))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(objects) == 0 {
		return nil, fmt.Errorf("%s holds no object: give a KafkaCluster", file)
	}
	for _, o := range objects {
		if o.GetKind() == "KafkaCluster" && o.GetNamespace() == "" {
			o.SetNamespace(defaultNamespace)
		}
	}
	return objects, nil
}

// clustersOf returns the KafkaClusters among objects, typed.
func clustersOf(objects []*unstructured.Unstructured) ([]*api.KafkaCluster, error) {
	var clusters []*api.KafkaCluster
	for _, o := range objects {
		if o.GetKind() != "KafkaCluster" || o.GroupVersionKind().Group != api.GroupVersion.Group {
			continue
		}
		c := &api.KafkaCluster{}
		if err := convert(o, c); err != nil {
			return nil, fmt.Errorf("read KafkaCluster %s: %w", o.GetName(), err)
		}
		clusters = append(clusters, c)
	}
	return clusters, nil
}

// convert goes through JSON: the converter of apimachinery cannot read a number into a
// type that reads it as text (api.ConfigValue).
func convert(o *unstructured.Unstructured, into any) error {
	data, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// heaps lists the Java heaps of a cluster's nodes, in bytes.
func heaps(clusters []*api.KafkaCluster) []int64 {
	var all []int64
	for _, c := range clusters {
		for _, p := range c.Spec.Pools {
			heap := int64(1 << 30)
			if p.JVM.Heap != nil {
				heap = p.JVM.Heap.Value()
			}
			for range p.Replicas {
				all = append(all, heap)
			}
		}
	}
	return all
}

// packageSpecs finds how to get the versions that clusters want: from the Packages beside
// them in the file, else built in. A version that nobody here provides is left to the
// operator, which knows the Packages on the API server.
func packageSpecs(clusters []*api.KafkaCluster, objects []*unstructured.Unstructured, store string) ([]packages.Spec, error) {
	builtin, err := builtinPackages(store)
	if err != nil {
		return nil, err
	}
	var specs []packages.Spec
	seen := map[string]bool{}
	for _, c := range clusters {
		if seen[c.Spec.Version] {
			continue
		}
		seen[c.Spec.Version] = true
		spec, ok, err := findPackage(c, slices.Concat(objects, builtin))
		if err != nil {
			return nil, err
		}
		if ok {
			specs = append(specs, spec)
		}
	}
	return specs, nil
}

func findPackage(c *api.KafkaCluster, objects []*unstructured.Unstructured) (packages.Spec, bool, error) {
	for _, o := range objects {
		if o.GetKind() != "Package" || o.GroupVersionKind().Group != api.GroupVersion.Group {
			continue
		}
		var p api.Package
		if err := convert(o, &p); err != nil {
			return packages.Spec{}, false, fmt.Errorf("read Package %s: %w", o.GetName(), err)
		}
		if p.Spec.Product == api.ProductKafka && p.Spec.Version == c.Spec.Version && (c.Spec.Package == "" || c.Spec.Package == p.Name) {
			return packageSpec(p.Spec), true, nil
		}
	}
	return packages.Spec{}, false, nil
}

func packageSpec(p api.PackageSpec) packages.Spec {
	s := packages.Spec{Product: string(p.Product), Version: p.Version}
	for _, source := range p.Sources {
		converted := packages.Source{URL: source.URL, SHA512: source.SHA512, Cache: source.Cache}
		if source.Maven != nil {
			converted.Maven = source.Maven.Lock
		}
		s.Sources = append(s.Sources, converted)
	}
	return s
}
