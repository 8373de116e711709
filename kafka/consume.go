package kafka

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Start says where to begin in each partition: at Time where it is set, else at Offset.
type Start struct {
	// Offset, or one of Beginning and End.
	Offset int64
	// Time of the first record wanted.
	Time time.Time
}

// Special offsets of [Start].
const (
	Beginning int64 = -2
	End       int64 = -1
)

// ConsumeOptions of [Client.Consume].
type ConsumeOptions struct {
	Topic string
	// Partitions to read; none means all.
	Partitions []int32
	From       Start
	// Max records; 0 means no limit.
	Max int64
	// UntilEnd stops at what was the end of each partition when reading began.
	UntilEnd bool
	// ReadCommitted leaves out records of aborted and open transactions.
	ReadCommitted bool
}

// silence is how long a reading until the end waits for a record that the offsets promise.
const silence = 30 * time.Second

// Consume yields records as they come, in order within each partition, until Max, the end, ctx, the loop's own
// break, or an error, which is the last thing yielded. It joins no group and commits nothing.
func (c *Client) Consume(ctx context.Context, opts ConsumeOptions) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if err := c.consume(ctx, opts, yield); err != nil {
			yield(Record{}, fmt.Errorf("consume topic %s: %w", opts.Topic, err))
		}
	}
}

// span of offsets of one partition: from is wanted next, end is where it ended at first.
type span struct{ from, end int64 }

func (c *Client) consume(ctx context.Context, opts ConsumeOptions, yield func(Record, error) bool) error {
	spans, err := c.spans(ctx, opts)
	if err != nil {
		return err
	}
	offsets := make(map[int32]kgo.Offset, len(spans))
	for partition, s := range spans {
		if !opts.UntilEnd || s.from < s.end {
			offsets[partition] = kgo.NewOffset().At(s.from)
		}
	}
	if len(offsets) == 0 {
		return nil
	}
	isolation := kgo.ReadUncommitted()
	if opts.ReadCommitted {
		isolation = kgo.ReadCommitted()
	}
	client, err := c.with(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{opts.Topic: offsets}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(isolation),
		kgo.KeepControlRecords(), // they count on the way to the end
		kgo.FetchMaxBytes(8<<20),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	r := &reading{opts: opts, left: offsets, spans: spans, yield: yield, trouble: map[int32]time.Time{}}
	for !r.stopped {
		if err := r.poll(ctx, client); err != nil {
			return err
		}
	}
	return nil
}

// reading is one run of Consume.
type reading struct {
	opts    ConsumeOptions
	left    map[int32]kgo.Offset
	spans   map[int32]span
	count   int64
	yield   func(Record, error) bool
	stopped bool
	// trouble is since when a partition answers with errors and no record
	trouble map[int32]time.Time
}

func (r *reading) poll(ctx context.Context, client *kgo.Client) error {
	const atOnce = 1000
	waiting := ctx
	if r.opts.UntilEnd {
		bounded, cancel := context.WithTimeout(ctx, silence)
		defer cancel()
		waiting = bounded
	}
	fetches := client.PollRecords(waiting, atOnce)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if waiting.Err() != nil {
		return fmt.Errorf("nothing came for %s though %d partitions have not reached their end", silence, len(r.left))
	}
	if err := r.troubled(fetches.Errors(), time.Now()); err != nil {
		return err
	}
	for record := range fetches.RecordsAll() {
		if r.take(record); r.stopped {
			return nil
		}
	}
	return nil
}

// troubled is the error that ends the reading, if one does. A broker that is just stopping or starting answers as if it
// did not know the topic, or what went wrong; the client asks again by itself, as Kafka's own consumer does
// (FetchCollector.handleInitializeErrors), and only a partition that stays so for the silence is given up.
func (r *reading) troubled(errs []kgo.FetchError, now time.Time) error {
	for _, e := range errs {
		passing := errors.Is(e.Err, kerr.UnknownTopicID) || errors.Is(e.Err, kerr.UnknownServerError)
		since, before := r.trouble[e.Partition]
		if !passing || (before && now.Sub(since) > silence) {
			return fmt.Errorf("partition %d: %w", e.Partition, e.Err)
		}
		if !before {
			r.trouble[e.Partition] = now
		}
	}
	return nil
}

func (r *reading) take(record *kgo.Record) {
	delete(r.trouble, record.Partition)
	if _, ok := r.left[record.Partition]; !ok {
		return
	}
	end := r.spans[record.Partition].end
	beyond := r.opts.UntilEnd && record.Offset >= end
	if !beyond && !record.Attrs.IsControl() {
		r.count++
		if !r.yield(fromRecord(record), nil) || r.count == r.opts.Max {
			r.stopped = true
			return
		}
	}
	if r.opts.UntilEnd && record.Offset >= end-1 {
		delete(r.left, record.Partition)
		r.stopped = len(r.left) == 0
	}
}

func fromRecord(record *kgo.Record) Record {
	out := Record{
		Topic: record.Topic, Partition: record.Partition, Offset: record.Offset,
		Timestamp: record.Timestamp, Key: record.Key, Value: record.Value,
	}
	for _, h := range record.Headers {
		out.Headers = append(out.Headers, Header{Key: h.Key, Value: h.Value})
	}
	return out
}

// spans finds where each partition that is wanted begins and ends for us.
func (c *Client) spans(ctx context.Context, opts ConsumeOptions) (map[int32]span, error) {
	starts, err := listed(c.admin.ListStartOffsets(ctx, opts.Topic))
	if err != nil {
		return nil, fmt.Errorf("find the beginning: %w", err)
	}
	ends, err := listed(c.admin.ListEndOffsets(ctx, opts.Topic))
	if err != nil {
		return nil, fmt.Errorf("find the end: %w", err)
	}
	var byTime kadm.ListedOffsets
	if !opts.From.Time.IsZero() {
		byTime, err = listed(c.admin.ListOffsetsAfterMilli(ctx, opts.From.Time.UnixMilli(), opts.Topic))
		if err != nil {
			return nil, fmt.Errorf("find the time: %w", err)
		}
	}
	spans := map[int32]span{}
	for partition, end := range ends[opts.Topic] {
		if len(opts.Partitions) > 0 && !slices.Contains(opts.Partitions, partition) {
			continue
		}
		s := span{from: opts.From.Offset, end: end.Offset}
		switch {
		case byTime != nil:
			s.from = byTime[opts.Topic][partition].Offset
		case s.from == Beginning:
			s.from = starts[opts.Topic][partition].Offset
		case s.from == End:
			s.from = end.Offset
		case s.from > end.Offset:
			return nil, fmt.Errorf("partition %d ends at %d, before offset %d", partition, end.Offset, s.from)
		default:
			s.from = max(s.from, starts[opts.Topic][partition].Offset)
		}
		spans[partition] = s
	}
	for _, p := range opts.Partitions {
		if _, ok := spans[p]; !ok {
			return nil, fmt.Errorf("there is no partition %d", p)
		}
	}
	return spans, nil
}

func listed(offsets kadm.ListedOffsets, err error) (kadm.ListedOffsets, error) {
	if err = errors.Join(err, offsets.Error()); err != nil {
		return nil, err
	}
	return offsets, nil
}
