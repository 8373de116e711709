package stand

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

// dump shows what a person needs to understand a failed test.
func (s *Stand) dump() {
	// Not the test's context: it has ended.
	for _, args := range [][]string{{"status"}, {"get", "kafkacluster", "-o", "yaml"}, {"get", "kafkanode", "-o", "yaml"}, {"get", "operation", "-o", "yaml"}} {
		out := s.run(context.Background(), 20*time.Second, "", append(args, namespaceFlag(args, s.cluster.Namespace)...)...)
		s.tb.Logf("castellan %v (exit code %d):\n%s\n%s", args, out.Code, tail(out.Stdout, 400), tail(out.Stderr, 5))
	}
	for _, name := range []string{Server, ControlPlane, Operator, Agent} {
		s.show(s.dir.Log(name), 40)
	}
	if s.options.Racks {
		for _, p := range s.rackAgents() {
			s.show(s.dir.Log(p.Name), 20)
		}
	}
	for _, n := range s.supervisors() {
		s.show(filepath.Join(filepath.Dir(n.folder), "output.log"), 20)
		s.show(filepath.Join(n.folder, "logs", "server.log"), 40)
	}
}

func namespaceFlag(args []string, namespace string) []string {
	if args[0] != "get" {
		return nil
	}
	return []string{"-n", namespace}
}

func (s *Stand) show(file string, lines int) {
	data, err := os.ReadFile(file) //nolint:gosec // files of the stand's own folder
	if err != nil {
		s.tb.Logf("%v", err)
		return
	}
	s.tb.Logf("the end of %s:\n%s", file, tail(string(data), lines))
}
