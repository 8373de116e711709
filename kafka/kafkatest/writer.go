package kafkatest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"castellan.dev/castellan/kafka"
)

// Writer writes numbered records with acks=all at a bounded rate and remembers which ones Kafka acknowledged. A
// record that fails is no loss, one that was acknowledged and cannot be read is.
type Writer struct {
	config kafka.ClientConfig
	topic  string
	run    string

	client *kgo.Client
	stop   context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	acked   map[int64]struct{}
	failed  int64
	lastErr error
	lastAck time.Time
	gap     time.Duration
	gapFrom time.Time
}

// StartWriter begins at once, with up to perSecond records (200 if 0) of any partition, until Stop or the end of ctx.
func StartWriter(ctx context.Context, config kafka.ClientConfig, topic string, perSecond int) (*Writer, error) {
	if perSecond <= 0 {
		perSecond = 200
	}
	opts := []kgo.Opt{
		kgo.ClientID("castellan-witness"),
		kgo.SeedBrokers(config.Brokers...),
		kgo.DefaultProduceTopic(topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.DialTimeout(2 * time.Second),
		// A machine that lost its power refuses nothing: who waits for it as long as is usual measures himself.
		kgo.ProduceRequestTimeout(3 * time.Second),
		kgo.RequestTimeoutOverhead(3 * time.Second),
		kgo.MaxBufferedRecords(10 * perSecond),
		kgo.MetadataMinAge(250 * time.Millisecond),
	}
	if config.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(config.TLS))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("start a writer: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	w := &Writer{
		config: config, topic: topic, client: client, stop: stop,
		run:     strconv.FormatInt(time.Now().UnixNano(), 36),
		ended:   make(chan struct{}),
		acked:   map[int64]struct{}{},
		lastAck: time.Now(),
	}
	go w.write(ctx, time.Second/time.Duration(perSecond))
	return w, nil
}

func (w *Writer) write(ctx context.Context, every time.Duration) {
	defer close(w.ended)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for number := int64(0); ; number++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		value := w.run + " " + strconv.FormatInt(number, 10)
		// Without ctx: what was begun before Stop may still be acknowledged. A full buffer is a failed record.
		w.client.TryProduce(context.WithoutCancel(ctx), kgo.StringRecord(value), func(_ *kgo.Record, err error) { w.decided(number, err) })
	}
}

func (w *Writer) decided(number int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed++
		w.lastErr = err
		return
	}
	now := time.Now()
	w.measure(now)
	w.lastAck = now
	w.acked[number] = struct{}{}
}

func (w *Writer) measure(now time.Time) {
	if gap := now.Sub(w.lastAck); gap > w.gap {
		w.gap, w.gapFrom = gap, w.lastAck
	}
}

// Acknowledged so far.
func (w *Writer) Acknowledged() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

// LongestGap is the longest time without an acknowledgement so far, also the one that still lasts.
func (w *Writer) LongestGap() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(w.gap, time.Since(w.lastAck))
}

// LongestGapFrom is when the longest gap that is over began.
func (w *Writer) LongestGapFrom() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gapFrom
}

// Failed records that were given up, with the last reason.
func (w *Writer) Failed() (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed, w.lastErr
}

// Stop ends writing, waits up to ten seconds for what is under way, and returns how many were acknowledged.
func (w *Writer) Stop() int {
	const patience = 10 * time.Second
	w.stop()
	<-w.ended
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = w.client.Flush(ctx) // what is not acknowledged by then does not count
	w.client.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.measure(time.Now())
	return len(w.acked)
}

// Verdict of reading everything back.
type Verdict struct {
	// Acknowledged records, and the numbers of those that are Missing.
	Acknowledged int
	Missing      []int64
	// Read records of this writer, and how many of them for a second time.
	Read, Duplicates int
}

// Verify reads the topic to its end and compares. Call it after Stop.
func (w *Writer) Verify(ctx context.Context) (Verdict, error) {
	client, err := kafka.Dial(ctx, w.config)
	if err != nil {
		return Verdict{}, fmt.Errorf("verify the topic %s: %w", w.topic, err)
	}
	defer client.Close()
	var v Verdict
	seen := map[int64]struct{}{}
	opts := kafka.ConsumeOptions{Topic: w.topic, From: kafka.Start{Offset: kafka.Beginning}, UntilEnd: true}
	for r, err := range client.Consume(ctx, opts) {
		if err != nil {
			return Verdict{}, fmt.Errorf("verify the topic %s: %w", w.topic, err)
		}
		text, mine := strings.CutPrefix(string(r.Value), w.run+" ")
		number, err := strconv.ParseInt(text, 10, 64)
		if !mine || err != nil {
			continue
		}
		if _, twice := seen[number]; twice {
			v.Duplicates++
		}
		seen[number] = struct{}{}
		v.Read++
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	v.Acknowledged = len(w.acked)
	for number := range w.acked {
		if _, ok := seen[number]; !ok {
			v.Missing = append(v.Missing, number)
		}
	}
	return v, nil
}
