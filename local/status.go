package local

import (
	"context"
	"fmt"
	"io"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Status is what runs in a folder.
type Status struct {
	Dir        string          `json:"dir"`
	Kubeconfig string          `json:"kubeconfig"`
	Running    bool            `json:"running"`
	Server     State           `json:"server"`
	Clusters   []ClusterStatus `json:"clusters,omitempty"`
	Problem    string          `json:"problem,omitempty"`
}

// ClusterStatus is one KafkaCluster in a few words.
type ClusterStatus struct {
	Namespace string               `json:"namespace"`
	Name      string               `json:"name"`
	State     api.RunState         `json:"state"`
	Ready     bool                 `json:"ready"`
	Message   string               `json:"message,omitempty"`
	Nodes     []NodeStatus         `json:"nodes,omitempty"`
	Listeners []api.ListenerStatus `json:"listeners,omitempty"`
}

// NodeStatus is one KafkaNode in a few words.
type NodeStatus struct {
	Name    string        `json:"name"`
	ID      int32         `json:"id"`
	State   api.NodeState `json:"state"`
	Ready   bool          `json:"ready"`
	PID     int32         `json:"pid,omitempty"`
	Message string        `json:"message,omitempty"`
}

// statusTimeout bounds how long a silent control plane is waited for.
const statusTimeout = 5 * time.Second

// ReadStatus says what runs in a folder. It starts nothing, and an API server that does
// not answer is told in Problem.
func ReadStatus(ctx context.Context, d Dir) Status {
	s := Status{Dir: string(d), Kubeconfig: d.Kubeconfig()}
	s.Server, s.Running = readState(d)
	if !s.Running {
		switch {
		case !d.Exists():
			s.Problem = "never started here; `castellan up` does"
		case s.Server.Phase == PhaseStopped:
			s.Problem = "stopped; `castellan up` starts it again"
		default:
			s.Problem = "the server ended without a stop; Kafka may still run, `castellan up` takes control of it again"
		}
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	clusters, err := readClusters(ctx, d)
	if err != nil {
		s.Problem = err.Error()
	}
	s.Clusters = clusters
	return s
}

func readClusters(ctx context.Context, d Dir) ([]ClusterStatus, error) {
	config, err := restConfig(d.Kubeconfig())
	if err != nil {
		return nil, err
	}
	c, err := newClient(config)
	if err != nil {
		return nil, err
	}
	var clusters api.KafkaClusterList
	if err := c.List(ctx, &clusters); err != nil {
		return nil, fmt.Errorf("list the KafkaClusters: %w", err)
	}
	var nodes api.KafkaNodeList
	if err := c.List(ctx, &nodes); err != nil {
		return nil, fmt.Errorf("list the KafkaNodes: %w", err)
	}
	statuses := make([]ClusterStatus, 0, len(clusters.Items))
	for i := range clusters.Items {
		statuses = append(statuses, clusterStatus(&clusters.Items[i], nodes.Items))
	}
	return statuses, nil
}

func clusterStatus(c *api.KafkaCluster, nodes []api.KafkaNode) ClusterStatus {
	s := ClusterStatus{
		Namespace: c.Namespace, Name: c.Name, State: c.Spec.State, Listeners: c.Status.Listeners,
		Ready: meta.IsStatusConditionTrue(c.Status.Conditions, api.ConditionReady),
	}
	for _, kind := range []string{api.ConditionStalled, api.ConditionReconciling} {
		if condition := meta.FindStatusCondition(c.Status.Conditions, kind); condition != nil && condition.Status == "True" {
			s.Message = condition.Message
			break
		}
	}
	if available := meta.FindStatusCondition(c.Status.Conditions, api.ConditionAvailable); s.Message == "" && available != nil && available.Reason == api.ReasonDegraded {
		s.Message = available.Message
	}
	if accepted := meta.FindStatusCondition(c.Status.Conditions, api.ConditionAccepted); accepted != nil && accepted.Status == "False" {
		s.Message = accepted.Message
	}
	for _, n := range nodes {
		if n.Namespace != c.Namespace || n.Spec.ClusterName != c.Name {
			continue
		}
		ns := NodeStatus{Name: n.Name, ID: n.Spec.NodeID, State: n.Status.State, Ready: n.Status.Ready, Message: n.Status.Message}
		if n.Status.Process != nil {
			ns.PID = n.Status.Process.PID
		}
		s.Nodes = append(s.Nodes, ns)
	}
	return s
}

// Print writes the status for people.
func (s Status) Print(w io.Writer) {
	fmt.Fprintf(w, "folder      %s\nkubeconfig  %s\n", s.Dir, s.Kubeconfig)
	if s.Running {
		fmt.Fprintf(w, "server      pid %d, %s %s\n", s.Server.Server.PID, s.Server.Phase, s.Server.Message)
	}
	for _, name := range s.Server.childNames() {
		c := s.Server.Children[name]
		switch {
		case !s.Running:
		case c.Running && c.Exits == 0:
			fmt.Fprintf(w, "%-11s pid %d\n", name, c.PID)
		case c.Running:
			fmt.Fprintf(w, "%-11s pid %d, restarted %d times; last: %s\n", name, c.PID, c.Exits, oneLine(c.LastExit))
		default:
			fmt.Fprintf(w, "%-11s not running: %s\n", name, oneLine(c.LastExit))
		}
	}
	for _, c := range s.Clusters {
		c.print(w)
	}
	if s.Problem != "" {
		fmt.Fprintln(w, s.Problem)
	}
}

func (c ClusterStatus) print(w io.Writer) {
	state := "not ready"
	switch {
	case c.State == api.StateStopped:
		state = "stopped"
	case c.Ready:
		state = "ready"
	}
	fmt.Fprintf(w, "\nKafkaCluster %s/%s: %s\n", c.Namespace, c.Name, state)
	if c.Message != "" {
		fmt.Fprintf(w, "  %s\n", c.Message)
	}
	for _, l := range c.Listeners {
		fmt.Fprintf(w, "  bootstrap servers (%s)  %s\n", l.Name, l.BootstrapServers)
	}
	for _, n := range c.Nodes {
		fmt.Fprintf(w, "  node %-4d %-11s pid %-8d %s\n", n.ID, n.State, n.PID, n.Message)
	}
}
