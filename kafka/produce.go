package kafka

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// ProduceOptions of [Client.Produce].
type ProduceOptions struct {
	// Topic for records that name none.
	Topic string
	// DeliveryTimeout bounds how long nothing at all is acknowledged while records wait; 0 means 30 seconds.
	DeliveryTimeout time.Duration
	// MaxBuffered bytes waiting for acknowledgement; 0 means 32 MiB.
	MaxBuffered int
}

// RecordError says which record of a stream failed, counted from 1.
type RecordError struct {
	Number int64
	Err    error
}

func (e *RecordError) Error() string { return fmt.Sprintf("record %d: %v", e.Number, e.Err) }

// Unwrap returns the cause.
func (e *RecordError) Unwrap() error { return e.Err }

// Produce writes records in their order with acks=all and an idempotent producer, and returns how many
// were acknowledged by all in-sync replicas. It ends with the stream, or soon after the first failure with a
// [RecordError]: later records are then not read, but some behind the failed one may have been written. A stream
// that stands still holds back the news of a failure until its next record.
func (c *Client) Produce(ctx context.Context, opts ProduceOptions, records iter.Seq2[Record, error]) (int64, error) {
	if opts.DeliveryTimeout <= 0 {
		opts.DeliveryTimeout = 30 * time.Second
	}
	if opts.MaxBuffered <= 0 {
		opts.MaxBuffered = 32 << 20
	}
	client, err := c.with(
		kgo.DefaultProduceTopic(opts.Topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.MaxBufferedBytes(opts.MaxBuffered),
		kgo.RecordPartitioner(explicitFirst{kgo.StickyKeyPartitioner(nil)}),
	)
	if err != nil {
		return 0, fmt.Errorf("produce: %w", err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &production{client: client, cancel: cancel, timeout: opts.DeliveryTimeout, waiting: map[int64]struct{}{}}
	// Not the client's own RecordDeliveryTimeout: it counts from a record's timestamp, which is the user's.
	p.silence = time.AfterFunc(p.timeout, p.timedOut)
	defer p.silence.Stop()
	unread := p.read(ctx, records)
	flushed := client.Flush(ctx)
	client.Close() // every record is decided afterwards
	err = p.failure()
	switch {
	case err != nil:
	case unread != nil:
		err = unread
	default:
		err = flushed
	}
	if err != nil {
		return p.acknowledged, fmt.Errorf("produce, %d records acknowledged: %w", p.acknowledged, err)
	}
	return p.acknowledged, nil
}

// production is one run of Produce; the client calls done from its own goroutines.
type production struct {
	client  *kgo.Client
	cancel  context.CancelFunc
	timeout time.Duration
	silence *time.Timer

	mu           sync.Mutex
	waiting      map[int64]struct{}
	acknowledged int64
	number       int64
	err          error
}

// read hands on the stream and returns its error; what was read before that is good and goes on.
func (p *production) read(ctx context.Context, records iter.Seq2[Record, error]) error {
	read := int64(0)
	for r, err := range records {
		read++
		number := read
		if err != nil {
			return &RecordError{Number: number, Err: err}
		}
		if ctx.Err() != nil {
			return nil
		}
		p.begin(number)
		p.client.Produce(ctx, recordOf(r), func(_ *kgo.Record, err error) { p.done(number, err) })
	}
	return nil
}

func (p *production) begin(number int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 {
		p.silence.Reset(p.timeout)
	}
	p.waiting[number] = struct{}{}
}

func (p *production) done(number int64, err error) {
	if err != nil {
		p.fail(number, err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, number)
	p.acknowledged++
	p.silence.Reset(p.timeout)
}

// timedOut fails the first record that waits; between records there is no hurry.
func (p *production) timedOut() {
	p.mu.Lock()
	n := len(p.waiting)
	first := int64(math.MaxInt64)
	for number := range p.waiting {
		first = min(first, number)
	}
	p.mu.Unlock()
	if n > 0 {
		p.fail(first, fmt.Errorf("nothing was acknowledged for %s and %d records wait: are enough replicas in sync (min.insync.replicas)?", p.timeout, n))
	}
}

// fail keeps the failure of the lowest number. What fails because another one did is no news.
func (p *production) fail(number int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, number)
	echo := errors.Is(err, context.Canceled) || errors.Is(err, kgo.ErrClientClosed)
	if p.err == nil || !echo && number < p.number {
		p.number, p.err = number, &RecordError{Number: number, Err: err}
	}
	p.cancel()
}

func (p *production) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func recordOf(r Record) *kgo.Record {
	out := &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
	for _, h := range r.Headers {
		out.Headers = append(out.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return out
}

// explicitFirst takes the partition that a record names and leaves the others to Kafka's default by key.
type explicitFirst struct{ byKey kgo.Partitioner }

func (e explicitFirst) ForTopic(topic string) kgo.TopicPartitioner { //nolint:ireturn // franz-go's interface
	return &explicitTopic{e.byKey.ForTopic(topic)}
}

type explicitTopic struct{ kgo.TopicPartitioner }

func (e *explicitTopic) RequiresConsistency(r *kgo.Record) bool {
	return r.Partition >= 0 || e.TopicPartitioner.RequiresConsistency(r)
}

func (e *explicitTopic) Partition(r *kgo.Record, n int) int {
	if r.Partition >= 0 {
		return int(r.Partition)
	}
	return e.TopicPartitioner.Partition(r, n)
}

func (e *explicitTopic) OnNewBatch() {
	if sticky, ok := e.TopicPartitioner.(kgo.TopicPartitionerOnNewBatch); ok {
		sticky.OnNewBatch()
	}
}
