package balance

// Cluster is every fact a Proposal rests on, read in one pass.
type Cluster struct {
	// Brokers are all registered ones. A broker that holds a replica and is not listed
	// counts as dead.
	Brokers []Broker
	Topics  []Topic
	// Copies are the moves between log dirs of one broker in flight (DescribeLogDirs:
	// isFutureKey).
	Copies []Copy
}

// Broker is a registered broker.
type Broker struct {
	ID int32
	// Rack is broker.rack; empty without one.
	Rack string
	// Alive is true for a broker that is registered and not fenced.
	Alive bool
	// Cordoned takes no new replica (KIP-1066, or a user's word).
	Cordoned bool
	// Leaving is on its way out: it takes no new replica, and Drain and Full empty it.
	Leaving bool
	// LogDirs as DescribeLogDirs tells; without any, nothing is moved to the broker.
	LogDirs []LogDir
}

// LogDir is one log dir of a broker (DescribeLogDirs, KIP-827).
type LogDir struct {
	Path string
	// Total and Usable bytes of its volume; Total zero or below is unknown, and no headroom
	// is held there.
	Total, Usable int64
	Offline       bool
	// Cordoned takes no new replica (KIP-1066).
	Cordoned bool
	// Volume is the same for log dirs, also of several brokers, that share a volume; empty is
	// one of its own. What replicas of the others take is then no foreign content.
	Volume string
}

// Topic holds its partitions in partition order.
type Topic struct {
	Name       string
	MinISR     int
	Partitions []Partition
}

// Partition of a topic. Leader is -1 without one.
type Partition struct {
	Leader int32
	// Replicas in Metadata's order: the preferred leader first, and during a reassignment
	// the replicas on their way out too.
	Replicas []Replica
}

// NoDir is the Dir of a replica whose log dir is not known.
const NoDir = -1

// Replica of a partition. It is small on purpose: there are millions.
type Replica struct {
	Broker int32
	// Dir is an index into the broker's LogDirs, or NoDir.
	Dir   int16
	State ReplicaState
	// Bytes that its log holds now.
	Bytes int64
}

// ReplicaState is a set of facts about one replica.
type ReplicaState uint16

// The facts about a replica: in the ISR (Metadata), being added or removed
// (ListPartitionReassignments), or in a lost log dir (Metadata: offline replicas).
const (
	InSync ReplicaState = 1 << iota
	Adding
	Removing
	Offline
)

// Has says that all those facts hold.
func (s ReplicaState) Has(facts ReplicaState) bool { return s&facts == facts }

// Copy is one replica on its way to another log dir of its broker.
type Copy struct {
	Topic     string
	Partition int32
	Broker    int32
	// Dir is the index of the log dir it goes to.
	Dir int16
	// Bytes that are there already.
	Bytes int64
}

// inFlight says that a reassignment of the partition is under way.
func (p Partition) inFlight() bool {
	for _, r := range p.Replicas {
		if r.State&(Adding|Removing) != 0 {
			return true
		}
	}
	return false
}

// bytes is what a new replica will hold: as much as the largest one there is, because each
// broker cleans on its own and any of them may lead by then.
func (p Partition) bytes() int64 {
	var most int64
	for _, r := range p.Replicas {
		most = max(most, r.Bytes)
	}
	return most
}

// held is what a replica will hold: one that is behind still grows.
func (p Partition) held(r Replica) int64 {
	if r.State.Has(InSync) {
		return r.Bytes
	}
	return p.bytes()
}

// inSync counts the ISR.
func (p Partition) inSync() int {
	n := 0
	for _, r := range p.Replicas {
		if r.State.Has(InSync) {
			n++
		}
	}
	return n
}

// size is how many brokers there are, or log dirs, whichever is more.
func (c *Cluster) size() int {
	dirs := 0
	for i := range c.Brokers {
		dirs += len(c.Brokers[i].LogDirs)
	}
	return max(len(c.Brokers), dirs)
}
