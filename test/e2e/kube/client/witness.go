package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/kafkatest"
)

// Progress is what witness prints while it goes on.
type Progress struct {
	Acknowledged int
	Read         int64
	Failed       int64
	Why          string        `json:",omitempty"`
	LongestGap   time.Duration // without an acknowledgement
}

// Testimony is what witness prints in the end.
type Testimony struct {
	Verdict    kafkatest.Verdict
	ISR        kafkatest.ISRReport
	LongestGap time.Duration
	Failed     int64
	Read       int64 // by the reader that came along
}

// readBack bounds the reading of everything in the end.
const readBack = 2 * time.Minute

// witness goes on until stdin ends.
func witness(ctx context.Context, s settings, stdin io.Reader, out *json.Encoder) error {
	client, err := kafka.Dial(ctx, s.config())
	if err != nil {
		return err
	}
	defer client.Close()
	if err := ensureTopic(ctx, client, s); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	writer, err := kafkatest.StartWriter(ctx, s.config(), s.topic, s.rate)
	if err != nil {
		return err
	}
	isr := kafkatest.WatchISR(ctx, s.target(), s.every, nil)
	var read atomic.Int64
	followed := make(chan error, 1)
	go func() { followed <- follow(ctx, client, s.topic, &read) }()

	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, stdin)
		ended <- err
	}()
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for going := true; going; {
		select {
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("wait for the end of standard input: %w", err)
			}
			going = false
		case <-tick.C:
			p := Progress{Acknowledged: writer.Acknowledged(), Read: read.Load(), LongestGap: writer.LongestGap()}
			if p.Failed, err = writer.Failed(); err != nil {
				p.Why = err.Error()
			}
			if err := out.Encode(p); err != nil {
				return fmt.Errorf("say how it goes: %w", err)
			}
		}
	}
	t := Testimony{ISR: isr.Stop()}
	acknowledged := writer.Stop()
	t.LongestGap = writer.LongestGap()
	t.Failed, _ = writer.Failed()
	// What was acknowledged reaches the reader too, if it is still there.
	for deadline := time.NewTimer(readBack); read.Load() < int64(acknowledged); {
		select {
		case <-deadline.C:
			return fmt.Errorf("the reader has read %d of %d acknowledged records", read.Load(), acknowledged)
		case err := <-followed:
			return fmt.Errorf("the reader ended after %d of %d acknowledged records: %w", read.Load(), acknowledged, err)
		case <-tick.C:
		}
	}
	t.Read = read.Load()
	verifying, done := context.WithTimeout(ctx, readBack)
	defer done()
	if t.Verdict, err = writer.Verify(verifying); err != nil {
		return err
	}
	return out.Encode(t)
}

// follow reads a topic as it grows. A broker that went away costs it nothing, a topic that is new to a broker a moment.
func follow(ctx context.Context, client *kafka.Client, topic string, read *atomic.Int64) error {
	const pause = 200 * time.Millisecond
	for {
		err := readOn(ctx, client, topic, read)
		if ctx.Err() != nil || read.Load() > 0 {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func readOn(ctx context.Context, client *kafka.Client, topic string, read *atomic.Int64) error {
	for _, err := range client.Consume(ctx, kafka.ConsumeOptions{Topic: topic, From: kafka.Start{Offset: kafka.Beginning}}) {
		if err != nil {
			return err
		}
		read.Add(1)
	}
	return errors.New("it came to an end")
}
