package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/spf13/cobra"

	"castellan.dev/castellan/kafka"
)

// maxLine bounds a line of standard input: well above what a broker takes by default (1 MiB).
const maxLine = 64 << 20

// recordReader turns lines into records.
type recordReader struct {
	topic        string
	keySeparator string
	json         bool
	headers      []string
	partition    int32
}

func produceCommand(o *options) *cobra.Command {
	t := &target{options: o}
	var r recordReader
	var quiet bool
	cmd := &cobra.Command{
		Use:   "produce TOPIC",
		Short: "Write the lines of standard input as records",
		Long: `Write the lines of standard input as records, each acknowledged by all in-sync replicas.

With --json each line is an object as consume --json prints it:
  {"key":"k","value":"v","headers":[{"key":"h","value":"x"}],"partition":0}
Bytes that are not UTF-8 stand in keyBase64 and valueBase64; a missing key or value is null.`,
		Example: "  echo 'hello' | castellan produce orders\n  printf 'k1:a\\nk2:b\\n' | castellan produce orders --key-separator :",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.topic = args[0]
			if err := r.check(); err != nil {
				return err
			}
			return t.withClient(cmd.Context(), func(c *kafka.Client) error {
				n, err := c.Produce(cmd.Context(), kafka.ProduceOptions{Topic: r.topic}, r.records(t.In))
				if err != nil {
					return err
				}
				if !quiet {
					fmt.Fprintf(t.Err, "%d records written to %s\n", n, r.topic)
				}
				return nil
			})
		},
	}
	t.addFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&r.keySeparator, "key-separator", "", "what ends the key in a line; without it records have no key")
	flags.BoolVar(&r.json, "json", false, "lines are JSON objects")
	flags.StringArrayVar(&r.headers, "header", nil, "header of every record, KEY=VALUE; may be given several times")
	flags.Int32Var(&r.partition, "partition", kafka.AnyPartition, "partition to write to (default what the key says)")
	flags.BoolVarP(&quiet, "quiet", "q", false, "do not tell how many records were written")
	return cmd
}

func (r *recordReader) check() error {
	if r.json && r.keySeparator != "" {
		return usagef("--json and --key-separator exclude each other")
	}
	for _, h := range r.headers {
		if !strings.Contains(h, "=") {
			return usagef("--header %s: want KEY=VALUE", h)
		}
	}
	return nil
}

// records reads until the end of the input; an unreadable line ends the stream with its number.
func (r *recordReader) records(in io.Reader) iter.Seq2[kafka.Record, error] {
	return func(yield func(kafka.Record, error) bool) {
		lines := bufio.NewScanner(in)
		lines.Buffer(make([]byte, 0, 64<<10), maxLine)
		for number := 1; lines.Scan(); number++ {
			record, err := r.record(lines.Text())
			if err != nil {
				yield(kafka.Record{}, fmt.Errorf("line %d of the input: %w", number, err))
				return
			}
			if !yield(record, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(kafka.Record{}, fmt.Errorf("read the input: %w", err))
		}
	}
}

func (r *recordReader) record(line string) (kafka.Record, error) {
	record := kafka.Record{Partition: r.partition}
	switch {
	case r.json:
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			return kafka.Record{}, err
		}
		if r.partition != kafka.AnyPartition {
			record.Partition = r.partition
		}
		record.Topic = r.topic
	case r.keySeparator != "":
		key, value, ok := strings.Cut(line, r.keySeparator)
		if !ok {
			return kafka.Record{}, fmt.Errorf("no %q that ends the key", r.keySeparator)
		}
		record.Key, record.Value = []byte(key), []byte(value)
	default:
		record.Value = []byte(line)
	}
	for _, h := range r.headers {
		key, value, _ := strings.Cut(h, "=")
		record.Headers = append(record.Headers, kafka.Header{Key: key, Value: []byte(value)})
	}
	return record, nil
}
