package apiserver

import (
	"fmt"
	"net"
	"strings"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/kubernetes/pkg/controlplane/apiserver/options"

	"castellan.dev/castellan/controlplane/internal/datadir"
)

// issuer is the name service account tokens carry; changing it would make every issued token invalid.
const issuer = "https://kubernetes.default.svc"

// gates switches off what renews leases of its own every few seconds and only serves several API servers side by side.
const gates = "APIServerIdentity=false,UnknownVersionInteroperabilityProxy=false"

// owned are the flags that tie the server to its data directory. They cannot be passed through.
func owned(cfg Config) map[string]string {
	d := cfg.Dir
	return map[string]string{
		"etcd-servers":                     cfg.EtcdEndpoint,
		"client-ca-file":                   d.CACert(),
		"tls-cert-file":                    d.ServingCert(),
		"tls-private-key-file":             d.ServingKey(),
		"service-account-key-file":         d.ServiceAccountPub(),
		"service-account-signing-key-file": d.ServiceAccountKey(),
		"service-account-issuer":           issuer,
		"encryption-provider-config":       d.Encryption(),
		"audit-log-path":                   cfg.AuditLog,
		"bind-address":                     host(cfg.Listener),
		"secure-port":                      port(cfg.Listener),
	}
}

// defaults are the flags that differ from a stock kube-apiserver's; a passed-through flag overrides them.
func defaults(d datadir.Dir) map[string]string {
	return map[string]string{
		// The library's default is AlwaysAllow.
		"authorization-mode":    "RBAC",
		"authentication-config": d.Authentication(),
		"audit-policy-file":     d.AuditPolicy(),
		"audit-log-maxsize":     "64", // MiB
		"audit-log-maxbackup":   "5",
		"audit-log-maxage":      "90", // days
		"audit-log-compress":    "true",
		"tls-min-version":       "VersionTLS13",
		"profiling":             "false",
		// Open watches would otherwise hold a stop for up to a minute.
		"shutdown-watch-termination-grace-period": "5s",
	}
}

// parse fills the options from our flags and the ones passed through.
func parse(opts *options.Options, cfg Config) error {
	var sets cliflag.NamedFlagSets
	opts.AddFlags(&sets)
	flags := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	flags.Usage = func() {}
	for _, set := range sets.FlagSets {
		flags.AddFlagSet(set)
	}
	// Gates add up, so ours come first; any other flag of ours is set only when it was not passed through.
	if err := flags.Parse(append([]string{"--feature-gates=" + gates}, cfg.Extra...)); err != nil {
		return fmt.Errorf("flags after --: %w (they are those of kube-apiserver)", err)
	}
	if rest := flags.Args(); len(rest) > 0 {
		return fmt.Errorf("arguments after -- must be kube-apiserver flags, got %q", strings.Join(rest, " "))
	}
	ours := owned(cfg)
	for name := range ours {
		if flags.Changed(name) {
			return fmt.Errorf("--%s cannot be passed through: it is set from the data directory and castellan-controlplane's own flags", name)
		}
	}
	for name, value := range defaults(cfg.Dir) {
		if !flags.Changed(name) {
			ours[name] = value
		}
	}
	for name, value := range ours {
		if err := flags.Set(name, value); err != nil {
			return fmt.Errorf("set --%s=%s: %w", name, value, err)
		}
	}
	return nil
}

func host(l net.Listener) string {
	if tcp, ok := l.Addr().(*net.TCPAddr); ok {
		return tcp.IP.String()
	}
	return "127.0.0.1"
}

func port(l net.Listener) string {
	_, p, _ := net.SplitHostPort(l.Addr().String()) // a TCP listener's own address
	return p
}
