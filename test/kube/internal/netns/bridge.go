package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const (
	bridge = "br0"
	uplink = "eth0" // each machine's own name of its end
	mtu    = 1500
)

// Route leads packets for a network to the next hops, each with the same share. It replaces what led there before.
type Route struct {
	To  netip.Prefix
	Via []netip.Addr
}

func handle(pid int) (*netlink.Handle, error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, fmt.Errorf("find the network of pid %d: %w", pid, err)
	}
	defer ns.Close() //nolint:errcheck // the handle has its own sockets
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, fmt.Errorf("enter the network of pid %d: %w", pid, err)
	}
	return h, nil
}

// Bridge gives the machine a bridge with an address and no uplink: nothing leaves it. All it has no route for goes there.
func Bridge(pid int, address netip.Prefix) error {
	h, err := handle(pid)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := up(h, "lo"); err != nil {
		return err
	}
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge, MTU: mtu}}); err != nil {
		return fmt.Errorf("add the bridge: %w", err)
	}
	if err := configure(h, bridge, address); err != nil {
		return err
	}
	link, err := h.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find the bridge: %w", err)
	}
	return replace(h, &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0")), Scope: netlink.SCOPE_LINK})
}

// Connect joins the machine pid to the bridge of the machine hub by a cable whose end at the hub is called name. The pair is
// made inside the two namespaces, so the host never sees a link.
func Connect(hub, pid int, name string, address netip.Prefix, gateway netip.Addr) error {
	if err := plug(hub, pid, name); err != nil {
		return err
	}
	h, err := handle(pid)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := up(h, "lo"); err != nil {
		return err
	}
	if err := configure(h, uplink, address); err != nil {
		return err
	}
	return replace(h, &netlink.Route{Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0")), Gw: gateway.AsSlice()})
}

func plug(hub, pid int, name string) error {
	h, err := handle(hub)
	if err != nil {
		return err
	}
	defer h.Close()
	// After a power cut the kernel removes the old cable late.
	if old, err := h.LinkByName(name); err == nil {
		if err := h.LinkDel(old); err != nil && !gone(err) {
			return fmt.Errorf("remove the old cable of %s: %w", name, err)
		}
	}
	master, err := h.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find the bridge: %w", err)
	}
	cable := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu, MasterIndex: master.Attrs().Index},
		PeerName:  uplink, PeerMTU: mtu, PeerNamespace: netlink.NsPid(pid),
	}
	if err := h.LinkAdd(cable); err != nil {
		return fmt.Errorf("connect %s to the bridge: %w", name, err)
	}
	return up(h, name)
}

// SetRoutes puts routes into the machine.
func SetRoutes(pid int, routes ...Route) error {
	h, err := handle(pid)
	if err != nil {
		return err
	}
	defer h.Close()
	for _, r := range routes {
		route := &netlink.Route{Dst: ipNet(r.To)}
		switch len(r.Via) {
		case 0:
			if err := h.RouteDel(route); err != nil && !gone(err) {
				return fmt.Errorf("remove the route to %s: %w", r.To, err)
			}
			continue
		case 1:
			route.Gw = r.Via[0].AsSlice()
		default:
			for _, via := range r.Via {
				route.MultiPath = append(route.MultiPath, &netlink.NexthopInfo{Gw: via.AsSlice()})
			}
		}
		if err := replace(h, route); err != nil {
			return err
		}
	}
	return nil
}

func configure(h *netlink.Handle, name string, address netip.Prefix) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find the link %s: %w", name, err)
	}
	ip := &net.IPNet{IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), address.Addr().BitLen())}
	if err := h.AddrAdd(link, &netlink.Addr{IPNet: ip}); err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, address, err)
	}
	return up(h, name)
}

func up(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find the link %s: %w", name, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring %s up: %w", name, err)
	}
	return nil
}

func replace(h *netlink.Handle, r *netlink.Route) error {
	if err := h.RouteReplace(r); err != nil {
		return fmt.Errorf("set the route to %s: %w", r.Dst, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func gone(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, errNoSuchProcess) || errors.Is(err, errNoSuchDevice)
}
