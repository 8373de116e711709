package endpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// answer is what one connection told.
type answer struct {
	chain    []*x509.Certificate
	accepted bool
	// err is why it told nothing of whether the identity is accepted.
	err error
}

// try connects once. TLS 1.2 tells in its handshake whether a certificate was accepted; in TLS 1.3 the client knows only
// when it is answered, so that is for listeners that speak nothing else.
func (l Looker) try(ctx context.Context, e Endpoint, id *Identity) answer {
	a := l.connect(ctx, e, id, tls.VersionTLS12)
	if len(a.chain) == 0 && isAlert(a.err, "protocol version") {
		a = l.connect(ctx, e, id, tls.VersionTLS13)
	}
	return a
}

func (l Looker) connect(ctx context.Context, e Endpoint, id *Identity, version uint16) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	raw, err := l.dial(ctx, e.Address)
	if err != nil {
		a.err = err
		return a
	}
	defer raw.Close() //nolint:errcheck // what it told is known
	asked := false
	config := &tls.Config{
		MinVersion: version, MaxVersion: version,
		// What is presented is the question here, whether it is trusted is not.
		InsecureSkipVerify: true, //nolint:gosec // nothing is believed, and nothing secret is sent
		VerifyConnection: func(c tls.ConnectionState) error {
			a.chain = c.PeerCertificates
			return nil
		},
		// Shown whatever CAs the listener names: some name none, and ours have like names.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			if id == nil {
				return &tls.Certificate{}, nil
			}
			return &id.Certificate, nil
		},
	}
	conn := tls.Client(raw, config)
	err = conn.HandshakeContext(ctx)
	if err == nil && version == tls.VersionTLS13 && id != nil {
		err = apiVersions(ctx, conn)
	}
	switch {
	case id == nil && len(a.chain) > 0: // it was only to present
	case isAlert(err, "certificate"):
	case err != nil:
		a.err = fmt.Errorf("TLS: %w", err)
	case id != nil && !asked:
		a.err = errors.New("it asks for no certificate, so whom it trusts cannot be seen")
	default:
		a.accepted = id != nil
	}
	return a
}

func (l Looker) dial(ctx context.Context, address string) (net.Conn, error) {
	if l.Dial != nil {
		return l.Dial(ctx, "tcp", address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// reason is an error without what differs each time, such as our own port.
func reason(err error) string {
	var op *net.OpError
	if !errors.As(err, &op) || op.Err == nil {
		return err.Error()
	}
	return strings.Replace(err.Error(), op.Error(), op.Op+": "+op.Err.Error(), 1)
}

// isAlert says that the other side sent a TLS alert about something. Those of RFC 8446 that refuse a certificate all have
// that word in their name; crypto/tls exports no numbers.
func isAlert(err error, about string) bool {
	var alert *net.OpError
	return errors.As(err, &alert) && alert.Op == "remote error" && strings.Contains(alert.Err.Error(), about)
}

// apiVersions asks what every listener answers to everybody who got through TLS (KIP-511).
func apiVersions(ctx context.Context, conn net.Conn) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	const id = 1
	request := kmsg.NewRequestFormatter(kmsg.FormatterClientID("castellan")).AppendRequest(nil, kmsg.NewPtrApiVersionsRequest(), id)
	_, sent := conn.Write(request) // a refusal may come before it is out
	var head [8]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return errors.Join(err, sent)
	}
	if got := binary.BigEndian.Uint32(head[4:]); got != id {
		return fmt.Errorf("it is no Kafka: an answer to request %d came, the first was sent", got)
	}
	return nil
}
