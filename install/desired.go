package install

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
)

// What is made when nobody says otherwise.
const (
	defaultNodes  = 3
	defaultPool   = "nodes"
	defaultVolume = "data"
	defaultSize   = "10Gi"
	defaultHeap   = "512Mi"
	defaultMemory = "1Gi"
	plainListener = "plain"
	plainPort     = 9092
	outerListener = "external"
	outerPort     = 9094
)

// wish is what shall be in Kubernetes at the end.
type wish struct {
	operator []*unstructured.Unstructured
	objects  []*unstructured.Unstructured
	// force takes fields over that somebody else has set: only for what flags ask for.
	force bool
	// clusters to wait for, as they are wished for; those that exist and stay as they are
	// come from the API server.
	clusters []*api.KafkaCluster
	existing bool
}

// wish decides what to write: the objects of the file, the cluster of the flags, or nothing
// where it exists and no flag asks for a change.
func (s *session) wish(ctx context.Context, m *machines) (*wish, error) {
	w := &wish{objects: s.Objects}
	if len(s.Objects) == 0 {
		existing, err := s.existing(ctx)
		if err != nil {
			return nil, err
		}
		if existing != nil && !s.Shape.asked() {
			w.clusters, w.existing = []*api.KafkaCluster{existing}, true
			return w, nil
		}
		w.objects, w.force = []*unstructured.Unstructured{s.Shape.cluster(s.Namespace, s.NewestKafka, existing, m)}, true
	}
	for _, o := range w.objects {
		if o.GroupVersionKind().GroupKind() != (schema.GroupKind{Group: api.GroupVersion.Group, Kind: "KafkaCluster"}) {
			continue
		}
		if o.GetNamespace() == "" {
			o.SetNamespace(s.Namespace)
		}
		c := &api.KafkaCluster{}
		if err := convert(o, c); err != nil {
			return nil, fmt.Errorf("read KafkaCluster %s: %w", o.GetName(), err)
		}
		for i := range c.Spec.Pools {
			if c.Spec.Pools[i].Placement.Kubernetes == nil {
				return nil, &RefusedError{Message: fmt.Sprintf("pool %s of KafkaCluster %s has no placement.kubernetes: it would wait for hosts forever", c.Spec.Pools[i].Name, c.Name)}
			}
		}
		w.clusters = append(w.clusters, c)
	}
	if len(w.clusters) == 0 {
		return nil, &RefusedError{Message: "the file of -f holds no KafkaCluster"}
	}
	return w, nil
}

// existing is the cluster that an earlier run has made; nothing where there is none yet.
func (s *session) existing(ctx context.Context) (*api.KafkaCluster, error) {
	c := &api.KafkaCluster{}
	err := s.client.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: defaultCluster}, c)
	if absent(err) || apierrors.IsForbidden(err) { // the right is among what is checked
		return nil, nil //nolint:nilnil // nothing is an answer here
	}
	if err != nil {
		return nil, fmt.Errorf("read KafkaCluster %s/%s: %w", s.Namespace, defaultCluster, err)
	}
	return c, nil
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

// complete takes from what exists whatever no flag says, so that one flag changes one thing.
func (s Shape) complete(existing *api.KafkaCluster, newest string) Shape {
	if existing != nil {
		s.KafkaVersion = cmp.Or(s.KafkaVersion, existing.Spec.Version)
		for _, p := range existing.Spec.Pools {
			if p.Name != defaultPool {
				continue
			}
			s.Nodes = cmp.Or(s.Nodes, int(p.Replicas))
			if p.Placement.Kubernetes != nil {
				s.Image = cmp.Or(s.Image, p.Placement.Kubernetes.Image)
			}
			for _, v := range p.Volumes {
				s.StorageClass = cmp.Or(s.StorageClass, v.StorageClassName)
				if v.Size != nil {
					s.VolumeSize = cmp.Or(s.VolumeSize, v.Size.String())
				}
			}
		}
		for _, l := range existing.Spec.Listeners {
			if l.Name == outerListener {
				s.Expose = cmp.Or(s.Expose, l.Exposure.Type)
			}
		}
	}
	s.KafkaVersion = cmp.Or(s.KafkaVersion, newest)
	s.Nodes, s.VolumeSize = cmp.Or(s.Nodes, defaultNodes), cmp.Or(s.VolumeSize, defaultSize)
	s.Expose = cmp.Or(s.Expose, api.ExposureInternal)
	return s
}

// cluster is the KafkaCluster of the flags: combined nodes, spread over zones and machines
// as far as there are any, with a listener for clients inside and one for those outside.
func (s Shape) cluster(namespace, newest string, existing *api.KafkaCluster, m *machines) *unstructured.Unstructured {
	s = s.complete(existing, newest)
	spread := api.SpreadZone
	if m.usable() < s.Nodes {
		spread = api.SpreadNone
	}
	config := replication(s.KafkaVersion, s.Nodes)
	if existing != nil {
		config = configOf(existing)
		if kept := existing.Spec.Pools[0].Placement.Kubernetes; kept != nil {
			spread = cmp.Or(kept.Spread, spread)
		}
	}
	volume := map[string]any{"name": defaultVolume, "size": s.VolumeSize}
	if s.StorageClass != "" {
		volume["storageClassName"] = s.StorageClass
	}
	placement := map[string]any{"spread": string(spread)}
	if s.Image != "" {
		placement["image"] = s.Image
	}
	listeners := []any{map[string]any{"name": plainListener, "port": int64(plainPort)}}
	if s.Expose != api.ExposureInternal {
		listeners = append(listeners, map[string]any{
			"name": outerListener, "port": int64(outerPort), "tls": map[string]any{}, "exposure": map[string]any{"type": string(s.Expose)},
		})
	}
	o := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
		"version": s.KafkaVersion,
		"config":  config,
		"pools": []any{map[string]any{
			"name": defaultPool, "roles": []any{string(api.RoleBroker), string(api.RoleController)}, "replicas": int64(s.Nodes),
			"jvm": map[string]any{"heap": defaultHeap},
			"resources": map[string]any{
				"requests": map[string]any{string(corev1.ResourceCPU): "200m", string(corev1.ResourceMemory): defaultMemory},
				"limits":   map[string]any{string(corev1.ResourceMemory): defaultMemory},
			},
			"volumes":   []any{volume},
			"placement": map[string]any{"kubernetes": placement},
		}},
		"listeners": listeners,
	}}}
	o.SetGroupVersionKind(api.GroupVersion.WithKind("KafkaCluster"))
	o.SetNamespace(namespace)
	o.SetName(defaultCluster)
	return o
}

// configOf keeps a cluster's configuration as it is, in the form in which it was written:
// with more nodes a higher min.insync.replicas would close the topics that were made with
// fewer copies.
func configOf(c *api.KafkaCluster) map[string]any {
	config := map[string]any{}
	for key, value := range c.Spec.Config {
		config[key] = string(value)
		if n, err := strconv.ParseInt(string(value), 10, 64); err == nil {
			config[key] = n
		}
	}
	return config
}

// replication makes topics as safe as so many brokers can: three copies, one may be missing.
func replication(version string, nodes int) map[string]any {
	copies := min(nodes, 3)
	enough := max(1, copies-1)
	config := map[string]any{}
	table, _ := kconf.For(version)
	for key, value := range map[string]int{
		"default.replication.factor":                       copies,
		"min.insync.replicas":                              enough,
		"offsets.topic.replication.factor":                 copies,
		"transaction.state.log.replication.factor":         copies,
		"transaction.state.log.min.isr":                    enough,
		"share.coordinator.state.topic.replication.factor": copies,
		"share.coordinator.state.topic.min.isr":            enough,
	} {
		if _, known := table.Key(key); known {
			config[key] = int64(value)
		}
	}
	return config
}
