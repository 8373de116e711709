package main

import (
	"context"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/cli"
)

// processCommands are the commands that run as processes of their own: operator, agent, node.
func (w wiring) processCommands() []*cobra.Command {
	return nil
}

func preview() func(context.Context, *rest.Config, *api.KafkaCluster) (cli.PlanView, error) {
	return nil
}
