package cluster

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
)

// configuration checks every configuration of the spec, on its own and together.
func (r *resolver) configuration() {
	r.fileTogether()
	r.configAt("spec.config", r.spec.Config, false)
	for _, key := range slices.Sorted(maps.Keys(r.spec.ExtraConfig)) {
		at, value := "spec.extraConfig["+key+"]", string(r.spec.ExtraConfig[key])
		if r.text(at, value) {
			r.kconfProblems(at, r.table.ValidateExtra(key, value))
		}
	}
	for i := range r.spec.Pools {
		p := &r.spec.Pools[i]
		r.configAt(fmt.Sprintf("spec.pools[%d].config", i), p.Config, true)
		r.shadowed(fmt.Sprintf("spec.pools[%d].config", i), p.Config, p)
		for j := range p.Overrides {
			path := fmt.Sprintf("spec.pools[%d].overrides[%d].config", i, j)
			r.configAt(path, p.Overrides[j].Config, true)
			r.shadowed(path, p.Overrides[j].Config, p)
		}
	}
	r.replication()
}

func (r *resolver) configAt(path string, config api.Config, perNode bool) {
	for _, key := range slices.Sorted(maps.Keys(config)) {
		at := path + "[" + key + "]"
		value := string(config[key])
		if !r.text(at, value) {
			continue
		}
		problems := r.table.Validate(key, value)
		r.kconfProblems(at, problems)
		if k, ok := r.table.Key(key); ok && perNode && k.ClusterOnly {
			r.fail(at, key+" must be the same on all nodes", "set it in spec.config")
		}
	}
}

// fileTogether finds thread pools whose size for one broker must stand in its file
// (kconf's Key.Live) while the cluster-wide size could live in Kafka. There it would outrank
// that file, and a broker that finds the two too far apart drops every cluster-wide key. So
// such a key stands in every file.
func (r *resolver) fileTogether() {
	r.filed = map[string]bool{}
	note := func(config api.Config) {
		for key, value := range config {
			k, known := r.table.Key(key)
			wide, ok := r.spec.Config[key]
			if known && ok && k.Live(string(wide)) && !k.Live(string(value)) {
				r.filed[key] = true
			}
		}
	}
	for i := range r.spec.Pools {
		p := &r.spec.Pools[i]
		if !slices.Contains(p.Roles, api.RoleBroker) {
			continue
		}
		note(p.Config)
		for j := range p.Overrides {
			note(p.Overrides[j].Config)
		}
	}
}

// text says whether a value was a scalar in the object (see api.ConfigValue).
func (r *resolver) text(path, value string) bool {
	switch {
	case value == "null":
		r.fail(path, "the key has no value", "write one, or leave the key out")
		return false
	case strings.HasPrefix(value, "{") || strings.HasPrefix(value, "["):
		if !json.Valid([]byte(value)) {
			return true
		}
		r.fail(path, "the value is a list or an object, but Kafka's values are text", "write it as text, for example \"a,b\"")
		return false
	default:
		return true
	}
}

// shadowed refuses a controller's own value of a key whose cluster-wide value would win.
func (r *resolver) shadowed(path string, config api.Config, p *api.Pool) {
	if slices.Contains(p.Roles, api.RoleBroker) {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(config)) {
		k, ok := r.table.Key(key)
		if value, wide := r.spec.Config[key]; ok && wide && k.Live(string(value)) && !r.filed[key] {
			r.fail(path+"["+key+"]", key+" is also in spec.config, whose cluster-wide value would win on a controller", "set it in one place only")
		}
	}
}

func (r *resolver) kconfProblems(path string, problems []kconf.Problem) {
	for _, p := range problems {
		r.problems = append(r.problems, Problem{Path: path, Severity: Severity(p.Severity), Reason: p.Reason, Remedy: p.Remedy})
	}
}

// replicated is a pair of configurations that count brokers: how many replicas, and how
// many of them must be in sync.
type replicated struct{ factor, least string }

func replicationKeys() []replicated {
	return []replicated{
		{"default.replication.factor", "min.insync.replicas"},
		{"transaction.state.log.replication.factor", "transaction.state.log.min.isr"},
		{"share.coordinator.state.topic.replication.factor", "share.coordinator.state.topic.min.isr"},
		{factor: "offsets.topic.replication.factor"}, // under min.insync.replicas
	}
}

// replication compares what needs brokers with how many there are.
func (r *resolver) replication() {
	config := r.defaults()
	for key, value := range r.spec.Config {
		config[key] = string(value)
	}
	r.enoughBrokers("spec.config", texts(r.spec.Config))
	for i := range r.spec.Pools {
		p := &r.spec.Pools[i]
		r.enoughBrokers(fmt.Sprintf("spec.pools[%d].config", i), texts(p.Config))
		for j := range p.Overrides {
			r.enoughBrokers(fmt.Sprintf("spec.pools[%d].overrides[%d].config", i, j), texts(p.Overrides[j].Config))
		}
	}
	for _, pair := range replicationKeys() {
		r.minISR(config, pair.least, pair.factor)
	}
	r.fewReplicas()
	r.fewBrokers()
}

func texts(config api.Config) map[string]string {
	out := make(map[string]string, len(config))
	for key, value := range config {
		out[key] = string(value)
	}
	return out
}

func (r *resolver) enoughBrokers(path string, config map[string]string) {
	for _, pair := range replicationKeys() {
		for _, key := range []string{pair.factor, pair.least} {
			if n, ok := number(config, key); ok && n > r.brokers && r.brokers > 0 {
				r.fail(path+"["+key+"]", fmt.Sprintf("%d replicas need %d brokers, the pools have %d", n, n, r.brokers), fmt.Sprintf("use at most %d, or more brokers", r.brokers))
			}
		}
	}
}

func (r *resolver) minISR(config map[string]string, minKey, factorKey string) {
	least, ok1 := number(config, minKey)
	factor, ok2 := number(config, factorKey)
	if !ok1 || !ok2 || r.brokers < 2 || least > r.brokers {
		return
	}
	path := "spec.config[" + minKey + "]"
	switch {
	case least > factor:
		r.fail(path, fmt.Sprintf("%s %d is above %s %d, so nothing could ever be written with acks=all", minKey, least, factorKey, factor), fmt.Sprintf("use at most %d", max(1, factor-1)))
	case least == factor && factor > 1:
		r.warn(path, fmt.Sprintf("%s equals %s: no broker can restart without stopping writes with acks=all, so rolling changes will hold", minKey, factorKey), fmt.Sprintf("use %d", factor-1))
	}
}

func number(config map[string]string, key string) (int, bool) {
	n, err := strconv.Atoi(strings.TrimSpace(config[key]))
	return n, err == nil
}

// defaultReplicas are three, or as many as the cluster had brokers when it was born. More
// brokers do not change them: that would restart the others, and a higher min ISR would stop
// writes to topics that were made with fewer replicas. Nor do fewer: what then no longer fits
// is for the user to say.
func (r *resolver) defaultReplicas() int {
	brokers := r.brokers
	if known := int(r.in.DefaultReplicas); known > 0 {
		brokers = known
	} else if r.in.Accepted != nil {
		before := 0
		for i := range r.in.Accepted.Pools {
			if p := &r.in.Accepted.Pools[i]; slices.Contains(p.Roles, api.RoleBroker) {
				before += int(p.Replicas)
			}
		}
		brokers = before
	}
	return min(3, brokers)
}

// fewReplicas warns when a cluster has grown beyond its default of replicas.
func (r *resolver) fewReplicas() {
	factor, could := r.defaultReplicas(), min(3, r.brokers)
	if factor >= could {
		return
	}
	if unset := r.unsetFactors(); len(unset) > 0 {
		r.warn("spec.config", fmt.Sprintf("the cluster began with fewer brokers, so topics still get %d replicas by default", factor),
			fmt.Sprintf("set %s to %d when you want that for new topics; it restarts the brokers one by one", strings.Join(unset, ", "), could))
	}
}

// fewBrokers refuses to leave fewer brokers than topics get replicas by default.
func (r *resolver) fewBrokers() {
	factor, unset := r.defaultReplicas(), r.unsetFactors()
	if r.brokers == 0 || factor <= r.brokers || len(unset) == 0 {
		return
	}
	r.fail("spec.config", fmt.Sprintf("topics get %d replicas by default since the cluster began, and the pools now have %d", factor, r.brokers),
		fmt.Sprintf("set %s to at most %d, or keep %d brokers", strings.Join(unset, ", "), r.brokers, factor))
}

// unsetFactors are the keys of replicas that the spec leaves to Castellan.
func (r *resolver) unsetFactors() []string {
	var unset []string
	for _, pair := range replicationKeys() {
		_, known := r.table.Key(pair.factor)
		if _, set := r.spec.Config[pair.factor]; known && !set {
			unset = append(unset, pair.factor)
		}
	}
	return unset
}

// defaults are the configurations that Castellan gives when the spec does not: the default
// replicas, and a min ISR that lets one of them restart. A min ISR follows the replicas that
// the spec asks for, where those are fewer.
func (r *resolver) defaults() map[string]string {
	factor := r.defaultReplicas()
	d := map[string]string{}
	give := func(key string, n int) {
		if _, ok := r.table.Key(key); ok {
			d[key] = strconv.Itoa(n)
		}
	}
	asked := texts(r.spec.Config)
	for _, pair := range replicationKeys() {
		replicas := factor
		if n, ok := number(asked, pair.factor); ok {
			replicas = min(replicas, n)
		}
		give(pair.factor, factor)
		give(pair.least, max(1, replicas-1))
	}
	return d
}

// wide is the configuration of every node, normalized: defaults, spec.config, extraConfig.
func (r *resolver) wide() map[string]string {
	out := r.defaults()
	r.overlay(out, r.spec.Config)
	r.overlay(out, r.spec.ExtraConfig)
	return out
}

func (r *resolver) overlay(onto map[string]string, config api.Config) {
	for key, value := range config {
		text := strings.TrimSpace(string(value))
		if k, ok := r.table.Key(key); ok {
			text = kconf.Normalize(k.Type, string(value))
		}
		onto[key] = text
	}
}
