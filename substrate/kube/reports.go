package kube

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"castellan.dev/castellan/core/layout"
)

// Bounds of the reports.
const (
	pollWait    = 25 * time.Second // how long a supervisor may hold an answer back
	pollTimeout = pollWait + 15*time.Second
	reportAge   = 60 * time.Second // an older report says nothing of now
	reportBytes = 1 << 20
	retryFirst  = time.Second
	retryMost   = 15 * time.Second
	// bufferBytes is what a connection keeps for itself: there is one for each pod, and a
	// report is small.
	bufferBytes = 1 << 10
)

// Target is the pod whose reports are read.
type Target struct {
	Cluster types.NamespacedName
	Pod     types.UID
	IP      string
	// Name is in the pod's certificate: the node's address.
	Name string
}

// TLSFunc gives the operator's way to speak TLS to the nodes of a cluster.
type TLSFunc func(ctx context.Context, cluster types.NamespacedName) (*tls.Config, error)

// DialFunc dials host:port of a pod, as net.Dialer.DialContext does.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Reports follows what the supervisors of pods say, one connection each, on which an answer
// comes when there is something new. It asks the API server nothing.
type Reports struct {
	tls     TLSFunc
	dial    DialFunc
	changed func(node types.NamespacedName)

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // the time for which all of it runs, given by Start
	running sync.WaitGroup
	nodes   map[types.NamespacedName]*followed
}

// followed is what was last heard of a node.
type followed struct {
	target Target
	stop   context.CancelFunc // nil until it runs
	report *layout.Report
	digest string
	at     time.Time
	err    string
}

// NewReports follows nothing yet. Changed is called, from any goroutine, whenever a node's
// report or the reason for having none is another one; dial nil dials the pod directly.
func NewReports(config TLSFunc, dial DialFunc, changed func(node types.NamespacedName)) *Reports {
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	return &Reports{tls: config, dial: dial, changed: changed, nodes: map[types.NamespacedName]*followed{}}
}

// Start follows all that it was told to until ctx ends, and returns when nothing runs any
// more. It is a Runnable for the manager, which runs it where the controllers run.
func (r *Reports) Start(ctx context.Context) error {
	r.mu.Lock()
	r.ctx = ctx
	for key, f := range r.nodes {
		r.run(key, f) //nolint:contextcheck // it is r.ctx
	}
	r.mu.Unlock()
	<-ctx.Done()
	r.mu.Lock()
	r.ctx = nil
	r.mu.Unlock()
	r.running.Wait()
	return nil
}

// Follow reads the reports of a node from this pod on. It costs nothing to say so again.
func (r *Reports) Follow(node types.NamespacedName, target Target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, ok := r.nodes[node]; ok {
		if f.target == target {
			return
		}
		f.end()
	}
	f := &followed{target: target}
	r.nodes[node] = f
	r.run(node, f)
}

// Forget ends the reading of a node's reports.
func (r *Reports) Forget(node types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, ok := r.nodes[node]; ok {
		f.end()
		delete(r.nodes, node)
	}
}

func (f *followed) end() {
	if f.stop != nil {
		f.stop()
	}
}

// Get is the report of this very pod, nil without one of the last minute; then why says
// why.
func (r *Reports) Get(node types.NamespacedName, pod types.UID) (report *layout.Report, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.nodes[node]
	switch {
	case !ok || f.target.Pod != pod:
		return nil, ""
	case f.report == nil || time.Since(f.at) > reportAge:
		return nil, f.err
	}
	copied := *f.report
	return &copied, ""
}

// run is called with the lock held.
func (r *Reports) run(node types.NamespacedName, f *followed) {
	if r.ctx == nil || r.ctx.Err() != nil || f.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(r.ctx)
	f.stop = stop
	r.running.Go(func() {
		defer stop()
		r.loop(ctx, node, f)
	})
}

// loop polls until its end. A connection that breaks is made anew at once; when that fails,
// too, what was heard before is believed no more, since the process may be another one by
// then, and further tries slow down.
func (r *Reports) loop(ctx context.Context, node types.NamespacedName, f *followed) {
	retries := wait.Backoff{Duration: retryFirst, Factor: 2, Jitter: 0.2, Cap: retryMost, Steps: 10}
	slow, after, failures := retries, "", 0
	var c *http.Client
	for ctx.Err() == nil {
		var err error
		if c == nil {
			c, err = r.client(ctx, f.target)
		}
		if err == nil {
			after, err = r.poll(ctx, c, node, f, after)
		}
		if err == nil {
			slow, failures = retries, 0
			continue
		}
		if c != nil {
			c.CloseIdleConnections()
			c = nil // the next one has the certificates of that time
		}
		if failures++; failures > 1 {
			r.failed(ctx, node, f, err)
			sleep(ctx, slow.Step())
		}
	}
	if c != nil {
		c.CloseIdleConnections()
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (r *Reports) client(ctx context.Context, t Target) (*http.Client, error) {
	config, err := r.tls(ctx, t.Cluster)
	if err != nil {
		return nil, err
	}
	config = config.Clone()
	config.ServerName = t.Name
	address := net.JoinHostPort(t.IP, strconv.Itoa(int(layout.ReportPort)))
	return &http.Client{
		Timeout: pollTimeout,
		Transport: &http.Transport{
			TLSClientConfig: config, TLSHandshakeTimeout: 10 * time.Second, MaxIdleConns: 1,
			ReadBufferSize: bufferBytes, WriteBufferSize: bufferBytes,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) { return r.dial(ctx, network, address) },
		},
		// Who is sent elsewhere is not at the supervisor.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// poll asks once for another report than the one with this digest, and returns the digest
// of the one it got.
func (r *Reports) poll(ctx context.Context, c *http.Client, node types.NamespacedName, f *followed, after string) (digest string, err error) {
	query := url.Values{}
	if after != "" {
		query.Set("after", after)
		query.Set("wait", strconv.Itoa(int(pollWait.Seconds())))
	}
	to := url.URL{Scheme: "https", Host: net.JoinHostPort(f.target.Name, strconv.Itoa(int(layout.ReportPort))), Path: "/report", RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return "", fmt.Errorf("ask for the report: %w", err)
	}
	response, err := c.Do(request)
	if err != nil {
		return "", fmt.Errorf("ask for the report: %w", err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	data, err := io.ReadAll(io.LimitReader(response.Body, reportBytes))
	if err != nil {
		return "", fmt.Errorf("read the report: %w", err)
	}
	digest = response.Header.Get("ETag")
	if response.StatusCode != http.StatusOK || digest == "" {
		return "", fmt.Errorf("port %d answers %s (ETag %q) to a question for the report, as no supervisor does", layout.ReportPort, response.Status, digest)
	}
	var report layout.Report
	if err := json.Unmarshal(data, &report); err != nil {
		return "", fmt.Errorf("read the report: %w: the supervisor may be of another version than the operator", err)
	}
	r.heard(ctx, node, f, &report, digest)
	return digest, nil
}

func (r *Reports) heard(ctx context.Context, node types.NamespacedName, f *followed, report *layout.Report, digest string) {
	r.mu.Lock()
	news := f.report == nil || f.digest != digest || f.err != ""
	f.report, f.digest, f.at, f.err = report, digest, time.Now(), ""
	r.mu.Unlock()
	if news && ctx.Err() == nil {
		r.changed(node)
	}
}

func (r *Reports) failed(ctx context.Context, node types.NamespacedName, f *followed, err error) {
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	why := plainly(err)
	news := f.report != nil || f.err != why
	f.report, f.err = nil, why
	r.mu.Unlock()
	if news {
		r.changed(node)
	}
}

// plainly says why there is no report in the same words each time: what differs between two
// tries, such as our own port, would look like news.
func plainly(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Sprintf("%s port %d of the pod: %v", op.Op, layout.ReportPort, op.Err)
	}
	return err.Error()
}
