package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"castellan.dev/castellan/kafka"
)

type consumeOptions struct {
	*target
	kafka kafka.ConsumeOptions
	from  string
	json  bool
	keys  string
}

func consumeCommand(o *options) *cobra.Command {
	c := &consumeOptions{target: &target{options: o}}
	cmd := &cobra.Command{
		Use:   "consume TOPIC",
		Short: "Print the records of a topic, one a line",
		Long: `Print the records of a topic, one a line, as they come, until Ctrl-C, --max or --until-end.
It joins no group and commits nothing. Order holds within a partition.`,
		Example: "  castellan consume orders --from beginning --until-end\n  castellan consume orders --partition 0 --from 42 --max 10 --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.kafka.Topic = args[0]
			var err error
			if c.kafka.From, err = parseStart(c.from); err != nil {
				return err
			}
			return c.withClient(cmd.Context(), func(client *kafka.Client) error { return c.run(cmd.Context(), client) })
		},
	}
	c.addFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&c.from, "from", "end", "where to begin: beginning, end, an offset, or a time as 2026-01-02T15:04:05Z")
	flags.Int32SliceVar(&c.kafka.Partitions, "partition", nil, "partitions to read (default all)")
	flags.Int64Var(&c.kafka.Max, "max", 0, "end after so many records")
	flags.BoolVar(&c.kafka.UntilEnd, "until-end", false, "end at what was the end when reading began")
	flags.BoolVar(&c.kafka.ReadCommitted, "read-committed", false, "leave out records of open and aborted transactions")
	flags.BoolVar(&c.json, "json", false, "print each record as a JSON object, which produce --json reads")
	flags.StringVar(&c.keys, "key-separator", "", "print the key before the value, with this between them")
	return cmd
}

func parseStart(text string) (kafka.Start, error) {
	switch text {
	case "beginning", "earliest":
		return kafka.Start{Offset: kafka.Beginning}, nil
	case "end", "latest":
		return kafka.Start{Offset: kafka.End}, nil
	}
	if offset, err := strconv.ParseInt(text, 10, 64); err == nil && offset >= 0 {
		return kafka.Start{Offset: offset}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return kafka.Start{Time: at}, nil
	}
	return kafka.Start{}, usagef("--from %s: want beginning, end, an offset, or a time as 2026-01-02T15:04:05Z", text)
}

// flushAfter bounds how long a printed record may stay in the buffer.
const flushAfter = 100 * time.Millisecond

func (c *consumeOptions) run(ctx context.Context, client *kafka.Client) error {
	out := bufio.NewWriterSize(c.Out, 256<<10)
	flushed := time.Now()
	for record, err := range client.Consume(ctx, c.kafka) {
		if err != nil {
			_ = out.Flush() // the first failure is the one to tell
			return err
		}
		if err := c.print(out, record); err != nil {
			return fmt.Errorf("print a record: %w", err)
		}
		if !c.kafka.UntilEnd || time.Since(flushed) > flushAfter {
			if err := out.Flush(); err != nil {
				return fmt.Errorf("print a record: %w", err)
			}
			flushed = time.Now()
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("print the records: %w", err)
	}
	return nil
}

func (c *consumeOptions) print(out *bufio.Writer, record kafka.Record) error {
	if c.json {
		return json.NewEncoder(out).Encode(record)
	}
	if c.keys != "" {
		if _, err := out.Write(append(slices.Clip(record.Key), c.keys...)); err != nil {
			return err
		}
	}
	if _, err := out.Write(record.Value); err != nil {
		return err
	}
	return out.WriteByte('\n')
}
