package layout

import (
	"fmt"
	"slices"

	api "castellan.dev/castellan/api/v1alpha1"
)

// StaticOf is what a node's process is started with. Only node.spec.process, and what can
// never change of a node, flows into it.
func StaticOf(node *api.KafkaNode) (Static, error) {
	spec := &node.Spec
	volumes, err := processVolumes(spec)
	if err != nil {
		return Static{}, fmt.Errorf("node %s/%s: %w", node.Namespace, node.Name, err)
	}
	return Static{
		Namespace:   node.Namespace,
		ClusterName: spec.ClusterName,
		NodeID:      spec.NodeID,
		Roles:       slices.Sorted(slices.Values(spec.Roles)),
		Process:     spec.Process,
		Volumes:     volumes,
		Address:     spec.Address,
		Ports:       processPorts(spec),
	}, nil
}

// LiveOf is what the running process is told. Advertised is left to who knows what the
// substrate gave.
func LiveOf(node *api.KafkaNode) Live {
	return Live{
		ClusterID:            node.Spec.ClusterID,
		Storage:              node.Spec.Storage,
		BootstrapControllers: node.Spec.BootstrapControllers,
		CertificateDigest:    node.Spec.Certificates.Digest,
		Rack:                 node.Spec.Rack,
	}
}

// processVolumes are the volumes that the process has permission to use; one that was only
// just added to the node waits for the next process.
func processVolumes(spec *api.KafkaNodeSpec) ([]Volume, error) {
	volumes := make([]Volume, 0, len(spec.Process.Volumes))
	for _, name := range spec.Process.Volumes {
		at := slices.IndexFunc(spec.Volumes, func(v api.NodeVolume) bool { return v.Name == name })
		if at < 0 {
			return nil, fmt.Errorf("process uses volume %q, which the node does not have: the plan must give it a path", name)
		}
		volumes = append(volumes, Volume{Name: name, Path: spec.Volumes[at].Path})
	}
	return volumes, nil
}

// processPorts leaves out ports of listeners that the process does not have yet, so that a
// port can be given before the permission to restart.
func processPorts(spec *api.KafkaNodeSpec) map[string]int32 {
	ports := make(map[string]int32, len(spec.Ports))
	names := []string{ControllerListener, InternalListener}
	for _, listener := range spec.Process.Listeners {
		names = append(names, listener.Name)
	}
	for _, name := range names {
		if port, ok := spec.Ports[name]; ok {
			ports[name] = port
		}
	}
	return ports
}
