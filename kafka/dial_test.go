package kafka_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/kafkatest"
)

// tunnel dials the fake whatever it is asked for, and notes what that was.
func tunnel(asked chan<- string, to string) kafka.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		asked <- address
		return new(net.Dialer).DialContext(ctx, network, to)
	}
}

func TestDialGoesThroughTheGivenFunction(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 1})
	asked := make(chan string, 100)
	const address = "orders-0-0.orders-nodes.kafka.svc:9092"
	through := tunnel(asked, fake.Brokers.ListenAddrs()[0])
	client, err := kafka.Dial(t.Context(), kafka.ClientConfig{Brokers: []string{address}, Dial: through})
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	if got := <-asked; got != address {
		t.Errorf("dialed %s", got)
	}
	clients := kafka.NewClients(kafka.Options{Timeout: 5 * time.Second, Dial: through})
	defer clients.Close()
	target := fake.Target()
	target.Brokers = []string{address}
	k, err := clients.Cluster("a", target).Observe(t.Context(), plan.Ask{})
	if err != nil || !k.Known {
		t.Errorf("observed %+v, %v", k, err)
	}
}

func TestDialSpeaksTLSToTheNameThatIsDialed(t *testing.T) {
	cert, ca := certificate(t)
	fake := kafkatest.NewFake(t, kafkatest.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}})
	config, err := kafka.LoadTLS(kafka.TLSFiles{CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	through := tunnel(make(chan string, 100), fake.Brokers.ListenAddrs()[0])
	client, err := kafka.Dial(t.Context(), kafka.ClientConfig{Brokers: []string{"127.0.0.1:1"}, TLS: config, Dial: through})
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	_, err = kafka.Dial(t.Context(), kafka.ClientConfig{Brokers: []string{"somebody-else:1"}, TLS: config, Dial: through})
	if err == nil || !strings.Contains(err.Error(), "speak TLS to somebody-else:1") {
		t.Errorf("a certificate for another name was taken: %v", err)
	}
}

func TestDialTellsWhyItFailed(t *testing.T) {
	refused := errors.New("pod orders-0-0 does not exist")
	_, err := kafka.Dial(t.Context(), kafka.ClientConfig{
		Brokers: []string{"x:1"},
		Dial:    func(context.Context, string, string) (net.Conn, error) { return nil, refused },
	})
	if !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
}
