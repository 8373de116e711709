package cluster

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
)

// Resolve says what a spec means, and every problem with it at once. The Model is only
// meaningful when no problem is an Error.
func Resolve(in Input) (Model, []Problem) {
	r := &resolver{in: in, spec: in.Spec, kubernetes: onKubernetes(in.Spec.Pools)}
	r.version()
	r.substrate()
	r.changes()
	r.pools()
	r.podNames()
	r.listeners()
	r.exposures()
	r.certificates()
	r.rollout()
	r.balance()
	if r.tableOK {
		r.configuration()
	}
	if HasErrors(r.problems) {
		return Model{}, r.problems
	}
	return r.model(), r.problems
}

// HasErrors says whether a spec is refused.
func HasErrors(problems []Problem) bool {
	return slices.ContainsFunc(problems, func(p Problem) bool { return p.Severity == Error })
}

// resolver walks one spec.
type resolver struct {
	in       Input
	spec     api.KafkaClusterSpec
	problems []Problem
	// kubernetes says that the nodes are pods.
	kubernetes bool

	table       kconf.Table
	tableOK     bool
	pkg         *api.Package
	brokers     int
	controllers int
	ids         []api.PoolNodeIDs
	// filed are keys that stand in every broker's file although their cluster-wide value
	// could live in Kafka, see fileTogether.
	filed map[string]bool
}

func (r *resolver) fail(path, reason, remedy string) {
	r.problems = append(r.problems, Problem{Path: path, Severity: Error, Reason: reason, Remedy: remedy})
}

func (r *resolver) warn(path, reason, remedy string) {
	r.problems = append(r.problems, Problem{Path: path, Severity: Warning, Reason: reason, Remedy: remedy})
}

// version finds the key table and the package.
func (r *resolver) version() {
	r.table, r.tableOK = kconf.For(r.spec.Version)
	if !r.tableOK {
		r.fail("spec.version", fmt.Sprintf("Kafka %s is not supported", r.spec.Version), "supported are the releases of "+strings.Join(kconf.Versions(), ", ")+r.offered())
		return
	}
	if r.kubernetes {
		return // images take the place of packages
	}
	var fit []*api.Package
	for i := range r.in.Catalog.Packages {
		p := &r.in.Catalog.Packages[i]
		if p.Spec.Product == api.ProductKafka && p.Spec.Version == r.spec.Version && (r.spec.Package == "" || r.spec.Package == p.Name) {
			fit = append(fit, p)
		}
	}
	switch {
	case len(fit) == 0 && r.spec.Package != "":
		r.fail("spec.package", fmt.Sprintf("there is no Package %s of Kafka %s", r.spec.Package, r.spec.Version), "leave it empty or create that Package"+r.offered())
	case len(fit) == 0:
		r.fail("spec.version", fmt.Sprintf("no Package provides Kafka %s", r.spec.Version), "create a Package with its source"+r.offered())
	case len(fit) > 1:
		names := make([]string, 0, len(fit))
		for _, p := range fit {
			names = append(names, p.Name)
		}
		slices.Sort(names)
		r.fail("spec.package", fmt.Sprintf("several Packages provide Kafka %s: %s", r.spec.Version, strings.Join(names, ", ")), "name one of them")
	default:
		r.pkg = fit[0]
	}
}

// offered lists the versions that the Packages provide.
func (r *resolver) offered() string {
	if r.kubernetes {
		return ""
	}
	var versions []string
	for _, p := range r.in.Catalog.Packages {
		if p.Spec.Product == api.ProductKafka {
			versions = append(versions, p.Spec.Version)
		}
	}
	if len(versions) == 0 {
		return "; no Package exists yet"
	}
	slices.SortFunc(versions, CompareVersions)
	return "; Packages exist for " + strings.Join(slices.Compact(versions), ", ")
}

// ReleaseLine is the release line of a version: within it every release has the same
// metadata.version, so going back is an ordinary roll.
func ReleaseLine(version string) string {
	parts := strings.Split(version, ".")
	return strings.Join(parts[:min(2, len(parts))], ".")
}

// Understands says whether a release of Kafka can run a cluster whose metadata.version, as
// Kafka writes it (4.3-IV0), is finalized. What is not known is not understood.
func Understands(version, finalized string) bool {
	line, _, ok := strings.Cut(finalized, "-IV")
	return ok && CompareVersions(line, ReleaseLine(version)) <= 0
}

// rollout checks how changes reach nodes.
func (r *resolver) rollout() {
	r.maxUnavailable()
	policy := &r.spec.Rollout
	if t := policy.NodeTimeout; t != nil && t.Duration < time.Minute {
		r.fail("spec.rollout.nodeTimeout", fmt.Sprintf("no Kafka starts within %s for sure", t.Duration), "use 1m or more, usually 15m")
	}
	if t := policy.Upgrade.Soak; t != nil && t.Duration < 0 {
		r.fail("spec.rollout.upgrade.soak", fmt.Sprintf("%s is in the past", t.Duration), "use 0s or more")
	}
	for i, w := range policy.Windows {
		if _, err := parseWindow(w); err != nil {
			r.fail(fmt.Sprintf("spec.rollout.windows[%d]", i), err.Error(), `use five fields of cron such as "0 2 * * SAT", a duration such as 4h and a time zone such as Europe/Zurich`)
		}
	}
	for i, point := range policy.PauseAfter {
		if id, err := strconv.ParseInt(point, 10, 32); err != nil {
			if point != FirstNode && point != EachRack {
				r.fail(fmt.Sprintf("spec.rollout.pauseAfter[%d]", i), fmt.Sprintf("%q is no canary point", point), "use FirstNode, EachRack or the id of a node")
			}
		} else if !r.gives(int32(id)) {
			r.warn(fmt.Sprintf("spec.rollout.pauseAfter[%d]", i), fmt.Sprintf("there is no node %d", id), "use the id of a node of this cluster")
		}
	}
}

// gives says whether an id is that of a node, if only of one that has yet to leave.
func (r *resolver) gives(id int32) bool {
	return slices.ContainsFunc(r.ids, func(g api.PoolNodeIDs) bool { return slices.Contains(present(g), id) })
}

func (r *resolver) maxUnavailable() {
	m := r.spec.Rollout.MaxUnavailable
	if m == nil {
		return
	}
	const path, remedy = "spec.rollout.maxUnavailable", "use a number of at least 1, a percentage such as 10%, or Rack"
	if m.Type == intstr.Int {
		if m.IntVal < 1 {
			r.fail(path, fmt.Sprintf("%d brokers leave nothing that may restart", m.IntVal), remedy)
		}
		return
	}
	if m.StrVal == WholeRack {
		return
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(m, 100, false)
	if err != nil || n < 1 || n > 100 {
		r.fail(path, fmt.Sprintf("%q is neither a number nor a percentage nor Rack", m.StrVal), remedy)
	}
}

// CompareVersions orders release numbers such as 3.9.2 and 4.3.1.
func CompareVersions(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := 0; i < len(as) && i < len(bs); i++ {
		if len(as[i]) != len(bs[i]) {
			return len(as[i]) - len(bs[i])
		}
		if c := strings.Compare(as[i], bs[i]); c != 0 {
			return c
		}
	}
	return len(as) - len(bs)
}
