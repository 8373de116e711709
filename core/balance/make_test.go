package balance_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"castellan.dev/castellan/core/balance"
)

// shape is a cluster to be made up: deterministic for its seed.
type shape struct {
	seed     uint64
	brokers  int
	racks    int // unequal: rack i gets brokers in proportion to i+2
	fresh    int // brokers that are new and hold nothing
	replicas int
	topics   int
	factors  []int // drawn from by topic
	dirs     int
	used     float64 // mean fraction of the disks
	skew     float64 // exponent of the sizes of topics (zipf)
	uneven   float64 // how much more the fullest old broker is drawn than the emptiest
	minISR   int
	mixed    bool // every third broker has twice the disk
}

const dirBytes = int64(4) << 40

// cluster makes it up. The sizes of topics follow zipf's law, those of partitions differ by a
// third, those of replicas by a hundredth; the placement keeps to racks.
func (h shape) cluster() *balance.Cluster {
	r := rand.New(rand.NewPCG(h.seed, 7))
	c := &balance.Cluster{}
	h.addBrokers(c)
	sizes, counts := h.topicSizes(r)
	draw := h.draw(c)
	held := make([][]int64, h.brokers)
	for b := range held {
		held[b] = make([]int64, h.dirs)
	}
	for t := range h.topics {
		factor := h.factors[r.IntN(len(h.factors))]
		topic := balance.Topic{Name: fmt.Sprintf("topic-%d", t), MinISR: max(1, min(h.minISR, factor))}
		for range counts[t] {
			size := int64(sizes[t] * (0.67 + 0.66*r.Float64()))
			p := balance.Partition{}
			for _, b := range draw(r, factor) {
				d := r.IntN(h.dirs)
				bytes := size - int64(float64(size)*0.01*r.Float64())
				held[b][d] += bytes
				p.Replicas = append(p.Replicas, balance.Replica{Broker: c.Brokers[b].ID, Dir: int16(d), State: balance.InSync, Bytes: bytes})
			}
			p.Leader = p.Replicas[0].Broker
			topic.Partitions = append(topic.Partitions, p)
		}
		c.Topics = append(c.Topics, topic)
	}
	h.fillDisks(c, held)
	return c
}

func (h shape) addBrokers(c *balance.Cluster) {
	var racks []string
	for i := range max(1, h.racks) {
		for range i + 2 {
			name := ""
			if h.racks > 0 {
				name = fmt.Sprintf("r%d", i)
			}
			racks = append(racks, name)
		}
	}
	// The first brokers go round the racks so that none is empty.
	for b := range h.brokers {
		rack := racks[b*7%len(racks)]
		if h.racks > 0 && b < h.racks {
			rack = fmt.Sprintf("r%d", b)
		}
		broker := balance.Broker{ID: int32(b + 1), Rack: rack, Alive: true}
		for d := range h.dirs {
			total := dirBytes
			if h.mixed && b%3 == 0 {
				total *= 2
			}
			broker.LogDirs = append(broker.LogDirs, balance.LogDir{Path: fmt.Sprintf("/data/%d", d), Total: total})
		}
		c.Brokers = append(c.Brokers, broker)
	}
}

// topicSizes are the bytes of a partition and the number of partitions, by topic.
func (h shape) topicSizes(r *rand.Rand) ([]float64, []int) {
	sizes, counts := make([]float64, h.topics), make([]int, h.topics)
	factor := 0.0
	for _, f := range h.factors {
		factor += float64(f) / float64(len(h.factors))
	}
	parts := float64(h.replicas) / factor
	var weights, size []float64
	sum := 0.0
	for t := range h.topics {
		weights = append(weights, 1/math.Pow(float64(t+5), 0.7))
		size = append(size, 1/math.Pow(float64(t+1), h.skew))
		sum += weights[t]
	}
	r.Shuffle(len(size), func(i, j int) { size[i], size[j] = size[j], size[i] })
	all := 0.0
	for t := range h.topics {
		counts[t] = max(1, int(weights[t]/sum*parts+r.Float64()))
		all += size[t] * float64(counts[t]) * factor
	}
	var capacity float64
	for b := range h.brokers {
		capacity += float64(h.dirs) * float64(dirBytes)
		if h.mixed && b%3 == 0 {
			capacity += float64(h.dirs) * float64(dirBytes)
		}
	}
	for t := range h.topics {
		sizes[t] = size[t] / all * capacity * h.used
	}
	return sizes, counts
}

// draw places replicas as Kafka's rack-aware assignment would, on brokers that are not new,
// some of which are drawn more often.
func (h shape) draw(c *balance.Cluster) func(*rand.Rand, int) []int {
	old := h.brokers - h.fresh
	return func(r *rand.Rand, factor int) []int {
		var out []int
		in := map[string]int{}
		for try := 0; len(out) < min(factor, old); try++ {
			b := r.IntN(old)
			if r.Float64() > 1/(1+h.uneven*float64(b%5)/4) {
				continue
			}
			limit := (factor + max(1, h.racks) - 1) / max(1, h.racks)
			if slices.Contains(out, b) || in[c.Brokers[b].Rack] >= limit && try < 2000 {
				continue
			}
			in[c.Brokers[b].Rack]++
			out = append(out, b)
		}
		return out
	}
}

func (h shape) fillDisks(c *balance.Cluster, held [][]int64) {
	for b := range c.Brokers {
		for d := range c.Brokers[b].LogDirs {
			dir := &c.Brokers[b].LogDirs[d]
			other := dir.Total / 200
			dir.Total = max(dir.Total, (held[b][d]+other)*20/19) // a disk never holds more than it can
			dir.Usable = dir.Total - other - held[b][d]
		}
	}
}
