package balance

import (
	"fmt"
	"slices"
)

// start picks moves in their order until the limits are reached. It passes over those that
// have to wait, but never lets a later one into a log dir that an earlier one needs.
func (x *execution) start() {
	orders := 0
	for i, t := range x.todo {
		if reason := x.saturated(); reason != "" {
			x.because(reason)
			x.why[reason] += len(x.todo) - i - 1
			return
		}
		if reason := x.unfit(t); reason != "" {
			x.because(reason)
			continue
		}
		m, reason := x.part(t)
		if reason != "" {
			x.hold(t)
			x.because(reason)
			continue
		}
		if len(m.Dirs)+len(added(m.From, m.To)) == 0 {
			if orders++; x.limits.Orders > 0 && orders > x.limits.Orders {
				x.because("other changes of order come first")
				continue
			}
		}
		x.begin(t, m)
	}
}

// saturated says that no copy at all may start any more; empty when one may.
func (x *execution) saturated() string {
	switch {
	case x.limits.Cluster > 0 && x.running >= x.limits.Cluster:
		return x.crowded()
	case x.limits.Bytes > 0 && x.bytes >= x.limits.Bytes && x.running > 0:
		return x.heavy()
	}
	return ""
}

func (x *execution) crowded() string {
	return fmt.Sprintf("%d copies run in the cluster, and %d may", x.running, x.limits.Cluster)
}

// heavy is asked for each of many moves, and is the same until one starts.
func (x *execution) heavy() string {
	if x.weight.bytes != x.bytes || x.weight.text == "" {
		x.weight.bytes, x.weight.text = x.bytes, fmt.Sprintf("%s are being copied, and %s may", Bytes(x.bytes), Bytes(x.limits.Bytes))
	}
	return x.weight.text
}

// hold keeps later moves out of the log dirs that a waiting one needs, where room is scarce.
func (x *execution) hold(t todo) {
	for _, d := range x.missing(t.m, t.part) {
		if x.tight[d] {
			x.held[d] = true
		}
	}
}

// unfit says why a move cannot go on as things are; empty when it can.
func (x *execution) unfit(t todo) string {
	if t.part.Leader < 0 && len(added(t.part.ids(), t.m.To)) > 0 {
		return "their partition has no leader to copy from; bring back a broker that has the data"
	}
	for _, b := range t.m.To {
		node := x.nodes[b]
		if node == nil || !node.Alive {
			return fmt.Sprintf("broker %d is down; bring it back, or plan again without it", b)
		}
		if slices.ContainsFunc(t.part.Replicas, func(r Replica) bool { return r.Broker == b }) {
			continue
		}
		if node.Cordoned || node.Leaving {
			return fmt.Sprintf("broker %d takes no new replicas any more; plan again", b)
		}
	}
	for _, d := range x.missing(t.m, t.part) {
		if x.lost(d) {
			return fmt.Sprintf("log dir %s of broker %d takes no replicas any more; plan again", d.Path, d.Broker)
		}
	}
	return ""
}

// lost says that a log dir is gone, offline or cordoned.
func (x *execution) lost(d DirRef) bool {
	i := slices.IndexFunc(x.nodes[d.Broker].LogDirs, func(l LogDir) bool { return l.Path == d.Path })
	return i < 0 || x.nodes[d.Broker].LogDirs[i].Offline || x.nodes[d.Broker].LogDirs[i].Cordoned
}

// part is as much of a move as may start now: all of it, or, where the limits do not allow all
// its copies at once, one of them.
func (x *execution) part(t todo) (Move, string) {
	now := t.part.ids()
	m := *t.m
	m.From = now
	m.Dirs = x.missing(t.m, t.part)
	reason := x.blocked(t, m)
	if reason == "" || len(m.Dirs)+len(added(now, m.To)) == 0 {
		return m, reason
	}
	for _, b := range t.m.To {
		if slices.Contains(now, b) {
			continue
		}
		if one := x.only(t, m, b); x.blocked(t, one) == "" {
			return one, ""
		}
	}
	for _, d := range m.Dirs {
		if one := m; slices.Contains(now, d.Broker) {
			one.To, one.Dirs = now, []DirRef{d}
			if x.blocked(t, one) == "" {
				return one, ""
			}
		}
	}
	return m, reason
}

// only is the part of a move that brings one new replica and takes away at most one, in the
// same rack if there is one.
func (x *execution) only(t todo, m Move, b int32) Move {
	now := t.part.ids()
	to := slices.Clone(now)
	var out []int
	for i, have := range now {
		if !slices.Contains(m.To, have) {
			out = append(out, i)
		}
	}
	growing := len(m.To) - len(now)
	switch {
	case len(out) == 0 || growing > 0 && len(added(now, m.To)) > len(out):
		to = append(to, b)
	default:
		slices.SortStableFunc(out, func(i, j int) int {
			return x.alike(now[j], b) - x.alike(now[i], b)
		})
		to[out[0]] = b
	}
	one := m
	one.To = to
	one.Dirs = slices.DeleteFunc(slices.Clone(m.Dirs), func(d DirRef) bool { return d.Broker != b })
	return one
}

// alike is 1 for brokers of one rack.
func (x *execution) alike(a, b int32) int {
	if na, nb := x.nodes[a], x.nodes[b]; na != nil && nb != nil && na.Rack == nb.Rack {
		return 1
	}
	return 0
}

// blocked says which limit stands in the way of a move; empty when none.
func (x *execution) blocked(t todo, m Move) string {
	news := added(m.From, m.To)
	copies := len(news)
	for _, d := range m.Dirs {
		if !slices.Contains(news, d.Broker) {
			copies++
		}
	}
	if copies == 0 {
		return x.bare(t, m)
	}
	if x.limits.Cluster > 0 && x.running+copies > x.limits.Cluster {
		return x.crowded()
	}
	bytes := int64(copies) * t.m.Size
	if x.limits.Bytes > 0 && x.bytes+bytes > x.limits.Bytes && (x.running > 0 || copies > 1) {
		return x.heavy()
	}
	if reason := x.busy(t, m, news); reason != "" {
		return reason
	}
	if reason := x.full(t, m, news); reason != "" {
		return reason
	}
	return x.bare(t, m)
}

// busy holds the limits of brokers against a move.
func (x *execution) busy(t todo, m Move, news []int32) string {
	out := map[int32]int{t.part.Leader: len(news)}
	in := map[int32]int{}
	for _, b := range news {
		in[b]++
	}
	for _, d := range m.Dirs {
		if !slices.Contains(news, d.Broker) {
			in[d.Broker]++
			out[d.Broker]++
		}
	}
	for b, n := range in {
		if x.limits.In > 0 && x.in[b]+n > x.limits.In {
			return fmt.Sprintf("their brokers receive %d copies each, as many as may at once", x.limits.In)
		}
	}
	for b, n := range out {
		if x.limits.Out > 0 && n > 0 && x.out[b]+n > x.limits.Out {
			return fmt.Sprintf("their leaders send %d copies each, as many as may at once", x.limits.Out)
		}
	}
	return ""
}

// full says that a log dir has no room for a move, or that others come first. Of a broker
// whose log dir is not given, the one with the least room counts.
func (x *execution) full(t todo, m Move, news []int32) string {
	for _, d := range m.Dirs {
		if x.held[d] {
			return "moves before them need the room in the same log dir"
		}
		if x.room(d) < t.m.Size {
			return fmt.Sprintf("log dir %s of broker %d has no room for %s above its headroom yet; it comes when other moves leave it, or free some", d.Path, d.Broker, Bytes(t.m.Size))
		}
	}
	for _, b := range news {
		if slices.ContainsFunc(m.Dirs, func(d DirRef) bool { return d.Broker == b }) {
			continue
		}
		for i := range x.nodes[b].LogDirs {
			if x.room(DirRef{Broker: b, Path: x.nodes[b].LogDirs[i].Path}) < t.m.Size {
				return fmt.Sprintf("broker %d has no room for %s above its headroom yet", b, Bytes(t.m.Size))
			}
		}
	}
	return ""
}

// bare says that a move would leave fewer replicas in sync than min.insync.replicas, or fewer
// than there are where that is less still. Kafka waits for the new ones, so they count.
func (x *execution) bare(t todo, m Move) string {
	topic := &x.c.Topics[x.topics[m.Topic]]
	sure := len(added(m.From, m.To))
	for _, r := range t.part.Replicas {
		if r.State.Has(InSync) && slices.Contains(m.To, r.Broker) {
			sure++
		}
	}
	if sure < min(topic.MinISR, t.part.inSync()) {
		return "too few of the replicas that stay are in sync; they start when those have caught up"
	}
	return ""
}

// begin books a move.
func (x *execution) begin(t todo, m Move) {
	news := added(m.From, m.To)
	m.Bytes, m.LocalBytes = int64(len(news))*t.m.Size, 0
	m.Leader = t.part.Leader
	for _, b := range news {
		x.in[b]++
		x.out[t.part.Leader]++
		if !slices.ContainsFunc(m.Dirs, func(d DirRef) bool { return d.Broker == b }) {
			x.reserve(b, NoDir, t.m.Size)
		}
	}
	copies := len(news)
	for _, d := range m.Dirs {
		x.reserved[d] += t.m.Size
		if !slices.Contains(news, d.Broker) {
			x.in[d.Broker]++
			x.out[d.Broker]++
			m.LocalBytes += t.m.Size
			copies++
		}
	}
	x.running += copies
	x.bytes += int64(copies) * t.m.Size
	x.step.Start = append(x.step.Start, m)
}
