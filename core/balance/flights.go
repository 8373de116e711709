package balance

// flights counts what is in flight, whoever began it.
func (x *execution) flights() {
	for t := range x.c.Topics {
		for i := range x.c.Topics[t].Partitions {
			p := &x.c.Topics[t].Partitions[i]
			if p.inFlight() {
				x.flying[PartitionRef{Topic: x.c.Topics[t].Name, Partition: int32(i)}] = true
				x.flight(p)
			}
		}
	}
	for _, f := range x.c.Copies {
		x.flying[PartitionRef{Topic: f.Topic, Partition: f.Partition}] = true
		x.in[f.Broker]++
		x.out[f.Broker]++
		x.running++
		if p := x.partition(f.Topic, f.Partition); p != nil {
			for _, r := range p.Replicas {
				if r.Broker == f.Broker {
					x.bytes += r.Bytes
					x.reserve(f.Broker, f.Dir, r.Bytes-f.Bytes)
				}
			}
		}
	}
}

func (x *execution) flight(p *Partition) {
	size := p.bytes()
	for _, r := range p.Replicas {
		if !r.State.Has(Adding) || r.State.Has(InSync) {
			continue
		}
		x.in[r.Broker]++
		x.out[p.Leader]++
		x.running++
		x.bytes += size
		x.reserve(r.Broker, r.Dir, size-r.Bytes)
	}
}

// reserve keeps room in a log dir, or in all of the broker's while it is not known in which.
func (x *execution) reserve(broker int32, d int16, bytes int64) {
	b := x.nodes[broker]
	if b == nil || bytes <= 0 {
		return
	}
	for i := range b.LogDirs {
		if d < 0 || int(d) >= len(b.LogDirs) || int(d) == i {
			x.reserved[DirRef{Broker: broker, Path: b.LogDirs[i].Path}] += bytes
		}
	}
}

// room is what a log dir can take now, headroom and copies in flight taken off.
func (x *execution) room(d DirRef) int64 {
	b := x.nodes[d.Broker]
	if b == nil {
		return 0
	}
	for i := range b.LogDirs {
		dir := &b.LogDirs[i]
		if dir.Path != d.Path {
			continue
		}
		if dir.Total <= 0 {
			return 1 << 62
		}
		headroom := x.limits.Headroom
		if headroom == 0 {
			headroom = DefaultHeadroom
		}
		return dir.Usable - int64(headroom*float64(dir.Total)) - x.reserved[d]
	}
	return 0
}
