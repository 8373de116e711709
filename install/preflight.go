package install

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Supported Kubernetes: the newest minor version and the three before it.
const (
	newestMinor = 36
	oldestMinor = newestMinor - 3
)

// preflight collects what is missing and what is only worth a warning.
type preflight struct {
	*session
	missing, warnings []string
}

func (p *preflight) miss(format string, args ...any) {
	if item := fmt.Sprintf(format, args...); !slices.Contains(p.missing, item) {
		p.missing = append(p.missing, item)
	}
}

func (p *preflight) warn(format string, args ...any) {
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}

// preflight checks everything that can be known before anything is created, and changes nothing.
func (s *session) preflight(ctx context.Context, w *wish, m *machines) error {
	p := &preflight{session: s}
	if err := p.checkVersion(); err != nil {
		return err
	}
	p.checkMachines(m, w.clusters)
	for _, check := range []func(context.Context, *wish) error{
		p.checkRights, p.checkStorage, p.checkDefinitions, p.checkOperators, p.checkNamespaces, p.rehearse,
	} {
		if err := check(ctx, w); err != nil {
			return err
		}
	}
	for _, warning := range p.warnings {
		s.Done("Warning: %s", warning)
	}
	if len(p.missing) > 0 {
		return &MissingError{Items: p.missing}
	}
	return nil
}

func (p *preflight) checkVersion() error {
	v, err := p.discovery.ServerVersion()
	if err != nil {
		return fmt.Errorf("ask the API server for its version: %w", err)
	}
	minor, err := strconv.Atoi(strings.TrimRight(v.Minor, "+"))
	switch {
	case err != nil || v.Major != "1":
		p.warn("the API server calls itself %s: whether that is supported (1.%d to 1.%d) is not known", v.GitVersion, oldestMinor, newestMinor)
	case minor < oldestMinor:
		p.miss("Kubernetes 1.%d or newer: this is %s", oldestMinor, v.GitVersion)
	case minor > newestMinor:
		p.warn("Kubernetes %s is newer than 1.%d, the newest that this version of Castellan was tried on", v.GitVersion, newestMinor)
	}
	return nil
}

// checkStorage looks for the StorageClass of each volume.
func (p *preflight) checkStorage(ctx context.Context, w *wish) error {
	if w.existing {
		return nil
	}
	var list storagev1.StorageClassList
	err := p.client.List(ctx, &list)
	if apierrors.IsForbidden(err) {
		p.warn("StorageClasses cannot be listed with these rights: whether volumes can be provided shows only later")
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the StorageClasses: %w", err)
	}
	for _, name := range storageClasses(w.clusters) {
		p.checkClass(list.Items, name)
	}
	return nil
}

// storageClasses are the names that volumes ask for; "" is the default one.
func storageClasses(clusters []*api.KafkaCluster) []string {
	var names []string
	for _, c := range clusters {
		for _, pool := range c.Spec.Pools {
			if len(pool.Volumes) == 0 {
				names = append(names, "")
			}
			for _, v := range pool.Volumes {
				names = append(names, v.StorageClassName)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

const defaultClassAnnotation = "storageclass.kubernetes.io/is-default-class"

func (p *preflight) checkClass(classes []storagev1.StorageClass, name string) {
	var found *storagev1.StorageClass
	var names []string
	for i := range classes {
		c := &classes[i]
		names = append(names, c.Name)
		if c.Name == name || name == "" && c.Annotations[defaultClassAnnotation] == "true" {
			found = c
		}
	}
	has := "there is none"
	if len(names) > 0 {
		has = "there are: " + strings.Join(names, ", ")
	}
	switch {
	case found == nil && name == "":
		p.miss("a default StorageClass (%s): mark one with the annotation %s, or name one with --storage-class", has, defaultClassAnnotation)
	case found == nil:
		p.miss("the StorageClass %s (%s)", name, has)
	case found.AllowVolumeExpansion == nil || !*found.AllowVolumeExpansion:
		p.warn("StorageClass %s allows no expansion: volumes keep the size they are made with", found.Name)
	}
}

// checkDefinitions refuses types that another Castellan has defined differently.
func (p *preflight) checkDefinitions(ctx context.Context, w *wish) error {
	for _, o := range w.operator {
		if o.GetKind() != definitionKind {
			continue
		}
		var current apiextensionsv1.CustomResourceDefinition
		err := p.client.Get(ctx, client.ObjectKey{Name: o.GetName()}, &current)
		if absent(err) || apierrors.IsForbidden(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read CustomResourceDefinition %s: %w", o.GetName(), err)
		}
		var served []string
		for _, v := range current.Spec.Versions {
			if v.Served {
				served = append(served, v.Name)
			}
		}
		if !slices.Contains(served, api.GroupVersion.Version) || len(served) > 1 {
			p.miss("%s of version %s alone: it is there with %s, of another Castellan", o.GetName(), api.GroupVersion.Version, strings.Join(served, ", "))
		}
	}
	return nil
}

// checkNamespaces looks at the namespaces that exist already.
func (p *preflight) checkNamespaces(ctx context.Context, w *wish) error {
	for _, name := range w.namespaces(p.OperatorNamespace) {
		var n corev1.Namespace
		err := p.client.Get(ctx, client.ObjectKey{Name: name}, &n)
		if absent(err) || apierrors.IsForbidden(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read namespace %s: %w", name, err)
		}
		if n.Status.Phase == corev1.NamespaceTerminating {
			p.miss("namespace %s, which is being deleted: wait until it is gone", name)
			continue
		}
		if name != p.OperatorNamespace {
			p.tryPod(ctx, name)
		}
	}
	return nil
}

// namespaces are those of the objects, without the operator's own.
func (w *wish) namespaces(operator string) []string {
	var names []string
	for _, o := range w.objects {
		names = append(names, o.GetNamespace())
	}
	for _, c := range w.clusters {
		names = append(names, c.Namespace)
	}
	names = append(names, operator)
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(n string) bool { return n == "" })
}

// definitionKind is the kind of what defines Castellan's types.
const definitionKind = "CustomResourceDefinition"

// order puts what others need before them.
func order(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	first := map[string]int{"Namespace": -2, definitionKind: -1}
	sorted := slices.Clone(objects)
	slices.SortStableFunc(sorted, func(a, b *unstructured.Unstructured) int {
		return cmp.Compare(first[a.GetKind()], first[b.GetKind()])
	})
	return sorted
}
