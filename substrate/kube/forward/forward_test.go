package forward_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"castellan.dev/castellan/substrate/kube/forward"
)

const podPort = 9092

// apiServer is as much of an API server and its kubelets as port-forwarding needs: every
// pod upper-cases what it is sent on podPort, and has nothing on any other port.
type apiServer struct {
	*httptest.Server
	websockets bool

	mu       sync.Mutex
	pods     map[string]corev1.Pod
	services map[string]corev1.Service
	tunnels  map[string]int
	open     []httpstream.Connection
}

func serve(t *testing.T, websockets bool) (*apiServer, *forward.Dialer) {
	t.Helper()
	s := &apiServer{websockets: websockets, pods: map[string]corev1.Pod{}, services: map[string]corev1.Service{}, tunnels: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/namespaces/kafka/pods/{name}/portforward", s.forward)
	mux.HandleFunc("GET /api/v1/namespaces/kafka/pods", s.list)
	mux.HandleFunc("GET /api/v1/namespaces/kafka/services/{name}", s.service)
	s.Server = httptest.NewServer(mux)
	d, err := forward.New(&rest.Config{Host: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		s.endAll()
		s.Close()
	})
	return s, d
}

func (s *apiServer) add(name string, ready bool, labels map[string]string) {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods[name] = corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: name, Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "client", ContainerPort: podPort}}}}},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}},
	}
}

func answer(w http.ResponseWriter, code int, object any) {
	data, err := json.Marshal(object)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(data)
}

func notFound(w http.ResponseWriter, kind, name string) {
	answer(w, http.StatusNotFound, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound, Message: fmt.Sprintf("%s %q not found", kind, name),
	})
}

func (s *apiServer) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}}
	selector, err := metav1.ParseToLabelSelector(r.URL.Query().Get("labelSelector"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	matches, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for _, p := range s.pods {
		if matches.Matches(labelSet(p.Labels)) {
			list.Items = append(list.Items, p)
		}
	}
	answer(w, http.StatusOK, list)
}

type labelSet map[string]string

func (l labelSet) Has(key string) bool              { _, ok := l[key]; return ok }
func (l labelSet) Get(key string) string            { return l[key] }
func (l labelSet) Lookup(key string) (string, bool) { v, ok := l[key]; return v, ok }

func (s *apiServer) service(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	service, ok := s.services[r.PathValue("name")]
	if !ok {
		notFound(w, "services", r.PathValue("name"))
		return
	}
	service.TypeMeta = metav1.TypeMeta{Kind: "Service", APIVersion: "v1"}
	answer(w, http.StatusOK, service)
}

func (s *apiServer) forward(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	s.mu.Lock()
	_, ok := s.pods[name]
	s.mu.Unlock()
	if !ok {
		notFound(w, "pods", name)
		return
	}
	p := &podEnd{name: name, streams: map[string]httpstream.Stream{}}
	var conn httpstream.Connection
	if websocket.IsWebSocketUpgrade(r) {
		if !s.websockets {
			http.Error(w, "this server knows no WebSockets", http.StatusBadRequest)
			return
		}
		upgrader := websocket.Upgrader{Subprotocols: []string{"SPDY/3.1+" + portforward.PortForwardProtocolV1Name}}
		socket, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		if conn, err = spdy.NewServerConnection(portforward.NewTunnelingConnection("server", socket), p.accept); err != nil {
			return
		}
	} else {
		if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardProtocolV1Name}); err != nil {
			return
		}
		if conn = spdy.NewResponseUpgrader().UpgradeResponse(w, r, p.accept); conn == nil {
			return
		}
	}
	s.mu.Lock()
	s.tunnels[name]++
	s.open = append(s.open, conn)
	s.mu.Unlock()
	<-conn.CloseChan()
}

// endAll ends every tunnel, as a restart of the API server does.
func (s *apiServer) endAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.open {
		_ = c.Close()
	}
	s.open = nil
}

func (s *apiServer) opened(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tunnels[name]
}

// podEnd is the kubelet's end of one tunnel.
type podEnd struct {
	name    string
	mu      sync.Mutex
	streams map[string]httpstream.Stream
}

func (p *podEnd) accept(stream httpstream.Stream, replySent <-chan struct{}) error {
	id := stream.Headers().Get(corev1.PortForwardRequestIDHeader)
	p.mu.Lock()
	defer p.mu.Unlock()
	if stream.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
		p.streams[id] = stream
		return nil
	}
	failure := p.streams[id]
	go func() {
		<-replySent
		defer func() { _ = failure.Close(); _ = stream.Close() }()
		if port := stream.Headers().Get(corev1.PortHeader); port != fmt.Sprint(podPort) {
			_, _ = fmt.Fprintf(failure, "dial tcp4 127.0.0.1:%s: connect: connection refused", port)
			return
		}
		_, _ = fmt.Fprintf(stream, "%s\n", p.name)
		buffer := make([]byte, 4096)
		for {
			n, err := stream.Read(buffer)
			if n > 0 {
				_, _ = stream.Write([]byte(strings.ToUpper(string(buffer[:n]))))
			}
			if err != nil {
				return
			}
		}
	}()
	return nil
}

// talk sends a text over a fresh connection and returns who answered.
func talk(t *testing.T, d *forward.Dialer, address string) string {
	t.Helper()
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return greet(t, conn)
}

func greet(t *testing.T, conn net.Conn) string {
	t.Helper()
	name := line(t, conn)
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	if got := line(t, conn); got != "HELLO" {
		t.Fatalf("%s answered %q", name, got)
	}
	return name
}

func line(t *testing.T, r io.Reader) string {
	t.Helper()
	var text []byte
	for one := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, one); err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
		if one[0] == '\n' {
			return string(text)
		}
		text = append(text, one[0])
	}
}

func TestPodsAreReachedByWebSocketAndBySPDY(t *testing.T) {
	for name, websockets := range map[string]bool{"WebSocket": true, "SPDY": false} {
		t.Run(name, func(t *testing.T) {
			s, d := serve(t, websockets)
			s.add("orders-0-0", true, nil)
			for _, suffix := range []string{"", ".cluster.local", ".cluster.local."} {
				if got := talk(t, d, "orders-0-0.orders-nodes.kafka.svc"+suffix+":9092"); got != "orders-0-0" {
					t.Errorf("reached %s", got)
				}
			}
			if n := s.opened("orders-0-0"); n != 1 {
				t.Errorf("three connections took %d tunnels", n)
			}
		})
	}
}

func TestConnectionsOfOneTunnelAreIndependent(t *testing.T) {
	s, d := serve(t, true)
	s.add("p", true, nil)
	const address = "p.nodes.kafka.svc:9092"
	first, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	greet(t, first)
	talk(t, d, address) // opened and closed beside it
	if _, err := first.Write([]byte("still here\n")); err != nil {
		t.Fatal(err)
	}
	if got := line(t, first); got != "STILL HERE" {
		t.Errorf("got %q", got)
	}
	if first.RemoteAddr().String() != address {
		t.Errorf("remote address %s", first.RemoteAddr())
	}
	if err := first.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent pod gave %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhatThePodRefusesIsTold(t *testing.T) {
	s, d := serve(t, true)
	s.add("p", true, nil)
	conn, err := d.DialContext(t.Context(), "tcp", "p.nodes.kafka.svc:1234")
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Read(make([]byte, 1))
	if err == nil || !strings.Contains(err.Error(), "port 1234 of pod kafka/p: dial tcp4 127.0.0.1:1234: connect: connection refused") {
		t.Errorf("read: %v", err)
	}
	_ = conn.Close()
	if got := talk(t, d, "p.nodes.kafka.svc:9092"); got != "p" {
		t.Errorf("after a refusal reached %s", got)
	}
	_, err = d.DialContext(t.Context(), "tcp", "gone.nodes.kafka.svc:9092")
	if err == nil || !strings.Contains(err.Error(), `pods "gone" not found`) {
		t.Errorf("dial of no pod: %v", err)
	}
}

func TestAnEndedTunnelIsOpenedAgain(t *testing.T) {
	s, d := serve(t, true)
	s.add("p", true, nil)
	conn, err := d.DialContext(t.Context(), "tcp", "p.nodes.kafka.svc:9092")
	if err != nil {
		t.Fatal(err)
	}
	greet(t, conn)
	s.endAll()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlived its tunnel")
	}
	if got := talk(t, d, "p.nodes.kafka.svc:9092"); got != "p" {
		t.Errorf("reached %s", got)
	}
	if n := s.opened("p"); n != 2 {
		t.Errorf("%d tunnels", n)
	}
}

func TestServicesLeadToReadyPods(t *testing.T) {
	s, d := serve(t, true)
	broker := map[string]string{"castellan.dev/cluster": "orders", "castellan.dev/role-broker": "true"}
	s.add("orders-0-0", false, broker)
	s.add("orders-1-0", true, broker)
	s.add("orders-2-0", true, broker)
	s.add("web", true, map[string]string{"app": "web"})
	s.services["web"] = corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "web"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"},
			Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("client")}},
		},
	}
	met := map[string]bool{}
	for range 4 {
		met[talk(t, d, "orders-bootstrap.kafka.svc:9092")] = true
	}
	if !met["orders-1-0"] || !met["orders-2-0"] || len(met) != 2 {
		t.Errorf("the bootstrap Service led to %v", met)
	}
	if got := talk(t, d, "web.kafka.svc.cluster.local:80"); got != "web" {
		t.Errorf("Service web led to %s", got)
	}
	for address, want := range map[string]string{
		"web.kafka.svc:81":               "has no port 81; it has: 80",
		"none-bootstrap.kafka.svc:9092":  "neither a Service kafka/none-bootstrap nor a ready pod",
		"orders-0-0.nodes.kafka.svc":     "is not host:port",
		"orders-0-0.nodes.kafka.svc:0":   "has no port from 1",
		"orders-0-0.nodes.kafka.svc:abc": "has no port from 1",
	} {
		if _, err := d.DialContext(t.Context(), "tcp", address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
	s.add("web", false, map[string]string{"app": "web"})
	if _, err := d.DialContext(t.Context(), "tcp", "web.kafka.svc:80"); err == nil || !strings.Contains(err.Error(), "not ready: web") {
		t.Errorf("a Service without ready pods: %v", err)
	}
}

func TestOtherAddressesAreDialedDirectly(t *testing.T) {
	_, d := serve(t, true)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	conn, err := d.DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestADialEndsWithItsContextAndWithTheDialer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	d, err := forward.New(&rest.Config{Host: "http://" + silent.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := d.DialContext(ctx, "tcp", "p.nodes.kafka.svc:9092"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent API server: %v", err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := d.DialContext(context.WithoutCancel(ctx), "tcp", "p.nodes.kafka.svc:9092")
		waiting <- err
	}()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; err == nil {
		t.Error("a closed Dialer has dialed")
	}
}
