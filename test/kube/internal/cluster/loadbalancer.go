package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"castellan.dev/castellan/test/kube/internal/netns"
)

// balanceRetry is the pause after a failure.
const balanceRetry = time.Second

// balancer gives Services of type LoadBalancer an address and leads packets for it to nodes, as the load balancer of a cloud
// does: to all that are ready, or with externalTrafficPolicy Local to those that have an endpoint.
type balancer struct {
	services corelisters.ServiceLister
	nodes    corelisters.NodeLister
	slices   discoverylisters.EndpointSliceLister
	routes   map[netip.Addr][]netip.Addr // as they are in the control plane's machine
}

// SetLoadBalancer switches whether Services get addresses. Those that have one keep it.
func (c *Cluster) SetLoadBalancer(on bool) {
	c.balance.Store(on)
	c.lookAgain()
}

func (c *Cluster) lookAgain() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *Cluster) runLoadBalancer(ctx context.Context) {
	factory := informers.NewSharedInformerFactory(c.client, 0)
	b := &balancer{
		services: factory.Core().V1().Services().Lister(), nodes: factory.Core().V1().Nodes().Lister(),
		slices: factory.Discovery().V1().EndpointSlices().Lister(), routes: map[netip.Addr][]netip.Addr{},
	}
	changed := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { c.lookAgain() }, UpdateFunc: func(any, any) { c.lookAgain() }, DeleteFunc: func(any) { c.lookAgain() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().Services().Informer(), factory.Core().V1().Nodes().Informer(), factory.Discovery().V1().EndpointSlices().Informer(),
	} {
		if _, err := informer.AddEventHandler(changed); err != nil {
			c.log.ErrorContext(ctx, "watch for load balancers", slog.Any("error", err))
			return
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
		}
		if err := b.reconcile(ctx, c); err != nil {
			c.log.ErrorContext(ctx, "load balancer", slog.Any("error", err))
			time.AfterFunc(balanceRetry, c.lookAgain)
		}
	}
}

func (b *balancer) reconcile(ctx context.Context, c *Cluster) error {
	all, err := b.services.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list Services: %w", err)
	}
	services := slices.DeleteFunc(all, func(s *corev1.Service) bool { return s.Spec.Type != corev1.ServiceTypeLoadBalancer })
	wanted := map[netip.Addr][]netip.Addr{}
	var waiting []*corev1.Service
	for _, s := range services {
		ip, ok := addressOf(s)
		if !ok {
			waiting = append(waiting, s)
			continue
		}
		if wanted[ip], err = b.hops(s); err != nil {
			return err
		}
	}
	if c.balance.Load() {
		for _, s := range waiting {
			ip, err := free(wanted)
			if err != nil {
				return err
			}
			if err := giveAddress(ctx, c, s, ip); err != nil {
				return err
			}
			if wanted[ip], err = b.hops(s); err != nil {
				return err
			}
		}
	}
	return b.lead(c.pid(controlPlane), wanted)
}

// lead makes the routes what is wanted.
func (b *balancer) lead(pid int, wanted map[netip.Addr][]netip.Addr) error {
	for ip := range b.routes {
		if _, ok := wanted[ip]; !ok {
			wanted[ip] = nil
		}
	}
	for ip, via := range wanted {
		if slices.Equal(b.routes[ip], via) {
			continue
		}
		if err := netns.SetRoutes(pid, netns.Route{To: netip.PrefixFrom(ip, ip.BitLen()), Via: via}); err != nil {
			return err
		}
		b.routes[ip] = via
		if len(via) == 0 {
			delete(b.routes, ip)
		}
	}
	return nil
}

// hops are the nodes that take packets for a Service.
func (b *balancer) hops(s *corev1.Service) ([]netip.Addr, error) {
	nodes, err := b.nodes.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	local := s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	var with []string
	if local {
		found, err := b.slices.EndpointSlices(s.Namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: s.Name}))
		if err != nil {
			return nil, fmt.Errorf("list endpoints: %w", err)
		}
		for _, slice := range found {
			for _, e := range slice.Endpoints {
				if ptr.Deref(e.Conditions.Ready, true) {
					with = append(with, ptr.Deref(e.NodeName, ""))
				}
			}
		}
	}
	var via []netip.Addr
	for _, n := range nodes {
		if isReady(*n, time.Time{}) && (!local || slices.Contains(with, n.Name)) {
			via = append(via, internalIP(n))
		}
	}
	slices.SortFunc(via, netip.Addr.Compare)
	return via, nil
}

func internalIP(n *corev1.Node) netip.Addr {
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			ip, _ := netip.ParseAddr(a.Address) // the zero address is no hop, and the route says so
			return ip
		}
	}
	return netip.Addr{}
}

func addressOf(s *corev1.Service) (netip.Addr, bool) {
	if len(s.Status.LoadBalancer.Ingress) == 0 {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(s.Status.LoadBalancer.Ingress[0].IP)
	return ip, err == nil
}

// free is the first address that no Service has.
func free(taken map[netip.Addr][]netip.Addr) (netip.Addr, error) {
	prefix := netip.MustParsePrefix(loadBalancerCIDR)
	for ip := prefix.Addr().Next(); prefix.Contains(ip); ip = ip.Next() {
		if _, ok := taken[ip]; !ok {
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("all addresses of %s are in use", prefix)
}

func giveAddress(ctx context.Context, c *Cluster, s *corev1.Service, ip netip.Addr) error {
	patch, err := json.Marshal(corev1.Service{Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{
		Ingress: []corev1.LoadBalancerIngress{{IP: ip.String(), IPMode: ptr.To(corev1.LoadBalancerIPModeVIP)}},
	}}})
	if err != nil {
		return fmt.Errorf("encode an address: %w", err)
	}
	if _, err := c.client.CoreV1().Services(s.Namespace).Patch(ctx, s.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("give %s/%s the address %s: %w", s.Namespace, s.Name, ip, err)
	}
	return nil
}
