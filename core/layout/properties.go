package layout

import (
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	api "castellan.dev/castellan/api/v1alpha1"
)

// LogFolder is the folder inside a volume that is Kafka's log directory under layout 1, so
// that what a file system puts into its own root (lost+found) never is among topics.
const LogFolder = "kafka-logs"

// Facts are what only the supervisor knows when it starts the process.
type Facts struct {
	// TLSDir is the absolute path of the folder with KeyNodePEM and KeyCAPEM.
	TLSDir string
	// SSLEngine is the class that re-reads those files for each connection.
	SSLEngine string
	// PrincipalBuilder, PlainUsers and OAuth are the classes that authenticate clients.
	PrincipalBuilder, PlainUsers, OAuth, OAuthLogin string
	// Advertised is host:port by listener name of a KafkaCluster, where clients reach it
	// elsewhere than at the node's own address and port.
	Advertised map[string]string
}

// DataDir is Kafka's log directory inside a volume.
func DataDir(v Volume) string { return path.Join(v.Path, LogFolder) }

// Properties are the node's server.properties. What Castellan owns stands over the
// process's configuration: no key of a user can open one of the own listeners.
func Properties(s Static, l Live, f Facts) (map[string]string, error) {
	if err := checkLayout(s.Process); err != nil {
		return nil, err
	}
	if err := checkPaths(s); err != nil {
		return nil, err
	}
	listeners, err := listenersOf(s)
	if err != nil {
		return nil, err
	}
	properties := map[string]string{}
	addClientDefaults(properties, s, f)
	maps.Copy(properties, s.Process.Config)
	addIdentity(properties, s, l)
	addListeners(properties, s, listeners, f)
	if err := addTLS(properties, s, f); err != nil {
		return nil, err
	}
	addStorage(properties, s)
	return properties, nil
}

// checkLayout refuses a process that a layout cannot render: to leave something out would
// open a listener.
func checkLayout(p api.ProcessSpec) error {
	if !Known(p.Layout) {
		return fmt.Errorf("this castellan renders layouts %d and %d, the node asks for layout %d: run the castellan that wrote %s, or a newer one", Current, Authenticated, p.Layout, StaticFile)
	}
	if need := Of(p); p.Layout < need {
		return fmt.Errorf("the node asks for layout %d, but its listeners or super users need layout %d: the plan must say so", p.Layout, need)
	}
	return nil
}

// checkPaths refuses what log.dirs cannot say.
func checkPaths(s Static) error {
	if len(s.Volumes) == 0 {
		return fmt.Errorf("node %d has no volume: give its pool at least one", s.NodeID)
	}
	for _, v := range s.Volumes {
		if !path.IsAbs(v.Path) || strings.ContainsAny(v.Path, ",\n") || strings.TrimSpace(v.Path) != v.Path {
			return fmt.Errorf("path %q of volume %s is not usable: Kafka wants an absolute one without comma and outer blanks", v.Path, v.Name)
		}
	}
	return nil
}

func addIdentity(properties map[string]string, s Static, l Live) {
	roles := make([]string, 0, len(s.Roles))
	for _, role := range slices.Sorted(slices.Values(s.Roles)) {
		roles = append(roles, string(role))
	}
	properties["process.roles"] = strings.Join(roles, ",")
	properties["node.id"] = strconv.Itoa(int(s.NodeID))
	properties["controller.quorum.bootstrap.servers"] = strings.Join(l.BootstrapControllers, ",")
	if l.Rack != "" {
		properties["broker.rack"] = l.Rack
	}
}

func addStorage(properties map[string]string, s Static) {
	dirs := make([]string, 0, len(s.Volumes))
	for _, v := range s.Volumes {
		dirs = append(dirs, DataDir(v))
	}
	properties["log.dirs"] = strings.Join(dirs, ",")
	// Explicit, so that a volume put in front of it later does not move the metadata.
	properties["metadata.log.dir"] = dirs[0]
}

// Listener is a listener of a node, as Kafka knows it.
type Listener struct {
	Name     string // as in Kafka's configuration: upper case
	Client   string // as in the KafkaCluster; empty for one of our own
	Protocol string
	Bind     string // address to bind to; 0.0.0.0 for all
	Port     int32
	// OwnCertificate is the key of the node's Secret with its own certificate, if any.
	OwnCertificate string
}

// Listeners are all listeners of a node, its own ones first.
func Listeners(s Static) ([]Listener, error) { return listenersOf(s) }

func listenersOf(s Static) ([]Listener, error) {
	var wanted []api.NodeListener
	if HasRole(s, api.RoleController) {
		wanted = append(wanted, api.NodeListener{Name: ControllerListener, Protocol: "SSL"})
	}
	if HasRole(s, api.RoleBroker) {
		if err := distinct(s.Process.Listeners); err != nil {
			return nil, err
		}
		wanted = append(wanted, api.NodeListener{Name: InternalListener, Protocol: "SSL"})
		wanted = append(wanted, s.Process.Listeners...)
	}
	listeners := make([]Listener, 0, len(wanted))
	for _, w := range wanted {
		port, ok := s.Ports[w.Name]
		if !ok {
			return nil, fmt.Errorf("listener %s has no port: the plan must give it one in the node's spec.ports", w.Name)
		}
		l := Listener{Name: KafkaListenerName(w.Name), Protocol: w.Protocol, Bind: bindAddress(s.Address), Port: port}
		if w.Name != ControllerListener && w.Name != InternalListener {
			l.Client = w.Name
		}
		if w.OwnCertificate {
			l.OwnCertificate = CertificateKey(w.Name)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// distinct refuses a client listener that would be another one, or one of ours, to Kafka.
func distinct(clients []api.NodeListener) error {
	taken := map[string]string{ControllerListener: ControllerListener, InternalListener: InternalListener}
	for _, l := range clients {
		name := KafkaListenerName(l.Name)
		if other, ok := taken[name]; ok {
			return fmt.Errorf("listeners %s and %s are both %s to Kafka: give the first one another name", l.Name, other, name)
		}
		taken[name] = l.Name
	}
	return nil
}

// HasRole says whether the process has a role.
func HasRole(s Static, role api.Role) bool { return slices.Contains(s.Roles, role) }

// KafkaListenerName is how a listener of a KafkaCluster is called in Kafka's configuration.
// One that is called like a listener of ours gets a name that no other can have: a dash
// stands in no other.
func KafkaListenerName(name string) string {
	if name == ControllerListener || name == InternalListener {
		return name
	}
	upper := strings.ReplaceAll(strings.ToUpper(name), "-", "_")
	if upper == ControllerListener || upper == InternalListener {
		return "CLIENT-" + upper
	}
	return upper
}

// bindAddress keeps a node that is reached on the loopback only from listening elsewhere.
func bindAddress(address string) string {
	if address == "localhost" {
		return address
	}
	if ip, err := netip.ParseAddr(address); err == nil && ip.IsLoopback() {
		return address
	}
	return "0.0.0.0"
}

// HostPort joins an address and a port; an IPv6 address gets its brackets.
func HostPort(host string, port int32) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(port))
}

func addListeners(properties map[string]string, s Static, listeners []Listener, f Facts) {
	var bound, advertised []string
	// Controllers need the protocol of INTERNAL and brokers that of CONTROLLER, though they
	// do not listen there.
	protocols := []string{ControllerListener + ":SSL", InternalListener + ":SSL"}
	for _, l := range listeners {
		bound = append(bound, l.Name+"://"+HostPort(l.Bind, l.Port))
		at, ok := f.Advertised[l.Client]
		if !ok {
			at = HostPort(s.Address, l.Port)
		}
		advertised = append(advertised, l.Name+"://"+at)
		if l.Name != ControllerListener && l.Name != InternalListener {
			protocols = append(protocols, l.Name+":"+l.Protocol)
		}
	}
	properties["listeners"] = strings.Join(bound, ",")
	// The CONTROLLER listener is advertised too: a voter's endpoint is taken from here (KIP-853).
	properties["advertised.listeners"] = strings.Join(advertised, ",")
	properties["listener.security.protocol.map"] = strings.Join(protocols, ",")
	properties["controller.listener.names"] = ControllerListener
	properties["inter.broker.listener.name"] = InternalListener
}

// PrincipalRules map certificates to principals (ssl.principal.mapping.rules). Kafka
// matches a rule against the whole subject (RFC 2253, where a comma inside a value is
// escaped); every other certificate keeps its full subject, which begins with an
// attribute's name and so can never equal a principal of ours.
func PrincipalRules() string {
	const organization = "O=castellan"
	return "RULE:^CN=" + NodePrincipal + "-[0-9]+," + organization + "$/" + NodePrincipal + "/," +
		"RULE:^CN=" + OperatorPrincipal + "," + organization + "$/" + OperatorPrincipal + "/," +
		"DEFAULT"
}

// SuperUsers of every cluster.
func SuperUsers() string { return "User:" + NodePrincipal + ";User:" + OperatorPrincipal }

// addTLS sets the keys without a listener's prefix: the Raft client, fetchers and the
// channel from brokers to controllers read these as well as the listeners do.
func addTLS(properties map[string]string, s Static, f Facts) error {
	maps.Copy(properties, map[string]string{
		"ssl.keystore.type":                     "PEM",
		"ssl.keystore.location":                 path.Join(f.TLSDir, KeyNodePEM),
		"ssl.truststore.type":                   "PEM",
		"ssl.truststore.location":               path.Join(f.TLSDir, KeyCAPEM),
		"ssl.engine.factory.class":              f.SSLEngine,
		"ssl.client.auth":                       "required",
		"ssl.endpoint.identification.algorithm": "https",
		"ssl.principal.mapping.rules":           PrincipalRules(),
		"ssl.allow.dn.changes":                  "true",
		"ssl.allow.san.changes":                 "true",
		"authorizer.class.name":                 "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":                           SuperUsersOf(s.Process),
	})
	for _, l := range clientListeners(s) {
		if Secured(l.Protocol) {
			properties[listenerKey(l, "ssl.client.auth")] = "none"
		}
		if err := addAuthentication(properties, l, f); err != nil {
			return err
		}
	}
	return nil
}

// addClientDefaults keeps a certificate of ours from being a super user on a client
// listener, should that ever ask for certificates.
func addClientDefaults(properties map[string]string, s Static, f Facts) {
	for _, l := range clientListeners(s) {
		if Secured(l.Protocol) {
			properties[listenerKey(l, "ssl.principal.mapping.rules")] = "DEFAULT"
		}
		addAuthenticationDefaults(properties, l, f)
	}
}

func clientListeners(s Static) []api.NodeListener {
	if !HasRole(s, api.RoleBroker) {
		return nil
	}
	return s.Process.Listeners
}

func listenerKey(l api.NodeListener, key string) string {
	return "listener.name." + strings.ToLower(KafkaListenerName(l.Name)) + "." + key
}
