package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// ClientConfig says how a user's client connects.
type ClientConfig struct {
	// Brokers to begin with, host:port.
	Brokers []string
	// TLS to speak it; nil means plaintext.
	TLS *tls.Config
	// ID shows in Kafka's logs and quotas; empty means castellan.
	ID string
	// Login proves who the client is by SCRAM-SHA-512; nil sends nothing.
	Login *Login
	// Dial opens the connections; nil means the network.
	Dial DialFunc
}

// Login is a name and its password.
type Login struct{ User, Password string }

// Client is a user's connection: topics, producing, consuming. Its methods may be used at once by many.
type Client struct {
	opts  []kgo.Opt
	admin *kadm.Client
}

// Dial connects and makes sure that a broker answers within 10 seconds.
func Dial(ctx context.Context, config ClientConfig) (*Client, error) {
	const patience = 10 * time.Second
	if err := (Target{Brokers: config.Brokers}).validate(); err != nil {
		return nil, fmt.Errorf("connect to Kafka: %w", err)
	}
	id := config.ID
	if id == "" {
		id = "castellan"
	}
	opts := append([]kgo.Opt{
		kgo.ClientID(id),
		kgo.SoftwareNameAndVersion("castellan", "1"),
		kgo.SeedBrokers(config.Brokers...),
		kgo.DisableClientMetrics(),
	}, dialing(config.Dial, config.TLS)...)
	if l := config.Login; l != nil {
		opts = append(opts, kgo.SASL(scram.Auth{User: l.User, Pass: l.Password}.AsSha512Mechanism()))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Kafka at %v: %w", config.Brokers, err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := client.Ping(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("connect to Kafka at %v: %w; check the address and whether that listener wants TLS", config.Brokers, err)
	}
	return &Client{opts: opts, admin: kadm.NewClient(client)}, nil
}

// Reach makes sure that somebody listens at one of the brokers, and with TLS that its certificate is trusted. Nobody is
// logged in.
func Reach(ctx context.Context, config ClientConfig) error {
	dial := config.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	var failed error
	for _, broker := range config.Brokers {
		conn, err := dial.secured(config.TLS)(ctx, "tcp", broker)
		if err == nil {
			return conn.Close()
		}
		failed = errors.Join(failed, err)
	}
	return fmt.Errorf("reach Kafka at %v: %w", config.Brokers, failed)
}

// Close ends the connections.
func (c *Client) Close() { c.admin.Close() }

func (c *Client) with(opts ...kgo.Opt) (*kgo.Client, error) {
	client, err := kgo.NewClient(append(slices.Clip(c.opts), opts...)...)
	if err != nil {
		return nil, fmt.Errorf("set up a client: %w", err)
	}
	return client, nil
}

// TLSFiles are PEM files to speak TLS with.
type TLSFiles struct {
	// CA to trust; empty means the system's.
	CA string
	// Cert and Key identify the client; both or none.
	Cert, Key string
}

// LoadTLS reads them.
func LoadTLS(files TLSFiles) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if files.CA != "" {
		pem, err := os.ReadFile(files.CA)
		if err != nil {
			return nil, fmt.Errorf("read the trusted CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the trusted CA: %s holds no PEM certificate", files.CA)
		}
	}
	if (files.Cert == "") != (files.Key == "") {
		return nil, errors.New("a client certificate and its key go together: give both or none")
	}
	if files.Cert != "" {
		pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
