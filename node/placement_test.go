package node

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

func TestLanding(t *testing.T) {
	here := &api.NodePlacement{Node: "machine-1", Zone: "zone-1", Addresses: map[string]string{"InternalIP": "10.0.0.1"}}
	once := &api.NodePlacement{Node: "machine-1", Zone: "zone-0", Addresses: map[string]string{"InternalIP": "10.0.0.9"}}
	there := &api.NodePlacement{Node: "machine-2", Zone: "zone-2", Addresses: map[string]string{"InternalIP": "10.0.0.2"}}
	nowhere := &api.NodePlacement{Node: "machine-1"}
	node := func(address string) layout.Advertised {
		return layout.Advertised{Listener: "secure", AddressType: address, Port: 31000}
	}
	at := func(listener, host string, port int32) layout.Advertised {
		return layout.Advertised{Listener: listener, Host: host, Port: port}
	}
	named := &x509.Certificate{DNSNames: []string{"b0.example.com"}}
	const late = 31 * time.Second
	for _, tt := range []struct {
		reason     string
		given      *api.NodePlacement
		kept       *api.NodePlacement
		zone       string
		advertised []layout.Advertised
		controller bool
		waited     patience

		rack string
		at   map[string]string
		wait string // its reason, when it waits
		says string // in the message, or in what is late
	}{
		{reason: "the operator has written it", given: here, kept: once, zone: "zone-3", rack: "zone-1"},
		{reason: "the operator is silent, it is the same machine", kept: once, zone: "zone-3", rack: "zone-0"},
		{reason: "what was written is of another machine", given: there, kept: once, rack: "zone-0"},
		{reason: "newer Kubernetes says it, the pod has moved", kept: there, zone: "zone-3", rack: "zone-3"},
		{reason: "the machine has no zone", given: nowhere},
		{reason: "nothing is known", wait: ReasonWaitingForPlacement, says: layout.PlacementAnnotation},
		{reason: "the pod has moved", kept: there, wait: ReasonWaitingForPlacement, says: "machine-1"},
		{reason: "nothing is known for long", waited: patience{rack: late}, says: "machine-1 is not known"},
		{reason: "the pod has moved, nobody says where for long", kept: there, waited: patience{rack: late}, rack: "zone-2", says: `"zone-2" as before`},
		{reason: "a controller needs no rack", controller: true},

		{reason: "a host was given", given: here, advertised: []layout.Advertised{at("plain", "b0", 9)}, rack: "zone-1", at: map[string]string{"plain": "b0:9"}},
		{reason: "an IPv6 address", given: here, advertised: []layout.Advertised{at("plain", "fd00::1", 9)}, rack: "zone-1", at: map[string]string{"plain": "[fd00::1]:9"}},
		{reason: "the port is not known", given: here, advertised: []layout.Advertised{at("plain", "b0", 0)}, wait: ReasonWaitingForAddress, says: "plain has no port"},
		{reason: "the load balancer is not known", given: here, advertised: []layout.Advertised{at("plain", "", 9)}, wait: ReasonWaitingForAddress, says: "load balancer"},
		{reason: "another process's listener", given: here, advertised: []layout.Advertised{at("old", "", 0)}, rack: "zone-1"},
		{reason: "a controller's listener", controller: true, given: here, advertised: []layout.Advertised{at("plain", "", 0)}, rack: "zone-1"},
		{
			reason: "the machine's address", given: here, advertised: []layout.Advertised{node("InternalIP")}, waited: patience{names: 2 * time.Minute}, rack: "zone-1",
			at: map[string]string{"secure": "10.0.0.1:31000"}, says: "does not name 10.0.0.1",
		},
		{reason: "the machine's address as kept", kept: once, advertised: []layout.Advertised{node("InternalIP")}, wait: ReasonWaitingForCertificates, says: "10.0.0.9"},
		{
			reason: "another machine's address is never taken", kept: there, zone: "zone-3", advertised: []layout.Advertised{node("InternalIP")}, waited: patience{rack: time.Hour},
			wait: ReasonWaitingForPlacement, says: "InternalIP of machine machine-1",
		},
		{reason: "no such address", given: here, advertised: []layout.Advertised{node("ExternalIP")}, wait: ReasonWaitingForAddress, says: "it has InternalIP"},
		{reason: "the certificate names the host", given: here, advertised: []layout.Advertised{at("secure", "b0.example.com", 9)}, rack: "zone-1", at: map[string]string{"secure": "b0.example.com:9"}},
		{reason: "the certificate does not name the host", given: here, advertised: []layout.Advertised{at("secure", "b1.example.com", 9)}, wait: ReasonWaitingForCertificates, says: "b1.example.com"},
	} {
		s := layout.Static{Roles: []api.Role{api.RoleBroker}, Process: api.ProcessSpec{Listeners: []api.NodeListener{{Name: "plain", Protocol: "PLAINTEXT"}, {Name: "secure", Protocol: "SSL"}}}}
		if tt.controller {
			s.Roles = []api.Role{api.RoleController}
		}
		k := surroundings{machine: "machine-1", given: tt.given, kept: tt.kept, zone: tt.zone}
		got, wait := PodPlaces("machine-1").land(k, s, layout.Live{Advertised: tt.advertised}, named, tt.waited)
		said, waits := got.late, ""
		if wait != nil {
			said, waits = wait.message, wait.reason
		}
		if waits != tt.wait || !strings.Contains(said, tt.says) || (tt.says == "") != (said == "") {
			t.Errorf("%s: waits for %q and says %q", tt.reason, waits, said)
		}
		if tt.at == nil {
			tt.at = map[string]string{}
		}
		if diff := cmp.Diff(tt.at, got.advertised); wait == nil && (got.rack != tt.rack || diff != "") {
			t.Errorf("%s: rack %q, advertised (-want +got):\n%s", tt.reason, got.rack, diff)
		}
	}
}
