package kafka

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// AnyPartition in a record to produce lets the key choose as Kafka's own clients do, or without a
// key whichever partition is handy.
const AnyPartition int32 = -1

// Record is one Kafka record. A nil key or value is Kafka's null, an empty one is not.
//
// As JSON it is one object; bytes that are no UTF-8 stand in keyBase64, valueBase64 instead of key, value:
//
//	{"topic":"t","partition":0,"offset":7,"timestamp":"2026-01-02T03:04:05.678Z","key":"k","value":"v","headers":[{"key":"h","value":"x"}]}
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	// Timestamp has milliseconds; the zero time lets the producer set it.
	Timestamp  time.Time
	Key, Value []byte
	Headers    []Header
}

// Header of a record; keys may repeat.
type Header struct {
	Key   string
	Value []byte
}

type wireRecord struct {
	Topic       string       `json:"topic,omitempty"`
	Partition   *int32       `json:"partition,omitempty"`
	Offset      *int64       `json:"offset,omitempty"`
	Timestamp   *time.Time   `json:"timestamp,omitempty"`
	Key         *string      `json:"key,omitempty"`
	KeyBase64   []byte       `json:"keyBase64,omitempty"`
	Value       *string      `json:"value,omitempty"`
	ValueBase64 []byte       `json:"valueBase64,omitempty"`
	Headers     []wireHeader `json:"headers,omitempty"`
}

type wireHeader struct {
	Key         string  `json:"key"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 []byte  `json:"valueBase64,omitempty"`
}

// MarshalJSON writes every record so that it reads back the same.
func (r Record) MarshalJSON() ([]byte, error) {
	w := wireRecord{Topic: r.Topic, Offset: &r.Offset}
	if r.Partition != AnyPartition {
		w.Partition = &r.Partition
	}
	if !r.Timestamp.IsZero() {
		utc := r.Timestamp.UTC()
		w.Timestamp = &utc
	}
	w.Key, w.KeyBase64 = textOrBytes(r.Key)
	w.Value, w.ValueBase64 = textOrBytes(r.Value)
	for _, h := range r.Headers {
		text, raw := textOrBytes(h.Value)
		w.Headers = append(w.Headers, wireHeader{Key: h.Key, Value: text, ValueBase64: raw})
	}
	data, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("write a record as JSON: %w", err)
	}
	return data, nil
}

// UnmarshalJSON refuses unknown members, so that a misspelt "vaule" is not a null value.
func (r *Record) UnmarshalJSON(data []byte) error {
	var w wireRecord
	strict := json.NewDecoder(bytes.NewReader(data))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&w); err != nil {
		return fmt.Errorf("read a record from JSON: %w", err)
	}
	out := Record{Topic: w.Topic, Partition: AnyPartition}
	if w.Partition != nil {
		out.Partition = *w.Partition
	}
	if w.Offset != nil {
		out.Offset = *w.Offset
	}
	if w.Timestamp != nil {
		out.Timestamp = *w.Timestamp
	}
	var errKey, errValue error
	out.Key, errKey = bytesOf("key", w.Key, w.KeyBase64)
	out.Value, errValue = bytesOf("value", w.Value, w.ValueBase64)
	if err := errors.Join(errKey, errValue); err != nil {
		return err
	}
	for _, h := range w.Headers {
		value, err := bytesOf("value of header "+h.Key, h.Value, h.ValueBase64)
		if err != nil {
			return err
		}
		out.Headers = append(out.Headers, Header{Key: h.Key, Value: value})
	}
	*r = out
	return nil
}

func textOrBytes(b []byte) (*string, []byte) {
	if b == nil {
		return nil, nil
	}
	if !utf8.Valid(b) {
		return nil, b
	}
	text := string(b)
	return &text, nil
}

func bytesOf(what string, text *string, raw []byte) ([]byte, error) {
	switch {
	case text != nil && raw != nil:
		return nil, fmt.Errorf("read a record from JSON: the %s stands there both as text and as base64", what)
	case text != nil:
		return []byte(*text), nil
	default:
		return raw, nil
	}
}
