package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
	"time"

	"castellan.dev/castellan/kafka"
)

// Records is what records prints.
type Records struct {
	Written, Read, Missing int64
	WriteSeconds           float64
	ReadSeconds            float64
}

// records writes numbers and reads them back; each one must be there.
func records(ctx context.Context, s settings, out *json.Encoder) error {
	client, err := kafka.Dial(ctx, s.config())
	if err != nil {
		return err
	}
	defer client.Close()
	if err := ensureTopic(ctx, client, s); err != nil {
		return err
	}
	var r Records
	began := time.Now()
	if !s.keep {
		if r.Written, err = client.Produce(ctx, kafka.ProduceOptions{Topic: s.topic}, numbers(s.count)); err != nil {
			return fmt.Errorf("write to %s: %w", s.topic, err)
		}
		r.WriteSeconds = time.Since(began).Seconds()
	}
	began = time.Now()
	there := make([]bool, s.count)
	for record, err := range client.Consume(ctx, kafka.ConsumeOptions{Topic: s.topic, From: kafka.Start{Offset: kafka.Beginning}, UntilEnd: true}) {
		if err != nil {
			return fmt.Errorf("read from %s: %w", s.topic, err)
		}
		r.Read++
		if number, err := strconv.ParseInt(string(record.Value), 10, 64); err == nil && number >= 0 && number < s.count {
			there[number] = true
		}
	}
	r.ReadSeconds = time.Since(began).Seconds()
	for _, ok := range there {
		if !ok {
			r.Missing++
		}
	}
	return out.Encode(r)
}

func numbers(count int64) iter.Seq2[kafka.Record, error] {
	return func(yield func(kafka.Record, error) bool) {
		for i := range count {
			if !yield(kafka.Record{Partition: kafka.AnyPartition, Value: []byte(strconv.FormatInt(i, 10))}, nil) {
				return
			}
		}
	}
}
