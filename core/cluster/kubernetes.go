package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
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

// substrate checks that all nodes live on one substrate, and stay there.
func (r *resolver) substrate() {
	old := r.in.Accepted
	if !r.kubernetes {
		if old != nil && onKubernetes(old.Pools) {
			r.fail("spec.pools", "a cluster of pods cannot become one that runs on hosts", "put placement.kubernetes back, or create another KafkaCluster and move the topics")
		}
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
	if old != nil && !onKubernetes(old.Pools) {
		r.fail("spec.pools", "a cluster that runs on hosts cannot become one of pods", "create another KafkaCluster and move the topics")
	}
}

// podNames refuses names that would become no Service, no StatefulSet or no label, once the
// ids are given.
func (r *resolver) podNames() {
	if !r.kubernetes {
		return
	}
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
	for _, given := range r.ids {
		for _, id := range given.IDs {
			highest = max(highest, id)
		}
	}
	if name := kube.NodeName(r.in.Name, highest); len(name) > longestSet {
		r.fail(path, fmt.Sprintf("the name of a node, %s, would have more than %d characters", name, longestSet), remedy)
		return
	}
	for i, l := range r.spec.Listeners {
		name := kube.BootstrapExposure(r.in.Name, l.Name)
		if of := kube.ExposureService(r.in.Name, highest, l.Name); len(of) > len(name) {
			name = of
		}
		if kube.Exposed(l) && len(name) > longestService {
			r.fail(fmt.Sprintf("spec.listeners[%d].name", i), fmt.Sprintf("the name of its Service, %s, would have more than %d characters", name, longestService), "use a shorter name for the listener or the cluster")
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

// podResources refuses what no pod may ask for.
func (r *resolver) podResources(path string, resources corev1.ResourceRequirements) {
	for _, name := range slices.Sorted(maps.Keys(resources.Requests)) {
		request := resources.Requests[name]
		if limit, ok := resources.Limits[name]; ok && request.Cmp(limit) > 0 {
			r.fail(fmt.Sprintf("%s.requests[%s]", path, name), fmt.Sprintf("%s is more than the limit of %s", &request, &limit), "request at most the limit")
		}
	}
}

// exposures checks how listeners are reached.
func (r *resolver) exposures() {
	for i, l := range r.spec.Listeners {
		path, e := fmt.Sprintf("spec.listeners[%d].exposure", i), l.Exposure
		switch {
		case r.kubernetes && e.Type == api.ExposureHostAddress:
			r.fail(path+".type", "pods have no host address", "use Internal, NodePort or LoadBalancer")
			continue
		case !r.kubernetes && kube.Exposed(l):
			r.fail(path+".type", fmt.Sprintf("%s is a kind of Service of Kubernetes, and these nodes run on hosts", e.Type), "use Internal or HostAddress")
			continue
		case !kube.Exposed(l):
			r.unexposed(path, e)
			continue
		}
		if e.Type == api.ExposureNodePort && e.LoadBalancerClass != "" {
			r.fail(path+".loadBalancerClass", "a Service of type NodePort has no load balancer", "leave it out, or use LoadBalancer")
		}
		r.oneHost(path, e)
		r.templates(path, l)
	}
}

// unexposed refuses what would have no effect on a listener without Services of its own.
func (r *resolver) unexposed(path string, e api.Exposure) {
	for _, field := range []struct {
		name  string
		given bool
	}{
		{"addressType", e.AddressType != ""},
		{"host", e.Host != ""},
		{"bootstrapHost", e.BootstrapHost != ""},
		{"annotations", len(e.Annotations) > 0},
		{"bootstrapAnnotations", len(e.BootstrapAnnotations) > 0},
		{"loadBalancerClass", e.LoadBalancerClass != ""},
	} {
		if field.given {
			r.fail(path+"."+field.name, "the listener has no Services of its own, so it would have no effect", "leave it out, or use NodePort or LoadBalancer")
		}
	}
}

// oneHost is about one name for several brokers: load balancers listen on one port and could
// not be told apart; with NodePort each has its own port, but only its own machine answers there.
func (r *resolver) oneHost(path string, e api.Exposure) {
	const remedy = "put {id} into it, for example broker-{id}.example.com"
	switch {
	case e.Host == "" || strings.Contains(e.Host, "{id}") || r.brokers < 2:
	case e.Type == api.ExposureLoadBalancer:
		r.fail(path+".host", fmt.Sprintf("every broker would advertise %s", e.Host), remedy)
	default:
		r.warn(path+".host", fmt.Sprintf("every broker advertises %s, but a broker's port answers only on the machine that it runs on", e.Host), remedy+", unless there is one machine or something in front of them")
	}
}

// templates checks placeholders and the host names that they give.
func (r *resolver) templates(path string, l api.Listener) {
	broker := []string{"{id}", "{cluster}", "{namespace}", "{listener}"}
	bootstrap, e := broker[1:], l.Exposure
	r.placeholders(path+".host", e.Host, broker)
	r.placeholders(path+".bootstrapHost", e.BootstrapHost, bootstrap)
	for _, key := range slices.Sorted(maps.Keys(e.Annotations)) {
		r.placeholders(path+".annotations["+key+"]", e.Annotations[key], broker)
	}
	for _, key := range slices.Sorted(maps.Keys(e.BootstrapAnnotations)) {
		r.placeholders(path+".bootstrapAnnotations["+key+"]", e.BootstrapAnnotations[key], bootstrap)
	}
	r.hostName(path+".host", r.fill(l.Name, 0)(e.Host))
	r.hostName(path+".bootstrapHost", r.fill(l.Name, 0)(e.BootstrapHost))
}

// placeholders refuses a {word} that is none of the known ones.
func (r *resolver) placeholders(path, text string, known []string) {
	for _, found := range regexp.MustCompile(`\{[^{}]*\}`).FindAllString(text, -1) {
		if !slices.Contains(known, found) {
			r.fail(path, found+" stands for nothing here", "use "+strings.Join(known[:len(known)-1], ", ")+" or "+known[len(known)-1])
			return
		}
	}
}

// hostName refuses what clients could not connect to. Braces have had their own words.
func (r *resolver) hostName(path, host string) {
	if host == "" || strings.ContainsAny(host, "{}") || regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$`).MatchString(host) {
		return
	}
	if _, err := netip.ParseAddr(host); err != nil {
		r.fail(path, fmt.Sprintf("%q is neither a host name nor an IP address", host), "give one without scheme and port, for example kafka.example.com")
	}
}

// exposureChange refuses what running brokers would not take up: what they advertise is read
// when they start, and nothing of it is a reason to restart.
func (r *resolver) exposureChange(path string, now, before api.Exposure) {
	kept := func(e api.Exposure) api.Exposure {
		if e.Type == "" {
			e.Type = api.ExposureInternal
		}
		if e.Type == api.ExposureNodePort && e.AddressType == "" {
			e.AddressType = corev1.NodeInternalIP
		}
		return e
	}
	n, b := kept(now), kept(before)
	if !r.kubernetes || !onKubernetes(r.in.Accepted.Pools) || n.Type == b.Type && n.AddressType == b.AddressType && n.Host == b.Host && n.LoadBalancerClass == b.LoadBalancerClass {
		return
	}
	r.fail(path, "where a listener is reached cannot change: brokers that run would go on advertising the old place", "add another listener, move the clients, then remove this one")
}

// pod completes a node that is a pod.
func (r *resolver) pod(n *Node, p *api.Pool, image string) {
	k := p.Placement.Kubernetes
	if k == nil {
		return // an error says so
	}
	n.Kubernetes = true
	n.Process.Image = cmp.Or(image, k.Image, defaultImage(r.spec.Version))
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

func (r *resolver) nodeExposures(id int32) []api.NodeExposure {
	var out []api.NodeExposure
	for _, l := range r.spec.Listeners {
		if !kube.Exposed(l) {
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
