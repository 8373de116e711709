package local

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"castellan.dev/castellan/api/crds"
	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/host"
	hostsub "castellan.dev/castellan/substrate/host"
)

//go:embed manifests/*.yaml
var manifests embed.FS

// Names of what is installed.
const (
	// HostName is the Host that stands for this machine.
	HostName        = "local"
	systemNamespace = "castellan-system"
	operatorAccount = "castellan-operator"
	agentAccount    = "castellan-agent"
	// serverManager is the field manager of what the server installs.
	serverManager = "castellan-server"
)

// restConfig connects with a kubeconfig. Warnings of the API server are not this
// package's to show.
func restConfig(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", kubeconfig, err)
	}
	config.QPS, config.Burst = 50, 100
	config.WarningHandlerWithContext = rest.NoWarnings{}
	return config, nil
}

func newClient(config *rest.Config) (client.Client, error) { //nolint:ireturn // client-go gives only the interface
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, api.AddToScheme} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("register API types: %w", err)
		}
	}
	c, err := client.New(config, client.Options{Scheme: s})
	if err != nil {
		return nil, fmt.Errorf("connect to the API server at %s: %w", config.Host, err)
	}
	return c, nil
}

// install brings the API server to what this version of Castellan needs: types, rights and
// the namespaces of operator and agent. What is there already is not written again.
func install(ctx context.Context, c client.Client) error {
	definitions, err := readDocuments(crds.Files, ".")
	if err != nil {
		return err
	}
	for _, d := range definitions {
		if err := apply(ctx, c, d, serverManager, true); err != nil {
			return err
		}
	}
	for _, d := range definitions {
		if err := awaitEstablished(ctx, c, d); err != nil {
			return err
		}
	}
	objects, err := readDocuments(manifests, "manifests")
	if err != nil {
		return err
	}
	enrolled, err := enrolment()
	if err != nil {
		return err
	}
	for _, o := range append(objects, enrolled...) {
		if err := apply(ctx, c, o, serverManager, true); err != nil {
			return err
		}
	}
	return nil
}

// enrolment is this machine's Host namespace with the account and the rights of its agent.
func enrolment() ([]*unstructured.Unstructured, error) {
	namespace := host.Namespace(HostName)
	account := &corev1.ServiceAccount{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: agentAccount},
	}
	subject := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: agentAccount}
	typed := append(hostsub.Enrolment(HostName, subject), account)
	objects := make([]*unstructured.Unstructured, 0, len(typed))
	for _, o := range typed {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			return nil, fmt.Errorf("encode %T %s: %w", o, o.GetName(), err)
		}
		delete(content, "status")
		unstructured.RemoveNestedField(content, "metadata", "creationTimestamp")
		objects = append(objects, &unstructured.Unstructured{Object: content})
	}
	return objects, nil
}

func apply(ctx context.Context, c client.Client, o *unstructured.Unstructured, manager string, force bool) error {
	options := []client.ApplyOption{client.FieldOwner(manager)}
	if force {
		options = append(options, client.ForceOwnership)
	}
	if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(o.DeepCopy()), options...); err != nil {
		return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

// awaitEstablished waits until the API server serves the type that a definition defines.
func awaitEstablished(ctx context.Context, c client.Client, definition *unstructured.Unstructured) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		current := definition.DeepCopy()
		if err := c.Get(ctx, client.ObjectKeyFromObject(definition), current); err != nil {
			return fmt.Errorf("read definition %s: %w", definition.GetName(), err)
		}
		if conditionIs(current, "Established", string(corev1.ConditionTrue)) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to be served: %w", definition.GetName(), ctx.Err())
		case <-ticker.C:
		}
	}
}

func conditionIs(o *unstructured.Unstructured, kind, status string) bool {
	conditions, _, err := unstructured.NestedSlice(o.Object, "status", "conditions")
	if err != nil {
		return false
	}
	for _, entry := range conditions {
		if c, ok := entry.(map[string]any); ok && c["type"] == kind {
			return c["status"] == status
		}
	}
	return false
}

// readDocuments reads every YAML document of a folder's files, in order of file name.
func readDocuments(files fs.FS, folder string) ([]*unstructured.Unstructured, error) {
	names, err := fs.Glob(files, pathIn(folder, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("list built-in objects: %w", err)
	}
	var objects []*unstructured.Unstructured
	for _, name := range names {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("read built-in objects: %w", err)
		}
		read, err := parseDocuments(string(data))
		if err != nil {
			return nil, fmt.Errorf("read built-in objects of %s: %w", name, err)
		}
		objects = append(objects, read...)
	}
	return objects, nil
}

func pathIn(folder, name string) string {
	if folder == "." {
		return name
	}
	return folder + "/" + name
}

func parseDocuments(text string) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	for i, document := range splitDocuments(text) {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
			return nil, fmt.Errorf("document %d is not YAML: %w", i+1, err)
		}
		if len(o.Object) == 0 {
			continue
		}
		if o.GetKind() == "" || o.GetAPIVersion() == "" {
			return nil, fmt.Errorf("document %d has no apiVersion and kind", i+1)
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// accepts says whether the API server is ready for everybody: its own rights and first
// namespaces are there, not only its port.
func accepts(ctx context.Context, config *rest.Config) error {
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return fmt.Errorf("connect to the API server: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("ask the API server whether it is ready: %w", err)
	}
	response, err := httpClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask the API server whether it is ready: %w", err)
	}
	if err := response.Body.Close(); err != nil {
		return fmt.Errorf("ask the API server whether it is ready: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the API server is not ready: %s", response.Status)
	}
	c, err := newClient(config)
	if err != nil {
		return err
	}
	if err := c.Get(ctx, client.ObjectKey{Name: "default"}, &corev1.Namespace{}); err != nil {
		return fmt.Errorf("look for the API server's first namespaces: %w", err)
	}
	return nil
}
