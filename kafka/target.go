package kafka

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
)

// Target says where one cluster listens and with what to identify ourselves.
type Target struct {
	// Brokers are the INTERNAL listeners, host:port.
	Brokers []string
	// Controllers are the CONTROLLER listeners, host:port.
	Controllers []string
	// ClusterID is the one that must answer: nothing of another cluster is believed and nothing in it is changed.
	// Empty accepts any, for before the first start.
	ClusterID string
	// TLS is the client's certificate and trust; nil means plaintext.
	TLS *tls.Config
}

func (t Target) validate() error {
	if len(t.Brokers)+len(t.Controllers) == 0 {
		return errors.New("no broker and no controller address is known")
	}
	for _, addr := range slices.Concat(t.Brokers, t.Controllers) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return fmt.Errorf("address %q is not host:port: %w", addr, err)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
			return fmt.Errorf("address %q is not host:port with a port from 1 to 65535", addr)
		}
	}
	return nil
}

func (t Target) equal(o Target) bool {
	return t.ClusterID == o.ClusterID && slices.Equal(t.Brokers, o.Brokers) &&
		slices.Equal(t.Controllers, o.Controllers) &&
		sameTLS(t.TLS, o.TLS)
}

// sameTLS is true when connections made with a are as good as ones made with b. Configurations that
// choose certificates by callback are the same only when they are one object.
func sameTLS(a, b *tls.Config) bool {
	if a == b {
		return true
	}
	if a == nil || b == nil {
		return false
	}
	return !callsBack(a) && !callsBack(b) && a.ServerName == b.ServerName && a.MinVersion == b.MinVersion &&
		a.InsecureSkipVerify == b.InsecureSkipVerify &&
		(a.RootCAs == b.RootCAs || a.RootCAs != nil && a.RootCAs.Equal(b.RootCAs)) &&
		slices.EqualFunc(a.Certificates, b.Certificates, func(x, y tls.Certificate) bool {
			return slices.EqualFunc(x.Certificate, y.Certificate, bytes.Equal)
		})
}

func callsBack(c *tls.Config) bool {
	return c.GetClientCertificate != nil || c.VerifyPeerCertificate != nil || c.VerifyConnection != nil
}
