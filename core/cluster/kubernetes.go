package cluster

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/core/layout"
)

// defaultImage is the project's own image of a version.
func defaultImage(version string) string { return "apache/kafka:" + version }

func onKubernetes(pools []api.Pool) bool {
	return slices.ContainsFunc(pools, func(p api.Pool) bool { return p.Placement.Kubernetes != nil })
}

// substrate checks that all nodes live on one substrate, and what their names must be there.
func (r *resolver) substrate() {
	if !r.kubernetes {
		return
	}
	for i := range r.spec.Pools {
		if p := &r.spec.Pools[i]; p.Placement.Kubernetes == nil {
			r.fail(fmt.Sprintf("spec.pools[%d].placement", i), fmt.Sprintf("pool %s runs on hosts and others in pods, but the nodes of one cluster must reach each other on one network", p.Name), "give every pool placement.kubernetes, or none")
		}
	}
	if r.spec.Package != "" {
		r.fail("spec.package", "pods run images, not Packages", "leave it out, and name an image in placement.kubernetes.image if the default does not suit")
	}
	if old := r.in.Accepted; old != nil && !onKubernetes(old.Pools) {
		r.fail("spec.pools", "a cluster that runs on hosts cannot become one of pods", "create another KafkaCluster and move the topics")
	}
	r.podNames()
}

// podNames refuses names that would become no Service, no StatefulSet or no label.
func (r *resolver) podNames() {
	const (
		path   = "metadata.name"
		remedy = "use a shorter name of lower-case letters, digits and dashes that begins with a letter"
		// A StatefulSet's name and a hash of 10 characters become a label of 63.
		longestSet, longestService = 52, 63
	)
	if !regexp.MustCompile(`^[a-z]([-a-z0-9]*[a-z0-9])?$`).MatchString(r.in.Name) {
		r.fail(path, fmt.Sprintf("%q cannot begin the names of Services", r.in.Name), remedy)
		return
	}
	highest := int32(0)
	for i := range r.spec.Pools {
		p := &r.spec.Pools[i]
		if p.FirstNodeID != nil {
			highest = max(highest, *p.FirstNodeID+p.Replicas)
		}
		highest = max(highest, int32(i*100)+p.Replicas) //nolint:gosec // at most 50 pools
	}
	if name := kube.NodeName(r.in.Name, highest); len(name) > longestSet {
		r.fail(path, fmt.Sprintf("the name of a node, %s, would have more than %d characters", name, longestSet), remedy)
		return
	}
	for i, l := range r.spec.Listeners {
		for _, name := range []string{kube.ExposureService(r.in.Name, highest, l.Name), kube.BootstrapExposure(r.in.Name, l.Name)} {
			if exposed(l) && len(name) > longestService {
				r.fail(fmt.Sprintf("spec.listeners[%d].name", i), fmt.Sprintf("the name of its Service, %s, would have more than %d characters", name, longestService), "use a shorter name for the listener or the cluster")
			}
		}
	}
}

// podPort refuses ports that the supervisor or our own listeners have in every pod.
func (r *resolver) podPort(path string, port int32) {
	for owner, own := range map[string]int32{
		"the listener CONTROLLER": layout.ControllerPort, "the listener INTERNAL": layout.InternalPort,
		"the node's reports": layout.ReportPort, "the node's probes": layout.ProbePort,
	} {
		if port == own {
			r.fail(path, fmt.Sprintf("port %d belongs to %s", port, owner), "use another port, for example 9092")
		}
	}
}

// podVolumes checks what only pods ask of volumes.
func (r *resolver) podVolumes(path string, p *api.Pool) {
	for i, v := range volumesOf(p) {
		at := fmt.Sprintf("%s.volumes[%d]", path, i)
		if v.Size == nil {
			r.fail(at+".size", fmt.Sprintf("volume %s has no size", v.Name), "give one, for example 100Gi: a PersistentVolumeClaim needs it")
		} else if v.Size.Sign() <= 0 {
			r.fail(at+".size", fmt.Sprintf("%s is no size of a volume", v.Size), "give one, for example 100Gi")
		}
		if v.Path != "" {
			r.fail(at+".path", "a volume of a pod has no path on a host", "leave it out")
		}
	}
}

// exposed says whether a listener is reached through Services of its own.
func exposed(l api.Listener) bool {
	return l.Exposure.Type == api.ExposureNodePort || l.Exposure.Type == api.ExposureLoadBalancer
}

// exposures checks how listeners are reached.
func (r *resolver) exposures() {
	for i, l := range r.spec.Listeners {
		path, e := fmt.Sprintf("spec.listeners[%d].exposure", i), l.Exposure
		switch {
		case r.kubernetes && e.Type == api.ExposureHostAddress:
			r.fail(path+".type", "pods have no host address", "use Internal, NodePort or LoadBalancer")
		case !r.kubernetes && exposed(l):
			r.fail(path+".type", fmt.Sprintf("%s is a kind of Service of Kubernetes, and these nodes run on hosts", e.Type), "use Internal or HostAddress")
		}
		if e.Host != "" && !strings.Contains(e.Host, "{id}") && r.brokers > 1 {
			r.fail(path+".host", fmt.Sprintf("every broker would advertise %s", e.Host), "put {id} into it, for example broker-{id}.example.com")
		}
		for at, text := range templates(e) {
			if bad := unknownPlaceholder(text); bad != "" {
				r.fail(path+at, fmt.Sprintf("%s stands for nothing", bad), "use {id}, {cluster}, {namespace} or {listener}")
			}
		}
	}
}

func templates(e api.Exposure) map[string]string {
	out := map[string]string{".host": e.Host, ".bootstrapHost": strings.ReplaceAll(e.BootstrapHost, "{id}", "{the id of no broker}")}
	for key, value := range e.Annotations {
		out[".annotations["+key+"]"] = value
	}
	for key, value := range e.BootstrapAnnotations {
		out[".bootstrapAnnotations["+key+"]"] = value
	}
	return out
}

// unknownPlaceholder is the first {word} of a text that is none of ours.
func unknownPlaceholder(text string) string {
	for _, found := range regexp.MustCompile(`\{[^{}]*\}`).FindAllString(text, -1) {
		if !slices.Contains([]string{"{id}", "{cluster}", "{namespace}", "{listener}"}, found) {
			return found
		}
	}
	return ""
}

// pod completes a node that is a pod.
func (r *resolver) pod(n *Node, p *api.Pool, image string) {
	k := p.Placement.Kubernetes
	if k == nil {
		return // an error says so
	}
	n.Kubernetes = true
	n.Process.Image = firstOf(image, k.Image, defaultImage(r.spec.Version))
	n.Process.Supervisor = r.in.Supervisor
	n.Process.Pod = &api.PodSettings{
		Spread: k.Spread, ImagePullSecrets: k.ImagePullSecrets, NodeSelector: k.NodeSelector,
		Tolerations: k.Tolerations, Affinity: k.Affinity, PriorityClassName: k.PriorityClassName,
	}
	if n.Process.Pod.Spread == "" {
		n.Process.Pod.Spread = api.SpreadZone
	}
	if n.Broker() {
		n.Exposures = r.nodeExposures(n.ID)
	}
}

func firstOf(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

func (r *resolver) nodeExposures(id int32) []api.NodeExposure {
	var out []api.NodeExposure
	for _, l := range r.spec.Listeners {
		if !exposed(l) {
			continue
		}
		e := api.NodeExposure{Listener: l.Name, Type: l.Exposure.Type, LoadBalancerClass: l.Exposure.LoadBalancerClass}
		fill := r.fill(l.Name, id)
		e.Host = fill(l.Exposure.Host)
		if e.Type == api.ExposureNodePort && e.Host == "" {
			e.AddressType = l.Exposure.AddressType
			if e.AddressType == "" {
				e.AddressType = corev1.NodeInternalIP
			}
		}
		for key, value := range l.Exposure.Annotations {
			if e.Annotations == nil {
				e.Annotations = map[string]string{}
			}
			e.Annotations[key] = fill(value)
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b api.NodeExposure) int { return strings.Compare(a.Listener, b.Listener) })
	return out
}

// fill replaces the placeholders of a listener's templates.
func (r *resolver) fill(listener string, id int32) func(string) string {
	replacer := strings.NewReplacer("{id}", fmt.Sprint(id), "{cluster}", r.in.Name, "{namespace}", r.in.Namespace, "{listener}", listener)
	return replacer.Replace
}

// FillBootstrap replaces the placeholders in what a listener says of its bootstrap Service:
// the host name, and the annotations.
func FillBootstrap(namespace, name string, l api.Listener) (host string, annotations map[string]string) {
	replacer := strings.NewReplacer("{cluster}", name, "{namespace}", namespace, "{listener}", l.Name)
	annotations = maps.Clone(l.Exposure.BootstrapAnnotations)
	for key, value := range annotations {
		annotations[key] = replacer.Replace(value)
	}
	return replacer.Replace(l.Exposure.BootstrapHost), annotations
}
