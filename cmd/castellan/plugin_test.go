package main

import (
	"testing"

	"github.com/spf13/cobra"
)

func TestKubectlNamesItsPlugins(t *testing.T) {
	for program, want := range map[string]bool{
		"castellan": false, "/usr/local/bin/castellan": false, "kubectl-castellan": true, "/opt/bin/kubectl-castellan": true, "kubectl-castellan.exe": true,
	} {
		if got := isPlugin(program); got != want {
			t.Errorf("%s: %v", program, got)
		}
	}
}

func TestACommandOfTheSameNameKeepsItsOwnCommands(t *testing.T) {
	root := &cobra.Command{Use: "castellan"}
	people := &cobra.Command{Use: "node"}
	people.AddCommand(&cobra.Command{Use: "replace", Run: func(*cobra.Command, []string) {}})
	process := &cobra.Command{Use: "node", Run: func(*cobra.Command, []string) {}}
	root.AddCommand(people)
	addCommands(root, process, &cobra.Command{Use: "agent", Run: func(*cobra.Command, []string) {}})
	if n := len(root.Commands()); n != 2 {
		t.Errorf("%d commands", n)
	}
	found, _, err := root.Find([]string{"node", "replace"})
	if err != nil || found.Name() != "replace" || found.Parent() != process {
		t.Errorf("found %v, %v", found.CommandPath(), err)
	}
	if found, _, err := root.Find([]string{"node"}); err != nil || found != process {
		t.Errorf("found %v, %v", found, err)
	}
}
