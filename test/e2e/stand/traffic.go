package stand

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/kafkatest"
)

// Traffic is an acks=all writer and a reader of one topic that go on while a story happens.
type Traffic struct {
	Writer *kafkatest.Writer

	s      *Stand
	topic  string
	cancel context.CancelFunc
	read   atomic.Int64
	ending atomic.Value // why the reader had to begin again, the last time
	begun  atomic.Int64 // how often it did
	ended  chan error
}

// StartTraffic makes the topic and lets a writer and a reader begin at it, through the listener "plain". The test must
// call End.
func (s *Stand) StartTraffic(topic string, partitions int) *Traffic {
	s.tb.Helper()
	s.Must("topics", "create", topic, "--partitions", fmt.Sprint(partitions), "-n", s.cluster.Namespace, "--cluster", s.cluster.Name)
	config := s.ClientConfig("plain")
	ctx, cancel := context.WithCancel(s.tb.Context())
	s.tb.Cleanup(cancel)
	writer, err := kafkatest.StartWriter(ctx, config, topic, 0)
	if err != nil {
		s.tb.Fatal(err)
	}
	t := &Traffic{Writer: writer, s: s, topic: topic, cancel: cancel, ended: make(chan error, 1)}
	go func() { t.ended <- t.follow(ctx, config) }()
	s.Eventually("records of "+topic+" are written and read", time.Minute, t.MoreThan(100))
	return t
}

// Read counts the records that the reader has read since it began, or had to begin again.
func (t *Traffic) Read() int { return int(t.read.Load()) }

// BegunAgain counts how often the reader's client gave up in the middle.
func (t *Traffic) BegunAgain() int64 { return t.begun.Load() }

// MoreThan is the fact that more than so many records were acknowledged, and read.
func (t *Traffic) MoreThan(records int) Fact {
	return func(context.Context) error {
		if acknowledged, read := t.Writer.Acknowledged(), t.Read(); acknowledged <= records || read <= records {
			failed, err := t.Writer.Failed()
			return fmt.Errorf("%d records acknowledged, %d failed (%w), %d read (%v)", acknowledged, failed, err, read, t.ending.Load())
		}
		return nil
	}
}

// End stops both and fails the test when an acknowledged record cannot be read, or when the reader did not come along.
// It returns how many records were given up as failed, which is no loss.
func (t *Traffic) End() int64 {
	s := t.s
	s.tb.Helper()
	acknowledged := t.Writer.Stop()
	s.Eventually("the reader comes to the end of "+t.topic, time.Minute, func(context.Context) error {
		if read := t.Read(); read < acknowledged {
			return fmt.Errorf("%d of %d acknowledged records read (%v)", read, acknowledged, t.ending.Load())
		}
		return nil
	})
	t.cancel()
	if err := <-t.ended; err != nil && !errors.Is(err, context.Canceled) {
		s.tb.Errorf("the reader of %s: %v", t.topic, err)
	}
	ctx, cancel := context.WithTimeout(s.tb.Context(), time.Minute)
	defer cancel()
	verdict, err := t.Writer.Verify(ctx)
	if err != nil {
		s.tb.Fatal(err)
	}
	if len(verdict.Missing) > 0 {
		s.tb.Errorf("%d of %d acknowledged records of %s are lost, the first is number %d",
			len(verdict.Missing), verdict.Acknowledged, t.topic, verdict.Missing[0])
	}
	failed, last := t.Writer.Failed()
	s.tb.Logf("%s: %d acknowledged, %d failed (%v), longest gap %s from %s, %d duplicates; the reader had to begin again %d times (%v)",
		t.topic, verdict.Acknowledged, failed, last, t.Writer.LongestGap().Round(time.Millisecond), t.Writer.LongestGapFrom().UTC().Format(time.TimeOnly), verdict.Duplicates,
		t.begun.Load(), t.ending.Load())
	return failed
}

func (t *Traffic) follow(ctx context.Context, config kafka.ClientConfig) error {
	client, err := kafka.Dial(ctx, config)
	if err != nil {
		return fmt.Errorf("follow %s: %w", t.topic, err)
	}
	defer client.Close()
	for {
		err := t.readAll(ctx, client)
		if ctx.Err() != nil {
			return err
		}
		if t.Read() > 0 { // before, not every broker knew the new topic
			t.begun.Add(1)
		}
		t.ending.Store(fmt.Sprintf("%s: the reader begins again after %d records: %v", time.Now().UTC().Format(time.TimeOnly), t.Read(), err))
		t.read.Store(0)
		select {
		case <-ctx.Done():
		case <-time.After(poll):
		}
	}
}

func (t *Traffic) readAll(ctx context.Context, client *kafka.Client) error {
	for _, err := range client.Consume(ctx, kafka.ConsumeOptions{Topic: t.topic, From: kafka.Start{Offset: kafka.Beginning}}) {
		if err != nil {
			return err
		}
		t.read.Add(1)
	}
	return nil
}

// Observe looks at Kafka as the operator does.
func (s *Stand) Observe(ctx context.Context) (plan.Kafka, error) {
	s.tb.Helper()
	clients := kafka.NewClients(kafka.Options{Timeout: 10 * time.Second})
	defer clients.Close()
	seen, err := clients.Cluster("stand", s.BrokerTarget()).Observe(ctx, plan.Ask{})
	if err != nil {
		return seen, fmt.Errorf("observe Kafka: %w", err)
	}
	if !seen.Known || !seen.PartitionsKnown {
		return seen, fmt.Errorf("observe Kafka: %s", seen.Why)
	}
	return seen, nil
}

// InSync is the fact that every replica of every partition is in sync.
func (s *Stand) InSync() Fact {
	s.tb.Helper()
	return func(ctx context.Context) error {
		seen, err := s.Observe(ctx)
		if err != nil {
			return err
		}
		for _, topic := range seen.Topics {
			for i, p := range topic.Partitions {
				if len(p.ISR) != len(p.Replicas) {
					return fmt.Errorf("partition %s-%d has replicas %v and in sync are %v", topic.Name, i, p.Replicas, p.ISR)
				}
			}
		}
		return nil
	}
}
