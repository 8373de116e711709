package main

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"castellan.dev/castellan/cli"
	"castellan.dev/castellan/substrate/kube/forward"
)

// isPlugin says whether kubectl runs the program: it finds plugins by this name.
func isPlugin(program string) bool {
	return strings.TrimSuffix(filepath.Base(program), ".exe") == "kubectl-castellan"
}

// forwarder is the way to pods through the API server.
func forwarder(config *rest.Config) (cli.Forwarder, error) { //nolint:ireturn // what cli takes
	return forward.New(config)
}

// addCommands adds commands. One that is there already gives its own commands to the new
// one of the same name: castellan node is a process, castellan node replace is for people.
func addCommands(root *cobra.Command, commands ...*cobra.Command) {
	for _, command := range commands {
		for _, old := range root.Commands() {
			if old.Name() != command.Name() {
				continue
			}
			command.AddGroup(old.Groups()...)
			for _, sub := range old.Commands() {
				old.RemoveCommand(sub)
				command.AddCommand(sub)
			}
			root.RemoveCommand(old)
		}
		root.AddCommand(command)
	}
}
