package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Status is cluster.json: what programs need to know of a running cluster.
type Status struct {
	Name       string `json:"name"`
	Kubeconfig string `json:"kubeconfig"`
	// KubeconfigInside is for processes in the network of ext or of a machine.
	KubeconfigInside string       `json:"kubeconfigInside"`
	Nodes            []NodeStatus `json:"nodes"`
	Ext              Process      `json:"ext"`
	ControlPlane     Process      `json:"controlPlane"`
	LoadBalancerCIDR string       `json:"loadBalancerCIDR"`
}

// Process is the first process of a machine and its address; pid is 0 while it is off.
type Process struct {
	Pid int    `json:"pid"`
	IP  string `json:"ip"`
}

// NodeStatus is one worker.
type NodeStatus struct {
	Name string `json:"name"`
	IP   string `json:"ip"`
	Zone string `json:"zone"`
	Pid  int    `json:"pid"`
}

// ReadStatus reads cluster.json of a running cluster.
func ReadStatus(d Dir) (Status, error) {
	var s Status
	data, err := os.ReadFile(d.StatusFile())
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("no cluster runs in %s: start one with 'testkube up --dir %s'", d, d)
	}
	if err != nil {
		return s, fmt.Errorf("read the status of the cluster: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read %s: %w", d.StatusFile(), err)
	}
	return s, nil
}

// Pid finds the machine "cp", "ext" or a node.
func (s Status) Pid(m string) (int, error) {
	machines := map[string]int{controlPlane: s.ControlPlane.Pid, ext: s.Ext.Pid}
	for _, n := range s.Nodes {
		machines[n.Name] = n.Pid
	}
	pid, ok := machines[m]
	if !ok {
		return 0, fmt.Errorf("there is no machine %q: choose one of cp, ext and the nodes of 'kubectl get nodes'", m)
	}
	if pid == 0 {
		return 0, fmt.Errorf("%s is off: 'testkube node start --dir DIR %s' turns it on", m, m)
	}
	return pid, nil
}
