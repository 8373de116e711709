package node

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

// placementFile on the first volume keeps what the operator said of the machine, so that a
// restart on the same machine needs nobody.
const placementFile = ".castellan-placement.json"

// surroundings are what a pod may know of where it runs.
type surroundings struct {
	machine string
	given   *api.NodePlacement // what the operator wrote to the pod
	kept    *api.NodePlacement // what the operator had written once
	zone    string             // what newer Kubernetes writes to the pod
}

// placement of this very machine, or nil.
func (k surroundings) placement() *api.NodePlacement {
	for _, p := range []*api.NodePlacement{k.given, k.kept} {
		if p != nil && p.Node == k.machine {
			return p
		}
	}
	return nil
}

// rack says whether it knows it. A rack that is not known is that of the machine before:
// most disks that move do so within their zone.
func (k surroundings) rack() (rack string, known bool) {
	switch p := k.placement(); {
	case p != nil:
		return cmp.Or(p.Zone, k.zone), true
	case k.zone != "":
		return k.zone, true
	case k.kept != nil:
		return k.kept.Zone, false
	default:
		return "", false
	}
}

// landing is what a pod's start takes from its surroundings.
type landing struct {
	rack string
	// advertised is host:port by listener.
	advertised map[string]string
	// names are the hosts that clients verify.
	names []string
	// late says what was not waited for any longer.
	late string
}

// waiting is why a start does not go on yet.
type waiting struct{ reason, message string }

// patience is how long a start has waited, each wait by itself.
type patience struct{ rack, names time.Duration }

// land decides with what a node starts, or what it waits for.
func (p *Pod) land(k surroundings, s layout.Static, l layout.Live, leaf *x509.Certificate, waited patience) (landing, *waiting) {
	var at landing
	rack, known := k.rack()
	if broker := layout.HasRole(s, api.RoleBroker); !known && broker {
		if waited.rack < p.RackWait {
			return at, &waiting{ReasonWaitingForPlacement, fmt.Sprintf("the zone of machine %s, which becomes broker.rack: the operator writes it to the pod's annotation %s; without it the node starts after %s with the rack that it had (%q)", k.machine, layout.PlacementAnnotation, p.RackWait, rack)}
		}
		at.late = fmt.Sprintf("the zone of machine %s is not known, the rack is %q as before", k.machine, rack)
	}
	at.rack = rack
	var wait *waiting
	if at.advertised, at.names, wait = reached(k, s, l); wait != nil {
		return at, wait
	}
	if missing := unnamed(leaf, at.names); missing != "" {
		if waited.names < p.NameWait {
			return at, &waiting{ReasonWaitingForCertificates, fmt.Sprintf("the node's certificate does not name %s, under which clients reach it; without it the node starts after %s", missing, p.NameWait)}
		}
		at.late = strings.TrimPrefix(at.late+"; "+nameless(missing), "; ")
	}
	return at, nil
}

// reached says where clients reach the exposed listeners, and which hosts they verify there.
func reached(k surroundings, s layout.Static, l layout.Live) (at map[string]string, names []string, wait *waiting) {
	at = map[string]string{}
	if !layout.HasRole(s, api.RoleBroker) {
		return at, nil, nil
	}
	for _, a := range l.Advertised {
		i := slices.IndexFunc(s.Process.Listeners, func(n api.NodeListener) bool { return n.Name == a.Listener })
		if i < 0 {
			continue // of a process that is yet to come, or was before
		}
		host, wait := hostOf(k, a)
		if wait != nil {
			return at, nil, wait
		}
		if a.Port == 0 {
			return at, nil, &waiting{ReasonWaitingForAddress, fmt.Sprintf("listener %s has no port yet under which clients reach it: its Service has not been given one, see kubectl describe service of the node", a.Listener)}
		}
		at[a.Listener] = layout.HostPort(host, a.Port)
		if l := s.Process.Listeners[i]; layout.Secured(l.Protocol) && !l.OwnCertificate {
			names = append(names, host)
		}
	}
	return at, names, nil
}

func hostOf(k surroundings, a layout.Advertised) (string, *waiting) {
	if a.Host != "" {
		return a.Host, nil
	}
	if a.AddressType == "" {
		return "", &waiting{ReasonWaitingForAddress, fmt.Sprintf("listener %s has no address yet under which clients reach it: its load balancer has not been given one, see kubectl describe service of the node", a.Listener)}
	}
	placed := k.placement()
	if placed == nil {
		return "", &waiting{ReasonWaitingForPlacement, fmt.Sprintf("listener %s is reached at the %s of machine %s, which the operator writes to the pod's annotation %s: see that the operator runs", a.Listener, a.AddressType, k.machine, layout.PlacementAnnotation)}
	}
	if host := placed.Addresses[a.AddressType]; host != "" {
		return host, nil
	}
	return "", &waiting{ReasonWaitingForAddress, fmt.Sprintf("machine %s has no address of type %s for listener %s (it has %s): choose another exposure.addressType, or give exposure.host", k.machine, a.AddressType, a.Listener, typesOf(placed.Addresses))}
}

func typesOf(addresses map[string]string) string {
	if len(addresses) == 0 {
		return "none"
	}
	types := make([]string, 0, len(addresses))
	for t := range addresses {
		types = append(types, t)
	}
	slices.Sort(types)
	return strings.Join(types, ", ")
}

// unnamed are those of the names that a certificate does not have, for a sentence.
func unnamed(leaf *x509.Certificate, names []string) string {
	var missing []string
	for _, name := range names {
		if leaf == nil || leaf.VerifyHostname(name) != nil {
			missing = append(missing, name)
		}
	}
	return strings.Join(missing, ", ")
}

func nameless(missing string) string {
	return fmt.Sprintf("the node's certificate does not name %s: clients that verify it are refused there until it does", missing)
}

// settle waits until a pod knows with what to start.
func (s *supervisor) settle(ctx context.Context) error {
	p := s.config.Pod
	if p == nil {
		return nil
	}
	if p.Machine == "" {
		return fail(ExitFiles, ReasonBadFiles, "the environment variable %s is empty: the pod's template sets it to spec.nodeName", layout.NodeNameVariable)
	}
	began := s.config.now()
	var addressed time.Time
	err := s.await(ctx, func() *waiting {
		now := s.config.now()
		waited := patience{rack: now.Sub(began)}
		if !addressed.IsZero() {
			waited.names = now.Sub(addressed)
		}
		live, err := s.live()
		if err != nil {
			return &waiting{ReasonWaitingForAddress, err.Error()}
		}
		own, err := s.readIdentity()
		if err != nil {
			return &waiting{ReasonWaitingForCertificates, err.Error()}
		}
		k, err := s.surroundings()
		at, wait := p.land(k, s.static, live, own.leaf, waited)
		switch {
		case wait == nil:
			s.landed = at
		case wait.reason == ReasonWaitingForCertificates && addressed.IsZero():
			addressed = now
		case err != nil:
			wait.message += fmt.Sprintf(" (%v)", err)
		}
		return wait
	})
	if err != nil {
		return err
	}
	if s.landed.late != "" {
		s.log.WarnContext(ctx, "start without knowing all", slog.String("message", s.landed.late))
	}
	s.keepPlacement(ctx)
	return nil
}

// surroundings reads all that is known; what cannot be read is not known, and the error
// says why.
func (s *supervisor) surroundings() (surroundings, error) {
	k := surroundings{machine: s.config.Pod.Machine}
	given, err := s.givenPlacement()
	k.given = given
	var kept api.NodePlacement
	switch keptErr := readJSON(s.keptFile(), &kept); {
	case keptErr == nil:
		k.kept = &kept
	case !errors.Is(keptErr, fs.ErrNotExist):
		err = errors.Join(err, keptErr)
	}
	zone, zoneErr := os.ReadFile(filepath.Join(s.config.Pod.InfoDir, layout.ZoneFile))
	if zoneErr != nil && !errors.Is(zoneErr, fs.ErrNotExist) {
		err = errors.Join(err, fmt.Errorf("read the pod's zone: %w", zoneErr))
	}
	k.zone = strings.TrimSpace(string(zone))
	return k, err
}

// givenPlacement is nil while the operator has written none.
func (s *supervisor) givenPlacement() (*api.NodePlacement, error) {
	data, err := os.ReadFile(filepath.Join(s.config.Pod.InfoDir, layout.PlacementFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(strings.TrimSpace(string(data))) == 0 {
		return nil, nil //nolint:nilnil // there is none
	}
	var given api.NodePlacement
	if err == nil {
		err = json.Unmarshal(data, &given)
	}
	if err != nil {
		return nil, fmt.Errorf("read the pod's annotation %s: %w", layout.PlacementAnnotation, err)
	}
	return &given, nil
}

func (s *supervisor) keptFile() string {
	return filepath.Join(s.static.Volumes[0].Path, placementFile)
}

// keepPlacement keeps what the operator says of this machine, also when it says so late.
func (s *supervisor) keepPlacement(ctx context.Context) {
	given, err := s.givenPlacement()
	if err != nil || given == nil || given.Node != s.config.Pod.Machine || reflect.DeepEqual(given, s.kept) {
		return
	}
	var kept api.NodePlacement
	if err := readJSON(s.keptFile(), &kept); err != nil || !reflect.DeepEqual(&kept, given) {
		if err := writeJSON(s.keptFile(), given); err != nil {
			s.log.WarnContext(ctx, "a restart without the operator will not know its rack", errorAttr(err))
		}
	}
	s.kept = given
}
