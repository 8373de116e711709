package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"castellan.dev/castellan/kafka"
)

func topicsCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "topics",
		Aliases: []string{"topic"},
		Short:   "List, describe, create and delete topics",
		Args:    cobra.NoArgs,
	}
	list := listTopicsCommand(o)
	cmd.RunE = list.RunE
	cmd.Flags().AddFlagSet(list.Flags())
	cmd.AddCommand(list, describeTopicCommand(o), createTopicCommand(o), deleteTopicCommand(o))
	return cmd
}

func listTopicsCommand(o *options) *cobra.Command {
	t := &target{options: o}
	var output string
	var internal bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List topics",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "json", "yaml", "name"); err != nil {
				return err
			}
			return t.listTopics(cmd.Context(), output, internal)
		},
	}
	t.addFlags(cmd)
	cmd.Flags().BoolVar(&internal, "internal", false, "also Kafka's own topics")
	addOutput(cmd.Flags(), &output, "json", "yaml", "name")
	return cmd
}

func (t *target) listTopics(ctx context.Context, output string, internal bool) error {
	c, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.Topics(ctx)
	if err != nil {
		return err
	}
	topics := []kafka.TopicSummary{}
	for _, topic := range all {
		if internal || !topic.Internal {
			topics = append(topics, topic)
		}
	}
	if output == "json" || output == "yaml" {
		return printData(t.Out, output, topics)
	}
	rows := make([][]string, 0, len(topics))
	for _, topic := range topics {
		if output == "name" {
			fmt.Fprintln(t.Out, topic.Name)
			continue
		}
		rows = append(rows, []string{
			topic.Name, strconv.Itoa(topic.Partitions), strconv.Itoa(topic.ReplicationFactor),
			strconv.Itoa(topic.UnderReplicated), strconv.Itoa(topic.Offline),
		})
	}
	if output == "name" {
		return nil
	}
	if len(rows) == 0 {
		fmt.Fprintln(t.Err, "No topics.")
		return nil
	}
	return printTable(t.Out, []string{"NAME", "PARTITIONS", "REPLICAS", "UNDER-REPLICATED", "OFFLINE"}, rows)
}

func describeTopicCommand(o *options) *cobra.Command {
	t := &target{options: o}
	var output string
	cmd := &cobra.Command{
		Use:   "describe TOPIC",
		Short: "Show the partitions and configuration of a topic",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "json", "yaml"); err != nil {
				return err
			}
			return t.describeTopic(cmd.Context(), args[0], output)
		},
	}
	t.addFlags(cmd)
	addOutput(cmd.Flags(), &output, "json", "yaml")
	return cmd
}

func (t *target) describeTopic(ctx context.Context, name, output string) error {
	c, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	topic, err := c.Topic(ctx, name)
	if err != nil {
		return err
	}
	if output != "" {
		return printData(t.Out, output, topic)
	}
	fmt.Fprintf(t.Out, "Topic:       %s\nPartitions:  %d\nReplicas:    %d\n", topic.Name, topic.Partitions, topic.ReplicationFactor)
	for _, config := range topic.Config {
		if !config.Default {
			fmt.Fprintf(t.Out, "Config:      %s=%s\n", config.Name, config.Value)
		}
	}
	fmt.Fprintln(t.Out)
	rows := make([][]string, 0, len(topic.Details))
	for _, p := range topic.Details {
		rows = append(rows, []string{
			strconv.Itoa(int(p.Partition)), strconv.Itoa(int(p.Leader)), ids(p.Replicas), ids(p.ISR),
			strconv.FormatInt(p.Start, 10), strconv.FormatInt(p.End, 10),
		})
	}
	return printTable(t.Out, []string{"PARTITION", "LEADER", "REPLICAS", "ISR", "START", "END"}, rows)
}

func ids(list []int32) string {
	texts := make([]string, len(list))
	for i, id := range list {
		texts[i] = strconv.Itoa(int(id))
	}
	return strings.Join(texts, ",")
}

func createTopicCommand(o *options) *cobra.Command {
	t := &target{options: o}
	var topic kafka.NewTopic
	var config []string
	cmd := &cobra.Command{
		Use:     "create TOPIC",
		Short:   "Create a topic",
		Example: "  castellan topics create orders --partitions 6 --config retention.ms=86400000",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			topic.Name, topic.Config = args[0], map[string]string{}
			for _, pair := range config {
				key, value, ok := strings.Cut(pair, "=")
				if !ok {
					return usagef("--config %s: want KEY=VALUE", pair)
				}
				topic.Config[key] = value
			}
			return t.withClient(cmd.Context(), func(c *kafka.Client) error {
				if err := c.CreateTopic(cmd.Context(), topic); err != nil {
					return err
				}
				_, err := fmt.Fprintf(t.Out, "topic %s created\n", topic.Name)
				return err
			})
		},
	}
	t.addFlags(cmd)
	cmd.Flags().Int32Var(&topic.Partitions, "partitions", -1, "partitions (default what the cluster gives)")
	cmd.Flags().Int16Var(&topic.ReplicationFactor, "replicas", -1, "copies of each partition (default what the cluster gives)")
	cmd.Flags().StringArrayVar(&config, "config", nil, "configuration of the topic, KEY=VALUE; may be given several times")
	return cmd
}

func deleteTopicCommand(o *options) *cobra.Command {
	t := &target{options: o}
	cmd := &cobra.Command{
		Use:   "delete TOPIC...",
		Short: "Delete topics with all their data",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withClient(cmd.Context(), func(c *kafka.Client) error {
				for _, name := range args {
					if err := c.DeleteTopic(cmd.Context(), name); err != nil {
						return err
					}
					fmt.Fprintf(t.Out, "topic %s deleted\n", name)
				}
				return nil
			})
		},
	}
	t.addFlags(cmd)
	return cmd
}

func (t *target) withClient(ctx context.Context, do func(*kafka.Client) error) error {
	c, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c.Client)
}
