// Program client is a client of Kafka that stands where a test puts it: it writes, reads and watches from outside of a
// Kubernetes' network and says what it saw, one JSON object in a line. It knows nothing of Castellan.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka"
)

const usage = `usage: client COMMAND -brokers HOST:PORT,... [flags]
  witness   write with acks=all and watch in-sync replicas until standard input ends, then read everything back
  records   write a number of records and read each of them back
  observe   show topics, partitions and who is in sync`

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

// settings of all commands.
type settings struct {
	brokers    string
	topic      string
	partitions int
	copies     int
	rate       int
	count      int64
	every      time.Duration
	keep       bool
}

func (s settings) config() kafka.ClientConfig {
	return kafka.ClientConfig{Brokers: strings.Split(s.brokers, ","), ID: "e2e"}
}

func (s settings) target() kafka.Target { return kafka.Target{Brokers: s.config().Brokers} }

func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	var s settings
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.StringVar(&s.brokers, "brokers", "", "bootstrap servers")
	flags.StringVar(&s.topic, "topic", "", "topic; made if it does not exist")
	flags.IntVar(&s.partitions, "partitions", 6, "partitions of a new topic")
	flags.IntVar(&s.copies, "copies", -1, "replication factor of a new topic")
	flags.IntVar(&s.rate, "rate", 100, "records in a second")
	flags.Int64Var(&s.count, "count", 1000, "records to write")
	flags.DurationVar(&s.every, "every", 500*time.Millisecond, "how often to look and to report")
	flags.BoolVar(&s.keep, "keep", false, "only read back what an earlier run of records wrote")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if s.brokers == "" {
		return errors.New("say -brokers\n" + usage)
	}
	switch out := json.NewEncoder(stdout); args[0] {
	case "witness":
		return witness(ctx, s, stdin, out)
	case "records":
		return records(ctx, s, out)
	case "observe":
		return observe(ctx, s, out)
	default:
		return fmt.Errorf("there is no command %s\n%s", args[0], usage)
	}
}

// ensureTopic makes the topic unless it is there. A new cluster answers a little late, so that it may take some tries.
func ensureTopic(ctx context.Context, client *kafka.Client, s settings) error {
	topics, err := client.Topics(ctx)
	if err != nil {
		return fmt.Errorf("look for the topic %s: %w", s.topic, err)
	}
	for _, t := range topics {
		if t.Name == s.topic {
			return nil
		}
	}
	topic := kafka.NewTopic{Name: s.topic, Partitions: int32(s.partitions), ReplicationFactor: int16(s.copies)} //nolint:gosec // small numbers
	if err := client.CreateTopic(ctx, topic); err != nil {
		return fmt.Errorf("create the topic %s: %w", s.topic, err)
	}
	return nil
}

// Seen is what observe prints.
type Seen struct {
	Topics []plan.Topic
}

func observe(ctx context.Context, s settings, out *json.Encoder) error {
	clients := kafka.NewClients(kafka.Options{Timeout: 5 * time.Second})
	defer clients.Close()
	seen, err := clients.Cluster("e2e", s.target()).Observe(ctx, plan.Ask{})
	if err != nil {
		return fmt.Errorf("observe Kafka: %w", err)
	}
	if !seen.Known || !seen.PartitionsKnown {
		return fmt.Errorf("observe Kafka: %s", seen.Why)
	}
	return out.Encode(Seen{Topics: seen.Topics})
}
