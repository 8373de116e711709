package kafkatest

import (
	"context"
	"fmt"
	"time"

	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka"
)

// ISRWatch samples every partition's in-sync replicas.
type ISRWatch struct {
	stop   context.CancelFunc
	ended  chan struct{}
	report ISRReport
}

// ISRReport is what an [ISRWatch] saw.
type ISRReport struct {
	// Samples taken whole, and Unknown ones that Kafka did not answer, with the last reason.
	Samples, Unknown int
	Why              string
	// Least is the smallest ISR seen of each partition, under topic-number.
	Least map[string]int
	// Under are the partitions seen below min.insync.replicas: the worst sample of each, under topic-number.
	Under map[string]UnderMinISR
}

// UnderMinISR is one sample of a partition below its min.insync.replicas.
type UnderMinISR struct {
	ISR      []int32
	Replicas []int32
	MinISR   int
	Leader   int32
	At       time.Time
}

// WatchISR samples all topics for which wanted is true (nil: all) every interval, until Stop or the end of ctx. The
// sampled broker may be the one that last heard of a change: what it shows too late counts as late.
func WatchISR(ctx context.Context, target kafka.Target, every time.Duration, wanted func(topic string) bool) *ISRWatch {
	ctx, stop := context.WithCancel(ctx)
	w := &ISRWatch{
		stop: stop, ended: make(chan struct{}),
		report: ISRReport{Least: map[string]int{}, Under: map[string]UnderMinISR{}},
	}
	go w.watch(ctx, target, every, wanted)
	return w
}

// Stop ends the watch and returns what it saw.
func (w *ISRWatch) Stop() ISRReport {
	w.stop()
	<-w.ended
	return w.report
}

func (w *ISRWatch) watch(ctx context.Context, target kafka.Target, every time.Duration, wanted func(string) bool) {
	defer close(w.ended)
	clients := kafka.NewClients(kafka.Options{Timeout: 5 * time.Second})
	defer clients.Close()
	cluster := clients.Cluster("watch", target)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		seen, err := cluster.Observe(ctx, plan.Ask{})
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.unknown(err.Error())
		case !seen.Known || !seen.PartitionsKnown:
			w.unknown(seen.Why)
		default:
			w.sample(seen.Topics, wanted)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (w *ISRWatch) unknown(why string) {
	w.report.Unknown++
	w.report.Why = why
}

func (w *ISRWatch) sample(topics []plan.Topic, wanted func(string) bool) {
	w.report.Samples++
	for _, t := range topics {
		if wanted != nil && !wanted(t.Name) {
			continue
		}
		for i, p := range t.Partitions {
			name := fmt.Sprintf("%s-%d", t.Name, i)
			least, seen := w.report.Least[name]
			if seen && least <= len(p.ISR) {
				continue
			}
			w.report.Least[name] = len(p.ISR)
			if len(p.ISR) < t.MinISR {
				w.report.Under[name] = UnderMinISR{
					ISR: p.ISR, Replicas: p.Replicas, MinISR: t.MinISR, Leader: p.Leader, At: time.Now(),
				}
			}
		}
	}
}
