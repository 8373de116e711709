package install

import (
	"fmt"
	"io"
	"slices"
	"strings"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
)

// Print says for people how to use what runs.
func (r *Running) Print(w io.Writer) error {
	_, err := io.WriteString(w, r.text())
	return err
}

func (r *Running) text() string {
	w := &strings.Builder{}
	c := r.Cluster
	name := c.Namespace + "/" + c.Name
	if c.Spec.State == api.StateStopped {
		fmt.Fprintf(w, "\nKafkaCluster %s is stopped, as its spec.state says.\n", name)
		return w.String()
	}
	fmt.Fprintf(w, "\nKafka %s is ready: KafkaCluster %s, %d nodes.\n", c.Status.Version, name, c.Status.Nodes.Ready)
	for _, l := range c.Status.Listeners {
		reach := ""
		if r.inside(l.Name) {
			reach = "  (inside the Kubernetes cluster)"
		}
		fmt.Fprintf(w, "  bootstrap servers (%s)  %s%s\n", l.Name, l.BootstrapServers, reach)
		if l.CASecretRef != nil {
			fmt.Fprintf(w, "  CA (%s)  key %s of Secret %s/%s\n", l.Name, caKey, c.Namespace, l.CASecretRef.Name)
		}
	}
	if r.Changed == 0 {
		fmt.Fprintln(w, "Nothing was changed: it was so already.")
	}
	options := fmt.Sprintf(" --context %s -n %s --cluster %s", r.Context, c.Namespace, c.Name)
	fmt.Fprintf(w, "\nTry:\n%s\n", strings.Join([]string{
		"  castellan topics create hello --partitions 3" + options,
		"  echo 'hello world' | castellan produce hello" + options,
		"  castellan consume hello --from beginning --until-end" + options,
	}, "\n"))
	return w.String()
}

// inside says whether a listener is for clients inside the Kubernetes cluster only.
func (r *Running) inside(listener string) bool {
	for _, l := range r.Cluster.Spec.Listeners {
		if l.Name == listener {
			return l.Exposure.Type == "" || l.Exposure.Type == api.ExposureInternal
		}
	}
	return true
}

// Properties are a client.properties for the listener that is reached from furthest: one
// that is exposed, else the first. The CA stands in it.
func (r *Running) Properties() (listener string, content []byte) {
	listeners := r.Cluster.Status.Listeners
	if len(listeners) == 0 {
		return "", nil
	}
	at := max(0, slices.IndexFunc(listeners, func(l api.ListenerStatus) bool { return !r.inside(l.Name) }))
	config := map[string]string{"bootstrap.servers": listeners[at].BootstrapServers, "security.protocol": "PLAINTEXT"}
	if ca := r.CAs[listeners[at].Name]; len(ca) > 0 {
		config["security.protocol"] = "SSL"
		config["ssl.truststore.type"] = "PEM"
		config["ssl.truststore.certificates"] = string(ca)
	}
	return listeners[at].Name, kconf.Write(config)
}
