package balance

import "math"

// network is a small maximum-flow problem (Dinic's algorithm). Capacities are scaled so that
// all that has to flow is 1.
type network struct {
	head, next, to []int32
	room           []float64
	level, at      []int32
}

const (
	source  = 0
	sink    = 1
	epsilon = 1e-11
)

func newNetwork(nodes int) *network {
	n := &network{head: make([]int32, nodes), level: make([]int32, nodes), at: make([]int32, nodes)}
	for i := range n.head {
		n.head[i] = -1
	}
	return n
}

// edge adds one and returns its number; the edge back has the next number.
func (n *network) edge(from, to int, room float64) int {
	id := len(n.to)
	n.to = append(n.to, index(to), index(from))
	n.room = append(n.room, room, 0)
	n.next = append(n.next, n.head[from], n.head[to])
	n.head[from], n.head[to] = index(id), index(id+1)
	return id
}

// flow sends as much as it can and returns how much.
func (n *network) flow() float64 {
	var sum float64
	for n.search() {
		copy(n.at, n.head)
		for {
			f := n.push(source, math.Inf(1))
			if f <= epsilon {
				break
			}
			sum += f
		}
	}
	return sum
}

// search numbers the nodes by their distance from the source; after the last one, level is
// negative beyond the smallest cut.
func (n *network) search() bool {
	for i := range n.level {
		n.level[i] = -1
	}
	n.level[source] = 0
	queue := []int32{source}
	for len(queue) > 0 {
		v := queue[0]
		queue = queue[1:]
		for e := n.head[v]; e >= 0; e = n.next[e] {
			if n.room[e] > epsilon && n.level[n.to[e]] < 0 {
				n.level[n.to[e]] = n.level[v] + 1
				queue = append(queue, n.to[e])
			}
		}
	}
	return n.level[sink] >= 0
}

func (n *network) push(v int32, most float64) float64 {
	if v == sink {
		return most
	}
	for ; n.at[v] >= 0; n.at[v] = n.next[n.at[v]] {
		e := n.at[v]
		if n.room[e] <= epsilon || n.level[n.to[e]] != n.level[v]+1 {
			continue
		}
		if f := n.push(n.to[e], min(most, n.room[e])); f > epsilon {
			n.room[e] -= f
			n.room[e^1] += f
			return f
		}
	}
	return 0
}
