package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

// mount is a volume as a kubelet keeps it: its files are links through one link that is
// swapped, so that all of them change at once.
type mount string

func (m mount) publish(t *testing.T, files map[string]string) {
	t.Helper()
	mkdir(t, string(m))
	data, err := os.MkdirTemp(string(m), "..data-") //nolint:usetesting // in this very folder
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(string(m), "..data")
	before, _ := os.Readlink(link)
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(data, name), []byte(content), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Base(data), link+"_tmp"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link+"_tmp", link); err != nil {
		t.Fatal(err)
	}
	for name := range files {
		if err := os.Symlink("..data/"+name, filepath.Join(string(m), name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	if before != "" {
		if err := os.RemoveAll(filepath.Join(string(m), before)); err != nil {
			t.Fatal(err)
		}
	}
}

// mounts of a pod.
type mounts struct {
	static, live, tls, info mount
	stdout                  *output
}

func (m *mounts) of(name string) mount {
	if name == layout.LiveFile {
		return m.live
	}
	return m.static
}

// tell is what the API knows of the machine, as the downward API writes it.
func (m *mounts) tell(t *testing.T, placement *api.NodePlacement, zone string) {
	t.Helper()
	text := ""
	if placement != nil {
		data, err := json.Marshal(placement)
		if err != nil {
			t.Fatal(err)
		}
		text = string(data)
	}
	m.info.publish(t, map[string]string{layout.PlacementFile: text, layout.ZoneFile: zone})
}

// output is a container's standard output.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// podded makes a pod of a bench, on machine-1 of which nothing is known.
func (b *bench) podded() *bench {
	b.t.Helper()
	root := b.t.TempDir()
	at := func(name string) mount { return mount(filepath.Join(root, name)) }
	b.pod = &mounts{static: at("static"), live: at("live"), tls: at("tls"), info: at("pod"), stdout: &output{}}
	b.dir = string(at("state"))
	mkdir(b.t, b.dir)
	ports := freePorts(b.t, 2)
	b.config.Dir = b.dir
	b.config.Pod = &Pod{
		StaticDir: string(b.pod.static), LiveDir: string(b.pod.live), TLSDir: string(b.pod.tls), InfoDir: string(b.pod.info),
		Machine:       "machine-1",
		ReportAddress: fmt.Sprintf("127.0.0.1:%d", ports[0]), ProbeAddress: fmt.Sprintf("127.0.0.1:%d", ports[1]),
		Stdout:   b.pod.stdout,
		RackWait: time.Minute, NameWait: time.Minute, SyncWait: time.Minute,
	}
	b.pod.tell(b.t, nil, "")
	b.certify(1)
	return b
}

// probe asks as a kubelet does.
func (b *bench) probe(path string) (code int, text string) {
	b.t.Helper()
	response, err := http.Get("http://" + b.config.Pod.ProbeAddress + path)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close() //nolint:errcheck // of no consequence in a test
	data, err := io.ReadAll(response.Body)
	if err != nil {
		b.t.Error(err)
	}
	return response.StatusCode, string(data)
}

func operatorName() *pkix.Name {
	return &pkix.Name{CommonName: layout.OperatorPrincipal, Organization: []string{"castellan"}}
}

// caller is somebody with a certificate of a CA; without a subject it shows none.
func (b *bench) caller(ca *authority, subject *pkix.Name) *http.Client {
	b.t.Helper()
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM([]byte(b.ca.pem))
	config := &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12}
	if subject != nil {
		text, _ := ca.leafOf(b.t, *subject, 99)
		pair, err := tls.X509KeyPair([]byte(text), []byte(text))
		if err != nil {
			b.t.Fatal(err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// answer to a request for a report.
type reported struct {
	report layout.Report
	digest string
	leaf   *x509.Certificate
}

func (b *bench) reported(ctx context.Context, who *http.Client, query string) (int, reported, error) {
	b.t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+b.config.Pod.ReportAddress+"/report"+query, nil)
	if err != nil {
		return 0, reported{}, err
	}
	response, err := who.Do(request)
	if err != nil {
		return 0, reported{}, err
	}
	defer response.Body.Close() //nolint:errcheck // of no consequence in a test
	r := reported{digest: response.Header.Get("ETag"), leaf: response.TLS.PeerCertificates[0]}
	if response.StatusCode == http.StatusOK {
		err = json.NewDecoder(response.Body).Decode(&r.report)
	}
	return response.StatusCode, r, err
}
