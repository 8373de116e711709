package cluster

import (
	"fmt"
	"net/netip"
)

// The addresses of every cluster. They are the same in each: clusters share no network.
const (
	apiAddress       = "10.88.0.1:6443"
	apiIP            = "10.88.0.1"
	extIP            = "10.88.0.100"
	podNetwork       = "10.89.0.0/16"
	serviceNetwork   = "10.90.0.0/16"
	firstServiceIP   = "10.90.0.1"
	dnsIP            = "10.90.0.10"
	loadBalancerCIDR = "10.91.0.0/24"
	domain           = "cluster.local"
	region           = "r1"
	linkBits         = 24
	maxNodes         = 9
)

// place is where a node is: n counts from 1.
type place struct{ n int }

func (p place) name() string { return fmt.Sprintf("node%d", p.n) }
func (p place) ip() netip.Addr {
	return netip.AddrFrom4([4]byte{10, 88, 0, byte(10 + p.n)}) //nolint:gosec // n is at most maxNodes
}

func (p place) pods() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 89, byte(p.n), 0}), 24) //nolint:gosec // n is at most maxNodes
}

func (p place) zone() string { return string(rune('a' + (p.n-1)%3)) }

func places(nodes int) []place {
	all := make([]place, nodes)
	for i := range all {
		all[i].n = i + 1
	}
	return all
}

func hostAddress(ip netip.Addr) netip.Prefix { return netip.PrefixFrom(ip, linkBits) }
