package host

import (
	"fmt"
	"maps"
	"slices"

	api "castellan.dev/castellan/api/v1alpha1"
)

// PortsError says that a host cannot give a listener a port.
type PortsError struct {
	// Listener and the Port that it would have by itself.
	Listener string
	Port     int32
	// Range of the host, nil if it has none.
	Range *api.PortRange
}

func (e *PortsError) Error() string {
	if e.Range == nil {
		return fmt.Sprintf("port %d of listener %s is taken on the host and the host has no port range: give the Host a spec.portRange or the listener another port", e.Port, e.Listener)
	}
	return fmt.Sprintf("no port for listener %s: every port of the host's range %d-%d is taken: widen the Host's spec.portRange or place fewer nodes on it", e.Listener, e.Range.From, e.Range.To)
}

// Ports gives each wanted listener (name to the port it would have by itself) a port of the
// host that nobody claimed: its own one if that is free and the host allows it, else the
// lowest free one of the host's range. The same input gives the same ports.
func Ports(host api.HostSpec, claimed []int32, wanted map[string]int32) (map[string]int32, error) {
	taken := make(map[int32]bool, len(claimed)+len(wanted))
	for _, port := range claimed {
		taken[port] = true
	}
	given := make(map[string]int32, len(wanted))
	names := slices.Sorted(maps.Keys(wanted))
	// All own ports come first: a port from the range must not take another listener's own.
	if host.ListenerPorts != api.PortsFromRange {
		for _, name := range names {
			if port := wanted[name]; !taken[port] {
				given[name], taken[port] = port, true
			}
		}
	}
	for _, name := range names {
		if _, ok := given[name]; ok {
			continue
		}
		port, ok := lowestFree(host.PortRange, taken)
		if !ok {
			return nil, &PortsError{Listener: name, Port: wanted[name], Range: host.PortRange}
		}
		given[name], taken[port] = port, true
	}
	return given, nil
}

func lowestFree(r *api.PortRange, taken map[int32]bool) (int32, bool) {
	if r == nil {
		return 0, false
	}
	for port := r.From; port <= r.To; port++ {
		if !taken[port] {
			return port, true
		}
	}
	return 0, false
}
