package kafka_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/kafkatest"
)

func stream(records ...kafka.Record) iter.Seq2[kafka.Record, error] {
	return func(yield func(kafka.Record, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func collect(t *testing.T, c *kafka.Client, opts kafka.ConsumeOptions) []kafka.Record {
	t.Helper()
	var out []kafka.Record
	for r, err := range c.Consume(t.Context(), opts) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func values(records []kafka.Record) string {
	var out []string
	for _, r := range records {
		out = append(out, string(r.Value))
	}
	return strings.Join(out, " ")
}

func TestRecordsComeBackTheSame(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"t"}, Partitions: 3})
	client := fake.Client(t)
	at := time.UnixMilli(1_700_000_000_123)
	sent := []kafka.Record{
		{Partition: 1, Key: []byte("k"), Value: []byte("v"), Timestamp: at, Headers: []kafka.Header{{Key: "h", Value: []byte("x")}, {Key: "h"}}},
		{Partition: 1, Key: []byte{}, Value: nil, Timestamp: at},
		{Partition: 1, Key: nil, Value: []byte{0xff, 0}, Timestamp: at},
	}
	n, err := client.Produce(t.Context(), kafka.ProduceOptions{Topic: "t"}, stream(sent...))
	if n != 3 || err != nil {
		t.Fatalf("%d acknowledged, %v", n, err)
	}
	for i := range sent {
		sent[i].Topic, sent[i].Offset = "t", int64(i)
	}
	got := collect(t, client, kafka.ConsumeOptions{Topic: "t", From: kafka.Start{Offset: kafka.Beginning}, UntilEnd: true})
	if diff := cmp.Diff(sent, got, cmpopts.EquateApproxTime(0)); diff != "" {
		t.Error(diff)
	}
	for _, r := range got {
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back kafka.Record
		if err := json.Unmarshal(line, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, back, cmpopts.EquateApproxTime(0)); diff != "" {
			t.Errorf("%s: %s", line, diff)
		}
	}
}

func TestRecordJSON(t *testing.T) {
	r := kafka.Record{Topic: "t", Partition: 0, Offset: 7, Timestamp: time.UnixMilli(1_767_323_045_678), Key: []byte("k"), Value: []byte{0xff}}
	line, err := json.Marshal(r)
	want := `{"topic":"t","partition":0,"offset":7,"timestamp":"2026-01-02T03:04:05.678Z","key":"k","valueBase64":"/w=="}`
	if err != nil || string(line) != want {
		t.Errorf("%s, %v, want %s", line, err, want)
	}
	for _, bad := range []string{`{"vaule":"x"}`, `{"key":"a","keyBase64":"YQ=="}`, `{"partition":"0"}`, `[]`} {
		if err := json.Unmarshal([]byte(bad), new(kafka.Record)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	var plain kafka.Record
	if err := json.Unmarshal([]byte(`{"value":"x"}`), &plain); err != nil || plain.Partition != kafka.AnyPartition {
		t.Errorf("%+v, %v", plain, err)
	}
}

func TestKeysChoosePartitionsAsKafkaDoes(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"t"}, Partitions: 10})
	client := fake.Client(t)
	record := kafka.Record{Partition: kafka.AnyPartition, Key: []byte("21"), Value: []byte("x")}
	if _, err := client.Produce(t.Context(), kafka.ProduceOptions{Topic: "t"}, stream(record, record)); err != nil {
		t.Fatal(err)
	}
	got := collect(t, client, kafka.ConsumeOptions{Topic: "t", From: kafka.Start{Offset: kafka.Beginning}, UntilEnd: true})
	// org.apache.kafka.common.utils.Utils.murmur2("21") is -973932308, made positive and modulo 10.
	if len(got) != 2 || got[0].Partition != 0 || got[1].Partition != 0 {
		t.Errorf("%+v", got)
	}
}

func TestProduceNamesFirstFailedRecord(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"t"}, Partitions: 2})
	fake.Brokers.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "t", Partitions: []int32{1}, Err: kerr.MessageTooLarge, Count: -1})
	n, err := fake.Client(t).Produce(t.Context(), kafka.ProduceOptions{Topic: "t"},
		stream(kafka.Record{Partition: 0}, kafka.Record{Partition: 0}, kafka.Record{Partition: 1}, kafka.Record{Partition: 1}))
	var failed *kafka.RecordError
	if !errors.As(err, &failed) || failed.Number != 3 || !errors.Is(err, kerr.MessageTooLarge) || n > 2 {
		t.Errorf("%d acknowledged, %v", n, err)
	}
}

func TestProduceGivesUpWhereNothingIsAcknowledged(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"t"}})
	fake.Brokers.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "t", Err: kerr.NotEnoughReplicas, Count: -1})
	begin := time.Now()
	n, err := fake.Client(t).Produce(t.Context(), kafka.ProduceOptions{Topic: "t", DeliveryTimeout: 300 * time.Millisecond},
		stream(kafka.Record{Value: []byte("1")}, kafka.Record{Value: []byte("2")}))
	var failed *kafka.RecordError
	if n != 0 || !errors.As(err, &failed) || failed.Number != 1 || !strings.Contains(err.Error(), "min.insync.replicas") {
		t.Errorf("%d acknowledged, %v", n, err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestProduceWritesWhatCameBeforeBadInput(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"t"}})
	bad := errors.New("no JSON")
	n, err := fake.Client(t).Produce(t.Context(), kafka.ProduceOptions{Topic: "t"}, func(yield func(kafka.Record, error) bool) {
		_ = yield(kafka.Record{Value: []byte("1")}, nil) && yield(kafka.Record{Value: []byte("2")}, nil) && yield(kafka.Record{}, bad)
	})
	var failed *kafka.RecordError
	if n != 2 || !errors.As(err, &failed) || failed.Number != 3 || !errors.Is(err, bad) {
		t.Errorf("%d acknowledged, %v", n, err)
	}
}

// A broker that is just stopping or starting answers like this for a moment; who reads goes on.
func TestConsumePassesOverTrouble(t *testing.T) {
	for _, passing := range []*kerr.Error{kerr.UnknownServerError, kerr.UnknownTopicID} {
		t.Run(passing.Message, func(t *testing.T) {
			fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"t"}})
			client := fake.Client(t)
			if _, err := client.Produce(t.Context(), kafka.ProduceOptions{Topic: "t"}, stream(kafka.Record{Value: []byte("1")})); err != nil {
				t.Fatal(err)
			}
			fake.Brokers.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "t", Err: passing, Count: 8})
			got := collect(t, client, kafka.ConsumeOptions{Topic: "t", From: kafka.Start{Offset: kafka.Beginning}, UntilEnd: true})
			if values(got) != "1" {
				t.Errorf("got %q", values(got))
			}
		})
	}
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"t"}})
	client := fake.Client(t)
	if _, err := client.Produce(t.Context(), kafka.ProduceOptions{Topic: "t"}, stream(kafka.Record{Value: []byte("1")})); err != nil {
		t.Fatal(err)
	}
	fake.Brokers.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "t", Err: kerr.TopicAuthorizationFailed, Count: -1})
	for _, err := range client.Consume(t.Context(), kafka.ConsumeOptions{Topic: "t", From: kafka.Start{Offset: kafka.Beginning}, UntilEnd: true}) {
		if !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("what does not pass ended with %v", err)
		}
	}
}

func TestConsumeFromAnywhere(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"t"}, Partitions: 2})
	client := fake.Client(t)
	var records []kafka.Record
	for i := range 10 {
		records = append(records, kafka.Record{Partition: 1, Value: fmt.Append(nil, i), Timestamp: time.UnixMilli(int64(1000 * i))})
	}
	if _, err := client.Produce(t.Context(), kafka.ProduceOptions{Topic: "t"}, stream(records...)); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		reason string
		opts   kafka.ConsumeOptions
		want   string
	}{
		{"from the beginning until the end", kafka.ConsumeOptions{From: kafka.Start{Offset: kafka.Beginning}, UntilEnd: true}, "0 1 2 3 4 5 6 7 8 9"},
		{"from an offset", kafka.ConsumeOptions{Partitions: []int32{1}, From: kafka.Start{Offset: 7}, UntilEnd: true}, "7 8 9"},
		{"from a time", kafka.ConsumeOptions{From: kafka.Start{Time: time.UnixMilli(7500)}, UntilEnd: true}, "8 9"},
		{"no more than so many", kafka.ConsumeOptions{From: kafka.Start{Offset: kafka.Beginning}, Max: 3}, "0 1 2"},
		{"nothing is left", kafka.ConsumeOptions{From: kafka.Start{Offset: kafka.End}, UntilEnd: true}, ""},
		{"an empty partition", kafka.ConsumeOptions{Partitions: []int32{0}, From: kafka.Start{Offset: kafka.Beginning}, UntilEnd: true}, ""},
	}
	for _, c := range cases {
		t.Run(c.reason, func(t *testing.T) {
			c.opts.Topic = "t"
			if got := values(collect(t, client, c.opts)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	for _, opts := range []kafka.ConsumeOptions{
		{Topic: "missing", UntilEnd: true},
		{Topic: "t", Partitions: []int32{5}, UntilEnd: true},
		{Topic: "t", Partitions: []int32{1}, From: kafka.Start{Offset: 99}, UntilEnd: true},
	} {
		var failure error
		for _, err := range client.Consume(t.Context(), opts) {
			failure = err
		}
		if failure == nil {
			t.Errorf("%+v gave no error", opts)
		}
	}
}

func TestTopicsAreCreatedDescribedDeleted(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{})
	client := fake.Client(t)
	wanted := kafka.NewTopic{Name: "t", Partitions: 4, ReplicationFactor: 3, Config: map[string]string{"retention.ms": "1234"}}
	if err := client.CreateTopic(t.Context(), wanted); err != nil {
		t.Fatal(err)
	}
	err := client.CreateTopic(t.Context(), wanted)
	var no *kafka.RefusedError
	if !errors.As(err, &no) || no.Name != "TOPIC_ALREADY_EXISTS" {
		t.Errorf("create again: %v", err)
	}
	list, err := client.Topics(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "t" || list[0].Partitions != 4 || list[0].ReplicationFactor != 3 {
		t.Errorf("%+v, %v", list, err)
	}
	detail, err := client.Topic(t.Context(), "t")
	if err != nil || len(detail.Details) != 4 || detail.Details[3].Partition != 3 || detail.Details[0].End != 0 {
		t.Errorf("%+v, %v", detail, err)
	}
	for _, c := range detail.Config {
		if c.Name == "retention.ms" && (c.Value != "1234" || c.Default) {
			t.Errorf("%+v", c)
		}
	}
	if err := client.DeleteTopic(t.Context(), "t"); err != nil {
		t.Error(err)
	}
	if err := client.DeleteTopic(t.Context(), "t"); err == nil {
		t.Error("deleted twice")
	}
	if _, err := client.Topic(t.Context(), "t"); err == nil {
		t.Error("described after deletion")
	}
}

func TestTLSFromFiles(t *testing.T) {
	cert, ca := certificate(t)
	fake := kafkatest.NewFake(t, kafkatest.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}})
	config, err := kafka.LoadTLS(kafka.TLSFiles{CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	client, err := kafka.Dial(t.Context(), kafka.ClientConfig{Brokers: fake.Brokers.ListenAddrs(), TLS: config})
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	strangers, err := kafka.LoadTLS(kafka.TLSFiles{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kafka.Dial(t.Context(), kafka.ClientConfig{Brokers: fake.Brokers.ListenAddrs(), TLS: strangers}); err == nil {
		t.Error("a certificate of an unknown CA was trusted")
	}
	for _, files := range []kafka.TLSFiles{{CA: filepath.Join(t.TempDir(), "none")}, {Cert: ca}, {CA: "client_test.go"}} {
		if _, err := kafka.LoadTLS(files); err == nil {
			t.Errorf("%+v was taken", files)
		}
	}
}

// certificate is self-signed for 127.0.0.1, with the file to trust it by.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fake"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}
