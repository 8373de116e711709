package balance

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Proposal is what Plan would have done, and what that would bring.
type Proposal struct {
	// Problems are why the request is refused; there are no moves then.
	Problems []Problem
	// Moves in the order in which space allows them; at most one of each partition.
	Moves []Move
	// Elections are preferred leader elections to ask for when all moves are done.
	Elections []Election
	// Deferred are partitions that were left alone because somebody reassigns them right
	// now; plan again when that is over.
	Deferred []PartitionRef
	// LeftOut counts moves that are worth it and find room only once those of this proposal
	// are done: plan again then.
	LeftOut int
	// Bytes to copy between brokers, LocalBytes between log dirs of one broker.
	Bytes, LocalBytes int64
	// LeastBytes is what any plan must copy between brokers to reach the disk tolerance or
	// to empty the leaving brokers, as far as racks let one tell.
	LeastBytes int64
	Brokers    []BrokerRow
	Racks      []RackRow
	LogDirs    []LogDirRow
	Objectives []Objective
}

// Move changes one partition. Without a new broker or log dir it changes only the order.
type Move struct {
	Topic     string
	Partition int32
	// From and To are the whole replica lists, the preferred leader first.
	From, To []int32
	// Dirs are where replicas go that are copied: on brokers new in To, and on brokers
	// where only the log dir changes.
	Dirs []DirRef
	// Size is what one new replica will hold; Bytes and LocalBytes are what is copied in all.
	Size, Bytes, LocalBytes int64
	// Leader is the broker that is copied from.
	Leader int32
	// Why the partition moves: the first objective that wanted it.
	Why Purpose
}

// Purpose is what a Move is for; also the order of the moves.
type Purpose int8

// The purposes in the order of their weight.
const (
	ForEvacuation Purpose = iota
	ForRacks
	ForFactor
	ForDisks
	ForReplicas
	ForTopics
	ForLogDirs
	ForLeaders
)

// PartitionRef names a partition.
type PartitionRef struct {
	Topic     string
	Partition int32
}

// Election makes the preferred replica lead.
type Election struct {
	PartitionRef
	From, To int32
}

// Use is what a broker, rack or log dir holds.
type Use struct {
	Replicas int
	// Leaders are those that lead, or, in a table of after, that are preferred.
	Leaders int
	// Bytes of replicas, whole once in sync.
	Bytes int64
	// Fraction of the capacity that is used, other data included; zero when unknown.
	Fraction float64
}

// BrokerRow is one line of the table of brokers.
type BrokerRow struct {
	Broker        int32
	Rack          string
	Before, After Use
	// Bound is the fraction that racks and capacities allow the broker at best.
	Bound float64
}

// RackRow is one line of the table of racks.
type RackRow struct {
	Rack          string
	Before, After Use
}

// LogDirRow is one line of the table of log dirs.
type LogDirRow struct {
	DirRef
	Before, After Use
}

// Objective is one thing the proposal was made for.
type Objective struct {
	Name string
	// Met says that After is within Limit.
	Met bool
	// Before and After are the largest distance from what is reachable, in Unit.
	Before, After float64
	// Limit that After is held against.
	Limit float64
	Unit  string
	// Where the largest distance is left, for a person.
	Where string
}

// Empty says that there is nothing to do.
func (p Proposal) Empty() bool { return len(p.Moves) == 0 && len(p.Elections) == 0 }

// Digest identifies what would be done: the moves and elections in their order, without the
// tables. It is the hex of a SHA-256 over one line each:
// "move <topic>-<partition> [from] [to] <broker>:<path>…" and "elect <topic>-<partition> <leader>".
func (p Proposal) Digest() string {
	sum := sha256.New()
	var line []byte
	for i := range p.Moves {
		line = p.Moves[i].canonical(line[:0])
		_, _ = sum.Write(line) // a hash never fails
	}
	for _, e := range p.Elections {
		line = fmt.Appendf(line[:0], "elect %s-%d %d\n", e.Topic, e.Partition, e.To)
		_, _ = sum.Write(line)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func (m *Move) canonical(b []byte) []byte {
	b = append(b, "move "...)
	b = append(b, m.Topic...)
	b = append(b, '-')
	b = strconv.AppendInt(b, int64(m.Partition), 10)
	for _, list := range [][]int32{m.From, m.To} {
		b = append(b, " ["...)
		for i, id := range list {
			if i > 0 {
				b = append(b, ' ')
			}
			b = strconv.AppendInt(b, int64(id), 10)
		}
		b = append(b, ']')
	}
	for _, d := range m.Dirs {
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(d.Broker), 10)
		b = append(b, ':')
		b = strconv.AppendQuote(b, d.Path)
	}
	return append(b, '\n')
}

// Estimate is how long the copies between brokers take at least when every broker receives
// and sends so many bytes a second; zero when the rate is not known.
func (p Proposal) Estimate(bytesPerSecond int64) time.Duration {
	if bytesPerSecond <= 0 {
		return 0
	}
	in, out := map[int32]int64{}, map[int32]int64{}
	var most int64
	for i := range p.Moves {
		m := &p.Moves[i]
		for _, b := range added(m.From, m.To) {
			in[b] += m.Size
			out[m.Leader] += m.Size
			most = max(most, in[b], out[m.Leader])
		}
	}
	return time.Duration(float64(most) / float64(bytesPerSecond) * float64(time.Second))
}

// added are the brokers of to that are not in from.
func added(from, to []int32) []int32 {
	var out []int32
	for _, b := range to {
		if !slices.Contains(from, b) {
			out = append(out, b)
		}
	}
	return out
}

func problem(reason Reason, format string, args ...any) Problem {
	return Problem{Reason: reason, Message: fmt.Sprintf(format, args...)}
}
