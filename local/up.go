package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/packages"
)

const (
	// userManager is the field manager of what is applied for the user, here and in the CLI.
	userManager = "castellan-cli"
	// stateManager is the field manager of what `up` and `down` set, see [setState].
	stateManager = "castellan-up"
	// annotationStopped marks a cluster that `castellan down` stopped, so that `up` starts it again
	// and leaves alone what somebody stopped on purpose.
	annotationStopped = "castellan.dev/stopped-by"
	stoppedByDown     = "castellan-down"
)

// UpOptions are what a user chooses.
type UpOptions struct {
	Dir Dir
	Programs
	PackageStore string
	// File holds objects to apply, "-" for standard input; empty makes a cluster or starts those that exist.
	File string
	// Nodes and KafkaVersion of the cluster that is made without a file; zero leaves what is.
	Nodes        int
	KafkaVersion string
	// Ports, if set, is where every listener's port comes from.
	Ports    *PortRange
	Timeout  time.Duration
	Progress *Progress
}

// Running is a KafkaCluster that `up` has brought up.
type Running struct {
	Namespace, Name string
	Version         string
	Nodes           int32
	Listeners       []api.ListenerStatus
	// Stopped says that its spec wants it stopped.
	Stopped bool
}

// Up brings up a local Castellan and its clusters and returns when all are Ready. What is
// up already is left as it is. Anything that can be known to fail is checked before
// anything is changed; a server that was started for nothing is stopped again.
func Up(ctx context.Context, o UpOptions) ([]Running, error) {
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Timeout)
		defer cancel()
	}
	objects, err := o.prepare(ctx)
	if err != nil {
		return nil, err
	}
	started, err := ensureServer(ctx, o.Dir, o.Programs, o.Progress)
	if err != nil {
		return nil, errors.Join(err, o.undo(ctx, started))
	}
	u, err := o.connect()
	if err != nil {
		return nil, errors.Join(err, o.undo(ctx, started))
	}
	applied, err := u.apply(ctx, objects)
	if err != nil && !applied {
		return nil, errors.Join(err, o.undo(ctx, started))
	}
	if err != nil {
		return nil, err
	}
	return u.await(ctx)
}

// prepare checks what can be checked with nothing running.
func (o UpOptions) prepare(ctx context.Context) ([]*unstructured.Unstructured, error) {
	if o.File != "" && (o.Nodes != 0 || o.KafkaVersion != "") {
		return nil, errors.New("--nodes and --kafka-version describe the cluster that is made without a file: set spec.pools and spec.version in the file of -f")
	}
	if o.Nodes < 0 {
		return nil, fmt.Errorf("--nodes %d: at least 1 is needed", o.Nodes)
	}
	if err := checkJava(ctx); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir.DataRoot(), 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	if o.File == "" {
		return nil, nil
	}
	objects, err := readObjects(o.File)
	if err != nil {
		return nil, err
	}
	if _, err := clustersOf(objects); err != nil {
		return nil, err
	}
	return objects, nil
}

// undo stops a server that was started for nothing.
func (o UpOptions) undo(ctx context.Context, started bool) error {
	if !started {
		return nil
	}
	o.Progress.Doing("stopping the server again")
	return stopServer(context.WithoutCancel(ctx), o.Dir)
}

// up is one run of [Up] with a connection.
type up struct {
	UpOptions
	client  client.Client
	targets []client.ObjectKey
}

func (o UpOptions) connect() (*up, error) {
	config, err := restConfig(o.Dir.Kubeconfig())
	if err != nil {
		return nil, err
	}
	config.WarningHandlerWithContext = warnings{o.Progress}
	c, err := newClient(config)
	if err != nil {
		return nil, err
	}
	return &up{UpOptions: o, client: c}, nil
}

// warnings shows what the API server warns of.
type warnings struct{ progress *Progress }

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (w warnings) HandleWarningHeaderWithContext(_ context.Context, code int, _, text string) {
	if code == 299 && text != "" {
		w.progress.Done("Warning: %s", text)
	}
}

// apply decides what shall run and writes it; applied says whether there are now objects
// that need the server.
func (u *up) apply(ctx context.Context, objects []*unstructured.Unstructured) (applied bool, err error) {
	var existing api.KafkaClusterList
	if err := u.client.List(ctx, &existing); err != nil {
		return false, fmt.Errorf("list the KafkaClusters: %w", err)
	}
	objects, force, err := u.decide(objects, existing.Items)
	if err != nil {
		return false, err
	}
	clusters, err := clustersOf(objects)
	if err != nil {
		return false, err
	}
	u.target(clusters, existing.Items)
	if err := u.provide(ctx, clusters, existing.Items, objects); err != nil {
		return false, err
	}
	if err := u.applyHost(ctx); err != nil {
		return len(existing.Items) > 0, err
	}
	for i, object := range objects {
		if err := u.applyObject(ctx, object, force); err != nil {
			return i > 0 || len(existing.Items) > 0, err
		}
	}
	return true, u.resume(ctx)
}

func (u *up) applyObject(ctx context.Context, object *unstructured.Unstructured, force bool) error {
	if err := u.ensureNamespace(ctx, object.GetNamespace()); err != nil {
		return err
	}
	if _, says, _ := unstructured.NestedFieldNoCopy(object.Object, "spec", "state"); says && object.GetKind() == "KafkaCluster" {
		// The field is the file's from now on.
		if err := u.resumeOne(ctx, client.ObjectKeyFromObject(object)); err != nil {
			return err
		}
	}
	return apply(ctx, u.client, object, userManager, force)
}

// decide returns the objects to write: those of the file, the generated cluster when there
// is none, and nothing when clusters exist and no flag asks for a change.
func (u *up) decide(objects []*unstructured.Unstructured, existing []api.KafkaCluster) (_ []*unstructured.Unstructured, force bool, err error) {
	asked := u.Nodes != 0 || u.KafkaVersion != ""
	if u.File != "" || !asked && len(existing) > 0 {
		return objects, false, nil
	}
	version, nodes := u.KafkaVersion, u.Nodes
	var config map[string]any
	for i := range existing {
		if c := &existing[i]; c.Namespace == defaultNamespace && c.Name == defaultName {
			version, nodes, config = cmp.Or(version, c.Spec.Version), cmp.Or(nodes, nodesOf(c)), configOf(c)
		}
	}
	if version == "" {
		if version, err = newestKafka(); err != nil {
			return nil, false, err
		}
	}
	nodes = cmp.Or(nodes, defaultNodes)
	if config == nil {
		config = replication(version, nodes)
	}
	return []*unstructured.Unstructured{generatedCluster(version, nodes, config)}, true, nil
}

func nodesOf(c *api.KafkaCluster) int {
	for _, p := range c.Spec.Pools {
		if p.Name == defaultPool {
			return int(p.Replicas)
		}
	}
	return 0
}

// configOf keeps a cluster's configuration as it is: with more nodes a higher
// min.insync.replicas would close the topics that were made with fewer copies.
func configOf(c *api.KafkaCluster) map[string]any {
	config := make(map[string]any, len(c.Spec.Config))
	for key, value := range c.Spec.Config {
		config[key] = string(value)
	}
	return config
}

// target notes the clusters to wait for: those that are written, else all that exist.
func (u *up) target(written []*api.KafkaCluster, existing []api.KafkaCluster) {
	for _, c := range written {
		u.targets = append(u.targets, client.ObjectKeyFromObject(c))
	}
	if u.File != "" || len(written) > 0 {
		return
	}
	for i := range existing {
		u.targets = append(u.targets, client.ObjectKeyFromObject(&existing[i]))
	}
}

// provide checks the machine and fetches Kafka before a cluster needs them.
func (u *up) provide(ctx context.Context, written []*api.KafkaCluster, existing []api.KafkaCluster, objects []*unstructured.Unstructured) error {
	serving := false
	for i := range existing {
		serving = serving || existing[i].Status.Nodes.Ready > 0
	}
	if meminfo, err := os.ReadFile("/proc/meminfo"); err == nil && !serving {
		warning, err := checkMemory(string(meminfo), heaps(written))
		if err != nil {
			return err
		}
		if warning != "" {
			u.Progress.Done("Warning: %s", warning)
		}
	}
	specs, err := packageSpecs(written, objects, u.PackageStore)
	if err != nil {
		return err
	}
	store := &packages.Store{Dir: u.PackageStore}
	for _, spec := range specs {
		if err := u.fetch(ctx, store, spec); err != nil {
			return err
		}
	}
	return nil
}

func (u *up) fetch(ctx context.Context, store *packages.Store, spec packages.Spec) error {
	title := spec.Product + " " + spec.Version
	u.Progress.Doing("%s: looking in the package store", title)
	provided, err := store.Provide(ctx, spec, func(p packages.Update) {
		text := title + ": " + p.Text
		if p.Total > 0 {
			text = fmt.Sprintf("%s (%d of %d MiB)", text, p.Done>>20, p.Total>>20)
		}
		u.Progress.Doing("%s", text)
	})
	for _, damage := range provided.Repaired {
		u.Progress.Done("%s: %s", title, damage)
	}
	if err == nil {
		return nil
	}
	usesMaven := false
	for _, s := range spec.Sources {
		usesMaven = usesMaven || s.Maven != ""
	}
	if usesMaven {
		return errors.Join(err, checkMaven())
	}
	return err
}

// applyHost enrols this machine, and changes its ports when asked to.
func (u *up) applyHost(ctx context.Context) error {
	var h api.Host
	err := u.client.Get(ctx, client.ObjectKey{Name: HostName}, &h)
	if err == nil && u.Ports == nil {
		return nil
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read Host %s: %w", HostName, err)
	}
	return apply(ctx, u.client, localHost(u.Dir, u.Ports), userManager, true)
}

func (u *up) ensureNamespace(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	err := u.client.Get(ctx, client.ObjectKey{Name: name}, &corev1.Namespace{})
	if err == nil || apierrors.IsForbidden(err) {
		return nil
	}
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("read namespace %s: %w", name, err)
	}
	err = u.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, client.FieldOwner(userManager))
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	u.Progress.Done("namespace %s created", name)
	return nil
}

// resume starts again what `castellan down` stopped.
func (u *up) resume(ctx context.Context) error {
	for _, key := range u.targets {
		if err := u.resumeOne(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

func (u *up) resumeOne(ctx context.Context, key client.ObjectKey) error {
	var c api.KafkaCluster
	err := u.client.Get(ctx, key, &c)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read KafkaCluster %s: %w", key, err)
	}
	if c.Annotations[annotationStopped] != stoppedByDown {
		return nil
	}
	return setState(ctx, u.client, key, api.StateRunning)
}

// setState applies spec.state and who stopped it under a field manager of its own. To run
// again that manager wants nothing any more: the field goes back to its default and no
// later apply of the user's own file conflicts with it.
func setState(ctx context.Context, c client.Client, key client.ObjectKey, state api.RunState) error {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(api.GroupVersion.WithKind("KafkaCluster"))
	o.SetNamespace(key.Namespace)
	o.SetName(key.Name)
	if state == api.StateStopped {
		o.SetAnnotations(map[string]string{annotationStopped: stoppedByDown})
		o.Object["spec"] = map[string]any{"state": string(state)}
	}
	if err := apply(ctx, c, o, stateManager, true); err != nil {
		return fmt.Errorf("set spec.state of KafkaCluster %s to %s: %w", key, state, err)
	}
	return nil
}

// PrintRunning says how to use what runs, for people: an address, a kubeconfig and the next three commands.
func PrintRunning(w io.Writer, d Dir, running []Running) {
	for _, r := range running {
		if r.Stopped {
			fmt.Fprintf(w, "\nKafkaCluster %s/%s is stopped, as its spec.state says.\n", r.Namespace, r.Name)
			continue
		}
		fmt.Fprintf(w, "\nKafka %s is ready: KafkaCluster %s/%s, %d nodes.\n", r.Version, r.Namespace, r.Name, r.Nodes)
		for _, l := range r.Listeners {
			fmt.Fprintf(w, "  bootstrap servers (%s)  %s\n", l.Name, l.BootstrapServers)
		}
	}
	fmt.Fprintf(w, "  kubeconfig  %s\n", d.Kubeconfig())
	if len(running) == 0 || running[0].Stopped {
		return
	}
	options := ""
	if def, err := DefaultDir(); err != nil || def != d {
		options = " --dir " + string(d)
	}
	if r := running[0]; r.Namespace != defaultNamespace || r.Name != defaultName {
		options += " -n " + r.Namespace + " --cluster " + r.Name
	}
	fmt.Fprintf(w, "\nTry:\n%s\n", strings.Join([]string{
		"  castellan topics create hello --partitions 3" + options,
		"  echo 'hello world' | castellan produce hello" + options,
		"  castellan consume hello --from beginning --until-end" + options,
	}, "\n"))
}
