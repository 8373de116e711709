// Package health says in words how a cluster is: the conditions and the status that
// kubectl, the CLI and the console all show. It decides nothing and touches nothing.
package health

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
)

// Input is what a pass knows at its end.
type Input struct {
	Generation int64
	// Problems of the newest spec.
	Problems []cluster.Problem
	// Resolved is false when not even an accepted spec could be resolved; Want, Have and
	// Plan are then empty.
	Resolved bool
	Want     cluster.Model
	Have     plan.World
	Plan     plan.Plan
	// Failed is the error of a step of this pass, if any.
	Failed string
	// CASecret names the Secret with the trust of TLS listeners.
	CASecret string
	// OwnTrust are listeners whose own certificate came with a CA for clients.
	OwnTrust map[string]bool
	// Certificates is their condition, without generation; nil is none.
	Certificates *metav1.Condition
}

// Status is the status of the KafkaCluster, without transition times.
func Status(in Input) api.KafkaClusterStatus {
	st := api.KafkaClusterStatus{ObservedGeneration: in.Generation, Conditions: Conditions(in)}
	if in.Resolved {
		st.ClusterID = cmp.Or(in.Have.ClusterID, in.Have.Kafka.ClusterID)
		st.Version = lowestVersion(in.Have.Nodes)
		st.MetadataVersion = in.Have.Kafka.MetadataVersion
		st.Revision = in.Have.Revision
		st.Nodes = counts(in)
		st.Quorum = quorum(in.Have.Kafka)
		st.Listeners = listeners(in)
	}
	st.Doing = doing(st.Conditions)
	return st
}

// Conditions are the conditions of the KafkaCluster, in the sense of kstatus. Messages
// name what and why, never how far, so that they do not flap.
func Conditions(in Input) []metav1.Condition {
	c := conditions{generation: in.Generation}
	accepted(&c, in)
	available(&c, in)
	reconciling(&c, in)
	stalled(&c, in)
	ready(&c, in)
	if x := in.Certificates; x != nil {
		c.set(x.Type, x.Status, x.Reason, x.Message)
	}
	return c.list
}

// PassFailed marks a status when not even a pass could be made; what was known before stays.
func PassFailed(st *api.KafkaClusterStatus, generation int64, why string) {
	c := conditions{generation: generation}
	c.set(api.ConditionReady, metav1.ConditionFalse, "PassFailed", why)
	c.set(api.ConditionStalled, metav1.ConditionTrue, "PassFailed", why)
	for _, x := range c.list {
		i := slices.IndexFunc(st.Conditions, func(old metav1.Condition) bool { return old.Type == x.Type })
		if i < 0 {
			st.Conditions = append(st.Conditions, x)
			continue
		}
		x.LastTransitionTime = st.Conditions[i].LastTransitionTime
		st.Conditions[i] = x
	}
	st.Doing = doing(st.Conditions)
}

type conditions struct {
	generation int64
	list       []metav1.Condition
}

func (c *conditions) set(kind string, status metav1.ConditionStatus, reason, message string) {
	c.list = append(c.list, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: clip(message), ObservedGeneration: c.generation})
}

func (c *conditions) is(kind string, status metav1.ConditionStatus) bool {
	return slices.ContainsFunc(c.list, func(x metav1.Condition) bool { return x.Type == kind && x.Status == status })
}

func (c *conditions) message(kind string) string {
	for _, x := range c.list {
		if x.Type == kind {
			return x.Message
		}
	}
	return ""
}

// clip keeps a message within what the API server takes (32 KiB).
func clip(s string) string {
	const most = 30000
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + " …"
}

// notAccepted is also true of a spec that was accepted once and cannot be any more, because
// its Package is gone.
const notAccepted = "no spec could be accepted: see Accepted"

func accepted(c *conditions, in Input) {
	var errs, warnings []string
	for _, p := range in.Problems {
		if p.Severity == cluster.Error {
			errs = append(errs, p.String())
		} else {
			warnings = append(warnings, p.String())
		}
	}
	switch {
	case len(errs) > 0 && in.Resolved:
		c.set(api.ConditionAccepted, metav1.ConditionFalse, "InvalidSpec", "the last good spec stays in force: "+strings.Join(errs, " | "))
	case len(errs) > 0:
		c.set(api.ConditionAccepted, metav1.ConditionFalse, "InvalidSpec", strings.Join(errs, " | "))
	case len(warnings) > 0:
		c.set(api.ConditionAccepted, metav1.ConditionTrue, "AcceptedWithWarnings", strings.Join(warnings, " | "))
	default:
		c.set(api.ConditionAccepted, metav1.ConditionTrue, "Accepted", "the spec is in force")
	}
}

const served = "every partition has a leader and enough in-sync replicas"

func available(c *conditions, in Input) {
	k := in.Have.Kafka
	switch {
	case !in.Resolved:
		c.set(api.ConditionAvailable, metav1.ConditionUnknown, "NotAccepted", notAccepted)
	case in.Want.State == api.StateStopped:
		c.set(api.ConditionAvailable, metav1.ConditionFalse, "Stopped", "spec.state is Stopped")
	case !k.Known || !k.PartitionsKnown:
		c.set(api.ConditionAvailable, metav1.ConditionUnknown, "KafkaUnreadable", whyUnknown(k))
	default:
		offline, under := unserved(k)
		switch {
		case offline != "":
			c.set(api.ConditionAvailable, metav1.ConditionFalse, "PartitionsOffline", "no leader: "+offline)
		case under != "":
			c.set(api.ConditionAvailable, metav1.ConditionFalse, "UnderMinISR", "fewer in-sync replicas than min.insync.replicas: "+under)
		case in.Plan.Held != "":
			c.set(api.ConditionAvailable, metav1.ConditionTrue, "Served", served+"; but no pod can be evicted, so a drain of its machine waits for ever: "+in.Plan.Held)
		case len(k.FailedLogDirs) > 0:
			c.set(api.ConditionAvailable, metav1.ConditionTrue, api.ReasonDegraded, fmt.Sprintf("%s; but a log dir of broker %s has failed: mend it and restart the broker, or have its replicas made anew beside it with castellan rebalance %s --mode disks --repair-log-dirs", served, ids(k.FailedLogDirs), in.Want.Name))
		case len(outOfSync(k)) > 0:
			c.set(api.ConditionAvailable, metav1.ConditionTrue, api.ReasonDegraded, fmt.Sprintf("%s; but the replicas of broker %s are not all in sync", served, ids(outOfSync(k))))
		default:
			c.set(api.ConditionAvailable, metav1.ConditionTrue, "Served", served)
		}
	}
}

func whyUnknown(k plan.Kafka) string {
	if k.Known {
		return "no broker answers, only controllers do"
	}
	if k.Why == "" {
		return "Kafka has not been asked yet"
	}
	return k.Why
}

// unserved names partitions without a leader and partitions under min ISR.
func unserved(k plan.Kafka) (offline, under string) {
	var off, low []string
	for i := range k.Topics {
		t := &k.Topics[i]
		for j := range t.Partitions {
			switch part := &t.Partitions[j]; {
			case part.Leader < 0:
				off = append(off, fmt.Sprintf("%s-%d", t.Name, j))
			case len(part.ISR) < t.MinISR:
				low = append(low, fmt.Sprintf("%s-%d", t.Name, j))
			}
		}
	}
	return some(off), some(low)
}

// outOfSync are the brokers that have a replica which is not in sync, in their order.
func outOfSync(k plan.Kafka) []int32 {
	behind := map[int32]bool{}
	for i := range k.Topics {
		for j := range k.Topics[i].Partitions {
			part := &k.Topics[i].Partitions[j]
			if len(part.ISR) == len(part.Replicas) {
				continue
			}
			for _, id := range part.Replicas {
				if !slices.Contains(part.ISR, id) {
					behind[id] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(behind))
}

func ids(list []int32) string {
	var words []string
	for _, id := range list {
		words = append(words, fmt.Sprint(id))
	}
	return some(words)
}

func some(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + " and others"
}

func reconciling(c *conditions, in Input) {
	switch {
	case !in.Resolved:
		c.set(api.ConditionReconciling, metav1.ConditionFalse, "NotAccepted", notAccepted)
	case len(in.Plan.Steps) > 0:
		s := in.Plan.Steps[0]
		c.set(api.ConditionReconciling, metav1.ConditionTrue, string(s.Kind), stepWords(s))
	case in.Want.Paused:
		c.set(api.ConditionReconciling, metav1.ConditionFalse, "Paused", "spec.paused is true: nothing is changed until it is false")
	case firstBlock(in.Plan, false) != nil:
		b := firstBlock(in.Plan, false)
		c.set(api.ConditionReconciling, metav1.ConditionTrue, b.Reason, b.Message)
	case len(in.Plan.Upcoming) > 0:
		s := in.Plan.Upcoming[0]
		c.set(api.ConditionReconciling, metav1.ConditionTrue, string(s.Kind), "next: "+stepWords(s))
	case len(in.Plan.Blocked) > 0:
		c.set(api.ConditionReconciling, metav1.ConditionFalse, "Stalled", "nothing can be done before what blocks is gone: see Stalled")
	default:
		c.set(api.ConditionReconciling, metav1.ConditionFalse, "Done", "nothing is to be done")
	}
}

func firstBlock(p plan.Plan, stalled bool) *plan.Block {
	i := slices.IndexFunc(p.Blocked, func(b plan.Block) bool { return b.Stalled == stalled })
	if i < 0 {
		return nil
	}
	return &p.Blocked[i]
}

// stepWords is a step as a person would say it.
func stepWords(s plan.Step) string {
	verb, ok := map[plan.Kind]string{
		plan.CreateNode: "creating node", plan.AnswerStorage: "answering for the disks of node", plan.UpdateProcess: "restarting node",
		plan.UpdateLive: "updating node", plan.ReplaceVolumes: "replacing the volumes of node", plan.StopNode: "stopping node", plan.StartNode: "starting node", plan.DeleteNode: "removing node",
		plan.AddVoter: "adding voter", plan.RemoveVoter: "removing voter",
	}[s.Kind]
	if !ok {
		return s.Reason
	}
	return fmt.Sprintf("%s %d: %s", verb, s.Node, s.Reason)
}

func stalled(c *conditions, in Input) {
	var why []string
	for _, b := range in.Plan.Blocked {
		if b.Stalled {
			why = append(why, b.Message)
		}
	}
	switch {
	case !in.Resolved:
		c.set(api.ConditionStalled, metav1.ConditionTrue, "NotAccepted", notAccepted)
	case in.Failed != "":
		c.set(api.ConditionStalled, metav1.ConditionTrue, "StepFailed", in.Failed)
	case len(why) > 0:
		c.set(api.ConditionStalled, metav1.ConditionTrue, firstBlock(in.Plan, true).Reason, strings.Join(slices.Compact(why), " | "))
	case c.is(api.ConditionAccepted, metav1.ConditionFalse):
		// The newest spec will not come into force by itself; kstatus calls that failed.
		c.set(api.ConditionStalled, metav1.ConditionTrue, "InvalidSpec", c.message(api.ConditionAccepted))
	default:
		c.set(api.ConditionStalled, metav1.ConditionFalse, "Moving", "nothing blocks")
	}
}

func ready(c *conditions, in Input) {
	switch {
	case c.is(api.ConditionAccepted, metav1.ConditionFalse):
		c.set(api.ConditionReady, metav1.ConditionFalse, "InvalidSpec", c.message(api.ConditionAccepted))
	case in.Want.Paused:
		c.set(api.ConditionReady, metav1.ConditionFalse, "Paused", "spec.paused is true: nothing is changed until it is false")
	case c.is(api.ConditionStalled, metav1.ConditionTrue):
		c.set(api.ConditionReady, metav1.ConditionFalse, "Stalled", c.message(api.ConditionStalled))
	case in.Want.State == api.StateStopped && in.Plan.Done():
		c.set(api.ConditionReady, metav1.ConditionFalse, "Stopped", "spec.state is Stopped, and every node has stopped")
	case !in.Plan.Done():
		c.set(api.ConditionReady, metav1.ConditionFalse, "Reconciling", c.message(api.ConditionReconciling))
	case !c.is(api.ConditionAvailable, metav1.ConditionTrue):
		c.set(api.ConditionReady, metav1.ConditionFalse, "NotAvailable", c.message(api.ConditionAvailable))
	default:
		c.set(api.ConditionReady, metav1.ConditionTrue, "Ready", "the newest spec is in force and every partition is served")
	}
}

// doing is the Ready condition in one short phrase.
func doing(conditions []metav1.Condition) string {
	for _, x := range conditions {
		if x.Type != api.ConditionReady {
			continue
		}
		if x.Status == metav1.ConditionTrue {
			return ""
		}
		const most = 120
		if runes := []rune(x.Message); len(runes) > most {
			return string(runes[:most]) + "…"
		}
		return x.Message
	}
	return ""
}

func lowestVersion(nodes []plan.Node) string {
	lowest := ""
	for _, n := range nodes {
		if v := n.Status.Version; v != "" && (lowest == "" || cluster.CompareVersions(v, lowest) < 0) {
			lowest = v
		}
	}
	return lowest
}

func counts(in Input) api.NodeCounts {
	n := api.NodeCounts{Desired: int32(len(in.Want.Nodes))} //nolint:gosec // at most 50,000
	byID := map[int32]string{}
	for i := range in.Want.Nodes {
		byID[in.Want.Nodes[i].ID] = layout.ProcessHash(in.Want.Nodes[i].Process)
	}
	for i := range in.Have.Nodes {
		st := &in.Have.Nodes[i].Status
		want, ok := byID[in.Have.Nodes[i].Spec.NodeID]
		if !ok {
			continue // it leaves
		}
		if st.Ready {
			n.Ready++
		}
		if st.Process != nil && st.Process.Hash == want {
			n.Updated++
		}
	}
	return n
}

// stays says whether a node is wanted: clients are not sent to one that leaves.
func stays(in Input, id int32) bool {
	return slices.ContainsFunc(in.Want.Nodes, func(n cluster.Node) bool { return n.ID == id })
}

func quorum(k plan.Kafka) *api.QuorumStatus {
	if !k.Known {
		return nil
	}
	q := &api.QuorumStatus{Leader: k.Quorum.Leader, Epoch: k.Quorum.LeaderEpoch, Voters: []int32{}}
	for _, v := range k.Quorum.Voters {
		q.Voters = append(q.Voters, v.ID)
	}
	for _, o := range k.Quorum.Observers {
		// After a disk was replaced Kafka lists the old directory of a voter for a while.
		if !slices.Contains(q.Voters, o.ID) {
			q.Observers = append(q.Observers, o.ID)
		}
	}
	slices.Sort(q.Voters)
	slices.Sort(q.Observers)
	q.Observers = slices.Compact(q.Observers)
	return q
}

func listeners(in Input) []api.ListenerStatus {
	var out []api.ListenerStatus
	for _, l := range in.Want.Listeners {
		if slices.ContainsFunc(in.Want.Nodes, func(n cluster.Node) bool { return n.Kubernetes }) {
			if at := podListener(in, l); at != "" {
				out = append(out, listener(in, l, at))
			}
			continue
		}
		addresses := map[string]bool{}
		for i := range in.Have.Nodes {
			s := &in.Have.Nodes[i].Spec
			if port, ok := s.Ports[l.Name]; ok && stays(in, s.NodeID) {
				addresses[layout.HostPort(s.Address, port)] = true
			}
		}
		if len(addresses) == 0 {
			continue
		}
		out = append(out, listener(in, l, strings.Join(slices.Sorted(maps.Keys(addresses)), ",")))
	}
	return out
}

func listener(in Input, l api.Listener, at string) api.ListenerStatus {
	st := api.ListenerStatus{Name: l.Name, BootstrapServers: at}
	switch {
	case l.TLS == nil:
	case l.TLS.SecretRef == nil:
		st.CASecretRef = &corev1.LocalObjectReference{Name: in.CASecret}
	case in.OwnTrust[l.Name]: // else a public CA, which clients trust already
		st.CASecretRef = &corev1.LocalObjectReference{Name: l.TLS.SecretRef.Name}
	}
	return st
}

// podListener is where clients begin with a listener of pods; empty while that is not known.
func podListener(in Input, l api.Listener) string {
	host, _ := cluster.FillBootstrap(in.Want.Namespace, in.Want.Name, l)
	given := in.Have.Shared.Bootstrap[l.Name]
	switch l.Exposure.Type {
	case api.ExposureNodePort:
		return nodePorts(in, l, host, given.NodePort)
	case api.ExposureLoadBalancer:
		if host == "" {
			host = given.Address
		}
		if host == "" {
			return ""
		}
		return layout.HostPort(host, l.Port)
	default:
		return layout.HostPort(kube.BootstrapAddress(in.Want.Namespace, in.Want.Name), l.Port)
	}
}

// nodePorts are the machines that run brokers, each with the port to begin with.
func nodePorts(in Input, l api.Listener, host string, port int32) string {
	if port == 0 {
		return ""
	}
	if host != "" {
		return layout.HostPort(host, port)
	}
	kind := string(l.Exposure.AddressType)
	if kind == "" {
		kind = string(corev1.NodeInternalIP)
	}
	addresses := map[string]bool{}
	for i := range in.Have.Nodes {
		if at := in.Have.Nodes[i].Status.Placement; at != nil && at.Addresses[kind] != "" && slices.Contains(in.Have.Nodes[i].Spec.Roles, api.RoleBroker) {
			addresses[layout.HostPort(at.Addresses[kind], port)] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(addresses)), ",")
}
