package node

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"castellan.dev/castellan/core/layout"
)

// identity is the node's certificate and trust, as its files have them.
type identity struct {
	pair  tls.Certificate
	trust *x509.CertPool
	leaf  *x509.Certificate
}

// readIdentity reads the node's TLS files; while they are being replaced they may not fit.
func (s *supervisor) readIdentity() (identity, error) {
	node, err := os.ReadFile(s.tlsPath(layout.KeyNodePEM))
	if err != nil {
		return identity{}, fmt.Errorf("read the node's certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(node, node)
	if err != nil {
		return identity{}, fmt.Errorf("read the node's certificate: %w", err)
	}
	ca, err := os.ReadFile(s.tlsPath(layout.KeyCAPEM))
	if err != nil {
		return identity{}, fmt.Errorf("read the trusted CAs: %w", err)
	}
	trust := x509.NewCertPool()
	if !trust.AppendCertsFromPEM(ca) {
		return identity{}, errors.New("read the trusted CAs: ca.pem holds no certificate")
	}
	return identity{pair: pair, trust: trust, leaf: pair.Leaf}, nil
}

// config is that of a client of the node's own listeners.
func (i identity) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{i.pair}, RootCAs: i.trust}
}

func (s *supervisor) tlsPath(name string) string { return filepath.Join(s.tlsDir(), name) }

// checkIdentity says why Kafka could not start with these certificates; it checks itself
// with a handshake at its start.
func (i identity) checkIdentity(address string, now time.Time) error {
	if err := i.leaf.VerifyHostname(address); err != nil {
		return fmt.Errorf("the node's certificate does not name its address: %w", err)
	}
	intermediates := x509.NewCertPool()
	for _, der := range i.pair.Certificate[1:] {
		if cert, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(cert)
		}
	}
	_, err := i.leaf.Verify(x509.VerifyOptions{Roots: i.trust, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return fmt.Errorf("the node's certificate is not valid by ca.pem: %w", err)
	}
	return nil
}

// checkListeners says which file of a listener Kafka could not start without.
func (s *supervisor) checkListeners() error {
	for _, key := range layout.SecretKeys(s.static.Process, s.static.Roles) {
		data, err := os.ReadFile(s.tlsPath(key))
		if err != nil {
			return fmt.Errorf("a listener's file is missing: %w", err)
		}
		if len(data) == 0 {
			return fmt.Errorf("a listener's file is empty: %s", key)
		}
	}
	for _, l := range s.listeners {
		if l.OwnCertificate != "" {
			if _, err := s.certificateOf(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// certificateOf is the digest of a listener's own certificate, as its file has it.
func (s *supervisor) certificateOf(l layout.Listener) (string, error) {
	data, err := os.ReadFile(s.tlsPath(l.OwnCertificate))
	if err != nil {
		return "", fmt.Errorf("read the certificate of listener %s: %w", l.Client, err)
	}
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return "", fmt.Errorf("read the certificate of listener %s: %w", l.Client, err)
	}
	return digest(pair.Leaf.Raw), nil
}

// stamp changes when one of the TLS files does.
func (s *supervisor) stamp() string {
	names := []string{layout.KeyNodePEM, layout.KeyCAPEM}
	for _, l := range s.listeners {
		if l.OwnCertificate != "" {
			names = append(names, l.OwnCertificate)
		}
	}
	var stamp strings.Builder
	for _, name := range names {
		info, err := os.Stat(s.tlsPath(name))
		if err != nil {
			stamp.WriteString("-;")
			continue
		}
		inode := uint64(0)
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			inode = st.Ino
		}
		fmt.Fprintf(&stamp, "%d %d %d;", inode, info.Size(), info.ModTime().UnixNano())
	}
	return stamp.String()
}

func digest(der []byte) string {
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:])
}

const servedTimeout = 3 * time.Second

// servedDigest is the digest of the certificate that the TLS listeners serve. While they do
// not agree it is that of one which does not serve want; one with a certificate of its own must
// serve that.
func (s *supervisor) servedDigest(ctx context.Context, own identity, want string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, servedTimeout)
	defer cancel()
	served := ""
	for _, l := range s.listeners {
		if !layout.Secured(l.Protocol) {
			continue
		}
		got, err := servedBy(ctx, own, localAddress(l), s.static.Address)
		if err != nil {
			return "", fmt.Errorf("see which certificate listener %s serves: %w", l.Name, err)
		}
		if l.OwnCertificate != "" {
			if file, err := s.certificateOf(l); err == nil && got != file {
				return got, nil
			}
			continue
		}
		if got != want {
			return got, nil
		}
		served = got
	}
	return served, nil
}

func servedBy(ctx context.Context, own identity, address, name string) (string, error) {
	config := own.config()
	config.ServerName = name
	// What is served is the question here, whether it is trusted is not. Nor is whether the
	// node's own certificate is welcome there: on a listener for clients' certificates it is not.
	config.InsecureSkipVerify = true
	served := ""
	config.VerifyConnection = func(seen tls.ConnectionState) error {
		if len(seen.PeerCertificates) > 0 {
			served = digest(seen.PeerCertificates[0].Raw)
		}
		return nil
	}
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err == nil {
		defer conn.Close() //nolint:errcheck // nothing was sent
	}
	switch {
	case served != "":
		return served, nil
	case err != nil:
		return "", err
	default:
		return "", errors.New("it shows no certificate")
	}
}

// localAddress is where the node's own listener is reached from its host.
func localAddress(l layout.Listener) string {
	host := l.Bind
	if host == "0.0.0.0" {
		host = "127.0.0.1"
	}
	return layout.HostPort(host, l.Port)
}
