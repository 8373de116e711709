package engine

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/health"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
)

// AcceptDataLoss is the annotation on a KafkaCluster that lists node ids (comma separated)
// whose lost data a user has given up.
const AcceptDataLoss = "castellan.dev/accept-data-loss"

// Engine makes passes. Between them it keeps only memos of its plans, which save work: every
// decision rests on what a pass reads, and a new Engine goes on where another one ended.
type Engine struct {
	Kafka        Kafka
	Nodes        Nodes
	Catalog      Catalog
	Revisions    Revisions
	Operations   Operations
	Certificates Certificates
	Shared       Shared
	// Supervisor is the image that castellan node is copied from on Kubernetes.
	Supervisor string
	// Fresh draws random ids: one for a cluster and n for directories.
	Fresh func(n int) plan.Fresh
	Now   func() time.Time
	// Reread reads a KafkaCluster from the API server; nil when what Pass is given comes from
	// there. It is nil when there is none.
	Reread func(ctx context.Context, kc *api.KafkaCluster) (*api.KafkaCluster, error)
	// CASecret names the Secret with the trust of a cluster's TLS listeners.
	CASecret func(cluster string) string

	memos memos
}

// Result is what a pass found and did.
type Result struct {
	Status api.KafkaClusterStatus
	Plan   plan.Plan
	// Done are the steps of the plan that were done, in order.
	Done []plan.Step
	// Certificates is what was done to them, in order.
	Certificates []CertificateStep
	// Changed are Operations whose phase has changed.
	Changed []OperationChange
	// Again is how long to wait at most before the next pass; zero is the ordinary resync.
	Again time.Duration
	// Gone says that everything of a deleted cluster is gone.
	Gone bool
}

// Pass makes one pass over a cluster. A step that fails is told in the status; an error
// means that the pass could not be made at all. It looks at cached facts first: only where
// something is to be done it reads again from the API server and decides anew.
func (e *Engine) Pass(ctx context.Context, kc *api.KafkaCluster) (Result, error) {
	var earlier []CertificateStep // what was done before it was looked again
	if kc.DeletionTimestamp == nil {
		result, done, err := e.look(ctx, kc, Cached)
		if done || err != nil {
			return result, err
		}
		earlier = result.Certificates
	}
	if e.Reread != nil {
		// A pass on an outdated spec could restart a node for a change that was taken back.
		fresh, err := e.Reread(ctx, kc)
		if err != nil {
			return Result{}, fmt.Errorf("read KafkaCluster %s: %w", kc.Name, err)
		}
		if fresh == nil || fresh.UID != kc.UID {
			e.memos.keep(kc, nil)
			return Result{}, fmt.Errorf("KafkaCluster %s is gone or another one now: the next event brings it", kc.Name)
		}
		kc = fresh
	}
	if kc.DeletionTimestamp != nil {
		return e.remove(ctx, kc)
	}
	for range 2 {
		result, done, err := e.look(ctx, kc, Fresh)
		result.Certificates = append(earlier, result.Certificates...)
		if done || err != nil {
			return result, err
		}
		earlier = result.Certificates
	}
	return Result{}, errors.New("somebody else opens the PodDisruptionBudget of the cluster again and again: see whether two operators serve it")
}

// look makes a pass on facts of a kind; done is false when cached ones ask for more than
// to look, and when the facts were read before the budget was closed.
func (e *Engine) look(ctx context.Context, kc *api.KafkaCluster, how Freshness) (result Result, done bool, err error) {
	f, err := e.read(ctx, kc, how)
	if err != nil {
		return Result{}, false, err
	}
	model, problems, rev, known, err := e.resolve(ctx, kc, &f, how)
	if err != nil || !known {
		return Result{}, false, err
	}
	in := health.Input{Generation: kc.Generation, Problems: append(problems, standingLoss(kc)...), CASecret: e.CASecret(kc.Name)}
	if rev == nil {
		e.memos.keep(kc, nil)
		result, err := e.unresolved(ctx, kc, &f, in)
		return result, true, err
	}
	model = plan.KeepSupervisors(model, f.nodes)
	if how == Cached && needsPlacement(&f, rev, model) {
		return Result{}, false, nil // too dear to be read twice in a pass
	}
	issued, err := e.Certificates.Ensure(ctx, kc, model, f.nodes)
	if err != nil {
		return Result{Certificates: issued.Done}, false, fmt.Errorf("issue the certificates of cluster %s: %w", kc.Name, err)
	}
	defer func() { result.take(issued) }()
	model, in.OwnTrust = withheld(model, issued.Faults), issued.OwnTrust
	in.Certificates = issued.State
	in.Problems = append(in.Problems, told(issued.Faults)...)
	world := e.observe(ctx, kc, &f, rev, model, issued)
	in.Resolved, in.Want, in.Have = true, model, world
	until := e.factsHold()
	in.Plan = plan.Compute(model, world, e.Now())
	if how == Cached {
		if !e.atRest(ctx, kc, &f, model, in.Plan) {
			return Result{}, false, nil
		}
		e.memos.keep(kc, in.Plan.Memo)
		return e.conclude(ctx, kc, &f, in, nil, nil), true, nil
	}
	e.memos.keep(kc, in.Plan.Memo)
	// Before any step: a budget that no longer holds must not outlive the decision, and what
	// it allowed until now is looked at before anything is done. Where it cannot be written,
	// only nodes that are down already get their new process: nothing rests on them, and it
	// may be the fix.
	closed, err := e.Shared.Apply(ctx, kc, model, f.nodes, in.Plan.Spare)
	if closed && len(in.Plan.Steps) > 0 {
		return Result{}, false, nil
	}
	if err != nil {
		err = fmt.Errorf("write Services and PodDisruptionBudget: %w", err)
	}
	steps, err := e.do(ctx, kc, &f, world, until, in.Plan.Steps, err)
	if err == nil {
		err = e.prune(ctx, &f)
	}
	return e.conclude(ctx, kc, &f, in, steps, err), true, nil
}

// take adds what became of the certificates.
func (r *Result) take(issued Issued) {
	r.Certificates = append(r.Certificates, issued.Done...)
	if issued.Again > 0 && (r.Again == 0 || issued.Again < r.Again) {
		r.Again = issued.Again
	}
}

// atRest says whether caches show that nothing is to be done.
func (e *Engine) atRest(ctx context.Context, kc *api.KafkaCluster, f *facts, model cluster.Model, p plan.Plan) bool {
	return len(p.Steps) == 0 && !e.prunable(f) && !frees(f.operations, p.Operations) && e.Shared.Same(ctx, kc, model, f.nodes, p.Spare)
}

// conclude says how it all is, after the steps: in the Operations first.
func (e *Engine) conclude(ctx context.Context, kc *api.KafkaCluster, f *facts, in health.Input, done []plan.Step, failed error) Result {
	changed, err := e.report(ctx, kc, f.operations, in.Plan.Operations)
	if failed = errors.Join(failed, err); failed != nil {
		in.Failed = failed.Error()
	}
	status := health.Status(in)
	status.Operation = activeOperation(f.operations, in.Plan.Operations, done)
	return Result{Status: status, Plan: in.Plan, Done: done, Changed: changed, Again: again(in)}
}

// again is when to look again without an event.
func again(in health.Input) time.Duration {
	switch {
	case in.Failed != "":
		return 5 * time.Second
	case len(in.Plan.Steps) > 0:
		return time.Second
	case in.Plan.Again > 0:
		return in.Plan.Again
	case !in.Plan.Done():
		return 3 * time.Second
	case !in.Have.Kafka.Known:
		return 5 * time.Second
	default:
		return 0
	}
}

func (e *Engine) read(ctx context.Context, kc *api.KafkaCluster, how Freshness) (facts, error) {
	var f facts
	var err error
	if f.catalog.Packages, err = e.Catalog.Packages(ctx); err != nil {
		return f, fmt.Errorf("read the packages: %w", err)
	}
	if f.hosts, f.catalog.Hosts, err = e.Catalog.Hosts(ctx); err != nil {
		return f, fmt.Errorf("read the hosts: %w", err)
	}
	if f.revisions, err = e.Revisions.List(ctx, kc, how); err != nil {
		return f, fmt.Errorf("read the revisions of cluster %s: %w", kc.Name, err)
	}
	if f.operations, err = e.Operations.List(ctx, kc, how); err != nil {
		return f, fmt.Errorf("read the operations of cluster %s: %w", kc.Name, err)
	}
	// Before the nodes: a pod is noted as being evicted until it is seen to end.
	if f.shared, err = e.Shared.Observe(ctx, kc, how); err != nil {
		return f, fmt.Errorf("read what cluster %s was given: %w", kc.Name, err)
	}
	if f.nodes, err = e.Nodes.List(ctx, kc, how); err != nil {
		return f, fmt.Errorf("read the nodes of cluster %s: %w", kc.Name, err)
	}
	return f, nil
}

// resolve accepts the newest spec, or falls back to the last accepted one. The revision is
// nil when there is none; known is false when cached facts do not suffice to tell.
func (e *Engine) resolve(ctx context.Context, kc *api.KafkaCluster, f *facts, how Freshness) (model cluster.Model, problems []cluster.Problem, rev *api.ClusterRevision, known bool, err error) {
	in := e.input(kc, f)
	model, problems = cluster.Resolve(in)
	latest := last(f.revisions)
	if cluster.HasErrors(problems) {
		if latest == nil {
			return cluster.Model{}, problems, nil, how == Fresh, nil
		}
		in.Spec, in.Accepted = latest.Spec.Cluster, nil
		// Whether anything may run or change has nothing to do with what is wrong.
		in.Spec.Paused, in.Spec.State = kc.Spec.Paused, kc.Spec.State
		model, older := cluster.Resolve(in)
		if cluster.HasErrors(older) {
			return cluster.Model{}, append(problems, older...), nil, how == Fresh, nil
		}
		return model, problems, latest, true, nil
	}
	digest, err := specDigest(kc.Spec)
	if err != nil {
		return model, problems, nil, false, err
	}
	if latest != nil && latest.Spec.Digest == digest {
		return model, problems, latest, true, nil
	}
	if how == Cached {
		return model, problems, nil, false, nil
	}
	if rev, err = newRevision(kc, f.revisions, model); err != nil {
		return model, problems, nil, false, err
	}
	rev.Spec.Digest = digest
	if err := e.Revisions.Create(ctx, kc, rev); err != nil {
		return model, problems, nil, false, fmt.Errorf("record revision %d of cluster %s: %w", rev.Spec.Number, kc.Name, err)
	}
	f.revisions = append(f.revisions, *rev)
	return model, problems, rev, true, nil
}

// input is what Resolve looks at in a pass.
func (e *Engine) input(kc *api.KafkaCluster, f *facts) cluster.Input {
	in := Input(kc, f.revisions, f.catalog)
	in.NodeIDs = withNodes(in.NodeIDs, f.nodes)
	in.Supervisor = e.Supervisor
	return in
}

// Input is what Resolve looks at for a KafkaCluster: the same for a pass, for admission
// and for a preview.
func Input(kc *api.KafkaCluster, revisions []api.ClusterRevision, catalog cluster.Catalog) cluster.Input {
	in := cluster.Input{Namespace: kc.Namespace, Name: kc.Name, Spec: kc.Spec, Catalog: catalog, Finalized: kc.Status.MetadataVersion}
	if latest := last(revisions); latest != nil {
		in.Accepted, in.Leaving = &latest.Spec.Cluster, cluster.LeavingPools(revisions)
		in.NodeIDs, in.DefaultReplicas = latest.Spec.NodeIDs, latest.Spec.DefaultReplicas
	}
	return in
}

// withNodes adds the ids of nodes that exist and that no revision knows, because revisions
// were deleted by hand: a pool must find its own nodes again, and never those of another. One
// that was retired and is still on its way out does not come back.
func withNodes(given []api.PoolNodeIDs, nodes []plan.Node) []api.PoolNodeIDs {
	out := make([]api.PoolNodeIDs, 0, len(given))
	known := map[int32]bool{}
	for _, g := range given {
		out = append(out, *g.DeepCopy())
		for _, id := range slices.Concat(g.IDs, g.Removed) {
			known[id] = true
		}
	}
	for _, n := range nodes {
		if known[n.Spec.NodeID] {
			continue
		}
		i := slices.IndexFunc(out, func(g api.PoolNodeIDs) bool { return g.Pool == n.Spec.Pool })
		if i < 0 {
			i, out = len(out), append(out, api.PoolNodeIDs{Pool: n.Spec.Pool})
		}
		out[i].IDs = append(out[i].IDs, n.Spec.NodeID)
	}
	return out
}

// specDigest names a spec by content.
func specDigest(spec api.KafkaClusterSpec) (string, error) {
	data, err := json.Marshal(spec)
	if err != nil {
		return "", fmt.Errorf("digest the spec: %w", err)
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

func last(revisions []api.ClusterRevision) *api.ClusterRevision {
	if len(revisions) == 0 {
		return nil
	}
	return &revisions[len(revisions)-1]
}

func newRevision(kc *api.KafkaCluster, earlier []api.ClusterRevision, model cluster.Model) (*api.ClusterRevision, error) {
	latest := last(earlier)
	rev := &api.ClusterRevision{Spec: api.ClusterRevisionSpec{
		ClusterName: kc.Name, Number: 1, Generation: kc.Generation,
		NodeIDs: model.NodeIDs, DefaultReplicas: model.DefaultReplicas, Cluster: *kc.Spec.DeepCopy(),
	}}
	owned := map[string]bool{}
	if latest != nil {
		rev.Spec.Number = latest.Spec.Number + 1
		rev.Spec.ClusterID = latest.Spec.ClusterID
		rev.Spec.Moving, rev.Spec.Throttled = slices.Clone(latest.Spec.Moving), slices.Clone(latest.Spec.Throttled)
		for _, key := range latest.Spec.OwnedKeys {
			owned[key] = true
		}
	}
	for key := range model.Dynamic {
		owned[key] = true
	}
	for key := range owned {
		rev.Spec.OwnedKeys = append(rev.Spec.OwnedKeys, key)
	}
	slices.Sort(rev.Spec.OwnedKeys)
	rev.Name = fmt.Sprintf("%s-%d", kc.Name, rev.Spec.Number)
	rev.Namespace = kc.Namespace
	return rev, comesFrom(rev, earlier)
}

func (e *Engine) observe(ctx context.Context, kc *api.KafkaCluster, f *facts, rev *api.ClusterRevision, model cluster.Model, issued Issued) plan.World {
	controllers := 0
	for _, n := range model.Nodes {
		if n.Controller() {
			controllers++
		}
	}
	w := e.world(kc, f, rev, model)
	w.Certificates, w.Fresh = issued.Nodes, e.Fresh(controllers)
	w.Memo = e.memos.recall(kc)
	w.Kafka = e.askKafka(ctx, kc, f.nodes, ask(f, rev, model))
	return w
}

// withheld keeps processes from nodes that would wait for a file of a listener after their
// restart: what runs goes on running.
func withheld(want cluster.Model, faults []SecretFault) cluster.Model {
	if len(faults) == 0 {
		return want
	}
	want.Nodes = slices.Clone(want.Nodes)
	for i := range want.Nodes {
		n := &want.Nodes[i]
		needs := layout.SecretKeys(n.Process, n.Roles)
		for _, f := range faults {
			if slices.Contains(needs, f.Key) && !f.Held[n.ID] && n.SecretWait == "" {
				n.SecretWait = f.String()
			}
		}
	}
	return want
}

// told are the faults for a person: warnings, because the spec itself is in force.
func told(faults []SecretFault) []cluster.Problem {
	problems := make([]cluster.Problem, 0, len(faults))
	for _, f := range faults {
		problems = append(problems, f.Problem)
	}
	return problems
}

// world is what was read, without what is asked for elsewhere.
func (e *Engine) world(kc *api.KafkaCluster, f *facts, rev *api.ClusterRevision, model cluster.Model) plan.World {
	return plan.World{
		ClusterID: rev.Spec.ClusterID, Revision: rev.Name, Restores: rev.Spec.Restores, OwnedKeys: rev.Spec.OwnedKeys,
		Nodes: f.nodes, Hosts: f.hosts, Shared: f.shared, Accept: acceptedLosses(kc),
		Operations: f.operations, Hold: rev.Spec.Held, Earlier: e.earlier(kc, f, model),
		Moving: rev.Spec.Moving, Throttled: rev.Spec.Throttled,
	}
}

// askKafka observes Kafka, unless there certainly is none to ask.
func (e *Engine) askKafka(ctx context.Context, kc *api.KafkaCluster, nodes []plan.Node, what plan.Ask) plan.Kafka {
	at := EndpointsOf(nodes)
	if len(at.Brokers)+len(at.Controllers) == 0 {
		return plan.Kafka{Why: "no node of the cluster runs"}
	}
	return e.Kafka.Observe(ctx, kc, at, what)
}

// EndpointsOf are the own listeners of the nodes whose JVM runs, ready ones first.
func EndpointsOf(nodes []plan.Node) Endpoints {
	sorted := slices.Clone(nodes)
	slices.SortStableFunc(sorted, func(a, b plan.Node) int { return cmp.Compare(order(a), order(b)) })
	var at Endpoints
	for _, n := range sorted {
		if n.Spec.ClusterID != "" {
			at.ClusterID = n.Spec.ClusterID
		}
		if n.Status.State != api.NodeRunning && n.Status.State != api.NodeStarting && n.Status.State != api.NodeUnknown {
			continue
		}
		if port, ok := n.Spec.Ports[layout.InternalListener]; ok {
			at.Brokers = append(at.Brokers, layout.HostPort(n.Spec.Address, port))
		}
		if port, ok := n.Spec.Ports[layout.ControllerListener]; ok {
			at.Controllers = append(at.Controllers, layout.HostPort(n.Spec.Address, port))
		}
	}
	return at
}

func order(n plan.Node) int {
	if n.Status.Ready {
		return 0
	}
	return 1
}

// standingLoss warns of an accepted loss for as long as it stands: it would also give up
// what a node loses another time.
func standingLoss(kc *api.KafkaCluster) []cluster.Problem {
	if len(acceptedLosses(kc)) == 0 {
		return nil
	}
	return []cluster.Problem{{
		Path: "metadata.annotations[" + AcceptDataLoss + "]", Severity: cluster.Warning,
		Reason: fmt.Sprintf("whenever the disks of node %s are found empty, they are formatted, even where the last copy was there", kc.Annotations[AcceptDataLoss]),
		Remedy: "remove the annotation as soon as the node has joined",
	}}
}

func acceptedLosses(kc *api.KafkaCluster) []int32 {
	var ids []int32
	for word := range strings.SplitSeq(kc.Annotations[AcceptDataLoss], ",") {
		if id, err := strconv.ParseInt(strings.TrimSpace(word), 10, 32); err == nil {
			ids = append(ids, int32(id))
		}
	}
	return ids
}

// do does the steps in order and returns those that it did. The first that fails (or what
// failed before them) ends the pass, because later ones may rest on it — but for new processes
// of nodes that are down already: they rest on nothing, and may be the very fix that the failed
// step needs. The spec of such a step holds what earlier steps on the same node decided, so
// these must be done, or be of a kind that is done live anyway.
//
// Once until has passed nothing more is done, and the next pass decides anew: an operator that
// was frozen in between may not lead any more, and what it saw is no fact now.
func (e *Engine) do(ctx context.Context, kc *api.KafkaCluster, f *facts, w plan.World, until time.Time, steps []plan.Step, failed error) ([]plan.Step, error) {
	var done []plan.Step
	left := map[int32]bool{} // nodes with a step that was not done
	for _, step := range steps {
		if e.Now().Round(0).After(until) {
			break
		}
		// An Operation may always be made: the nodes that are mended belong to it.
		if failed != nil && step.Kind != plan.CreateOperation && (!mendsDownNode(step) || left[step.Node]) {
			left[step.Node] = left[step.Node] || step.Kind != plan.UpdateLive
			continue
		}
		if err := e.doOne(ctx, kc, f, w, step); err != nil {
			left[step.Node] = true
			failed = errors.Join(failed, fmt.Errorf("%s (%s): %w", step.Kind, step.Reason, err))
			if step.Kind == plan.CreateOperation {
				break // no change without a record, not even of a node that is down
			}
			continue
		}
		done = append(done, step)
	}
	return done, failed
}

// factsAge is how old facts may be when a step that rests on them begins.
const factsAge = 10 * time.Second

// factsHold is until when facts that were read just now are acted on, by the wall clock: the
// monotonic one stands still while a machine sleeps.
func (e *Engine) factsHold() time.Time { return e.Now().Round(0).Add(factsAge) }

// mendsDownNode says whether a step gives a new process to a node that was down.
func mendsDownNode(s plan.Step) bool {
	return s.Kind == plan.UpdateProcess && s.Spec.Change != nil && s.Spec.Change.WasDown
}

func (e *Engine) doOne(ctx context.Context, kc *api.KafkaCluster, f *facts, w plan.World, step plan.Step) error {
	switch step.Kind {
	case plan.CreateNode, plan.AnswerStorage, plan.UpdateProcess, plan.UpdateLive, plan.ReplaceVolumes, plan.StopNode, plan.StartNode:
		return e.Nodes.Write(ctx, kc, step.Spec)
	case plan.DeleteNode:
		return e.Nodes.Delete(ctx, kc, step.Node, step.RemoveData)
	case plan.RecordClusterID:
		return e.Revisions.SetClusterID(ctx, last(f.revisions), step.ClusterID)
	case plan.CreateOperation:
		return e.Operations.Create(ctx, kc, step.Operation)
	case plan.RecordOperation:
		return e.Operations.Record(ctx, step.Operation)
	case plan.HoldRevision:
		return e.hold(ctx, f, step)
	case plan.RecordMoves:
		return e.recordMoves(ctx, f, step)
	case plan.RetireNode:
		return e.retire(ctx, f, step)
	case plan.SetConfig, plan.AddVoter, plan.RemoveVoter, plan.ElectLeaders, plan.FinalizeFeatures,
		plan.ThrottleTopics, plan.MoveReplicas, plan.CancelMoves, plan.UnregisterBroker:
		return e.Kafka.Do(ctx, kc, EndpointsOf(w.Nodes), step)
	default:
		return fmt.Errorf("this version does not know how to do step %s", step.Kind)
	}
}

// Preview computes the plan of a spec from the facts of now, and does and writes nothing.
func (e *Engine) Preview(ctx context.Context, kc *api.KafkaCluster) (plan.Plan, []cluster.Problem, error) {
	f, err := e.read(ctx, kc, Fresh)
	if err != nil {
		return plan.Plan{}, nil, err
	}
	model, problems := cluster.Resolve(e.input(kc, &f))
	if cluster.HasErrors(problems) {
		return plan.Plan{}, problems, nil
	}
	model = plan.KeepSupervisors(model, f.nodes)
	rev, err := previewed(kc, &f, model)
	if err != nil {
		return plan.Plan{}, problems, err
	}
	w := e.world(kc, &f, rev, model)
	w.Fresh = plan.Fresh{ClusterID: "(new)"}
	w.Kafka = e.askKafka(ctx, kc, f.nodes, ask(&f, rev, model))
	return plan.Compute(model, w, e.Now()), problems, nil
}
