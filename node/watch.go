package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/kafka"
)

const (
	watchEvery   = time.Second     // look at files, and at Kafka while it is not ready
	readyEvery   = 5 * time.Second // look at Kafka once it is ready
	probeTimeout = 4 * time.Second
	// silentAfter is how many questions in a row a ready node may leave unanswered.
	silentAfter = 3
	// How often a pod's replicas are looked at until they are in sync, and then. Where that
	// takes long it is asked for accordingly less.
	outOfSyncEvery = 2 * time.Second
	inSyncEvery    = 30 * time.Second
	syncShare      = 20
)

// watcher says how the running Kafka is: ready or why not, and which certificate it serves.
// It belongs to one goroutine.
type watcher struct {
	s     *supervisor
	probe *kafka.Probe
	own   identity
	stamp string
	bad   string // the stamp of files that could not be used
	// unseen is true until the listeners were seen to serve the files' certificate.
	unseen bool
	next   time.Time
	sync   time.Time // the next look at the replicas
	silent int
	log    *logReader
}

func newWatcher(s *supervisor, log *logReader) *watcher {
	return &watcher{s: s, log: log}
}

// run returns when ctx ends.
func (w *watcher) run(ctx context.Context) {
	defer w.close()
	for {
		now := w.s.config.now()
		w.certificates(ctx)
		if w.probe != nil && !now.Before(w.next) {
			w.ask(ctx)
			w.next = now.Add(watchEvery)
			if w.s.report.get().Ready {
				w.next = now.Add(readyEvery)
			}
		}
		if w.s.config.Pod != nil {
			w.replicas(ctx)
			w.s.keepPlacement(ctx)
		}
		if !pause(ctx, watchEvery) {
			return
		}
	}
}

func (w *watcher) close() {
	if w.probe != nil {
		w.probe.Close()
	}
}

// certificates follows the TLS files and looks at what the listeners serve after a change.
func (w *watcher) certificates(ctx context.Context) {
	if stamp := w.s.stamp(); stamp != w.stamp {
		own, err := w.s.readIdentity()
		if err != nil {
			if w.bad != stamp {
				w.s.log.WarnContext(ctx, "keep the last good certificate", errorAttr(err))
			}
			w.bad = stamp
			return // half replaced: the engine keeps the last good one as well
		}
		w.stamp, w.own, w.unseen = stamp, own, true
		w.close()
		w.probe = kafka.NewProbe(w.s.self(own))
	}
	if !w.unseen {
		return
	}
	want := digest(w.own.leaf.Raw)
	got, err := w.s.servedDigest(ctx, w.own, want)
	if err != nil {
		return // not listening yet, or not any more: the probe says so
	}
	w.unseen = got != want
	w.s.report.set(func(r *layout.Report) { r.CertificateDigest = got })
}

// self is the node as the probe sees it.
func (s *supervisor) self(own identity) kafka.Self {
	self := kafka.Self{ID: s.static.NodeID, ServerName: s.static.Address, TLS: own.config()}
	for _, l := range s.listeners {
		switch l.Name {
		case layout.InternalListener:
			self.Broker = localAddress(l)
		case layout.ControllerListener:
			self.Controller = localAddress(l)
		}
	}
	if volumes := s.report.get().Volumes; len(volumes) > 0 {
		self.DirectoryID = volumes[0].DirectoryID
	}
	return self
}

func (w *watcher) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	health, err := w.probe.Health(ctx)
	if err != nil {
		if ctx.Err() != nil && w.s.stopping() {
			return
		}
		w.unanswered(err)
		return
	}
	w.silent = 0
	w.tell(health.Ready, health.Reason, health.Message)
}

// replicas looks whether a ready pod's replicas are in sync.
func (w *watcher) replicas(ctx context.Context) {
	now := w.s.config.now()
	switch {
	case w.probe == nil || !w.s.report.get().Ready:
		w.sync = time.Time{}
		return
	case now.Before(w.sync):
		return
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	found, err := w.probe.InSync(ctx)
	every := outOfSyncEvery
	switch {
	case err != nil: // the question for its health says it, should it last
	case found.OutOfSync > 0:
		w.s.report.setSync(false, fmt.Sprintf("%d of %d replicas of this broker are not in the ISR, %s for one", found.OutOfSync, found.Replicas, found.Example))
	default:
		w.s.report.setSync(true, "")
		every = inSyncEvery
	}
	took := w.s.config.now().Sub(now)
	w.sync = now.Add(max(every, syncShare*took))
}

// unanswered takes a ready node's readiness away only after several questions in a row.
func (w *watcher) unanswered(err error) {
	w.silent++
	switch {
	case w.s.report.get().Ready && w.silent < silentAfter:
	case w.s.wasReady:
		w.tell(false, ReasonNotResponding, clip(fmt.Sprintf("Kafka gives no answer: %v", err), 500))
	default:
		reason, message := w.log.progress()
		w.tell(false, reason, message+clip(fmt.Sprintf(" (asked it: %v)", err), 300))
	}
}

func (w *watcher) tell(ready bool, reason, message string) {
	if missing := unnamed(w.own.leaf, w.s.landed.names); missing != "" {
		message = strings.TrimPrefix(message+"; "+nameless(missing), "; ")
	}
	before := w.s.report.get()
	if before.Ready != ready || before.Reason != reason {
		w.s.log.Info("node", slog.Bool("ready", ready), slog.String("reason", reason), slog.String("message", message))
	}
	if ready {
		w.s.wasReady = true
	}
	w.s.report.set(func(r *layout.Report) {
		if r.State == api.NodeStopping {
			return
		}
		r.State, r.Ready, r.Reason, r.Message = api.NodeStarting, ready, reason, message
		r.InSync = r.InSync && ready
		if ready {
			r.State = api.NodeRunning
		}
	})
}

// logReader reads what Kafka has logged since its start.
type logReader struct {
	path string
	from int64
	at   int64
	rest string
	// recovering between Kafka's "Loading logs" and "Loaded … logs".
	recovering bool
	last       string
}

// readLog remembers where the file ends now.
func readLog(path string) *logReader {
	l := &logReader{path: path}
	if info, err := os.Stat(path); err == nil {
		l.from = info.Size()
	}
	l.at = l.from
	return l
}

// progress says how far Kafka's start is, so that nobody ends a broker that repairs its logs.
func (l *logReader) progress() (reason, message string) {
	for _, line := range l.news() {
		switch {
		case strings.Contains(line, "Loading logs from log dirs"):
			l.recovering = true
		case strings.Contains(line, " Loaded ") && strings.Contains(line, " logs in "):
			l.recovering = false
		}
		if l.recovering && (strings.Contains(line, " Recovering ") || strings.Contains(line, "Completed load of ")) {
			l.last = line
		}
	}
	if l.recovering {
		return ReasonLogRecovery, "Kafka loads and repairs its logs, which may take minutes after a crash; it must not be ended now" + clip(l.detail(), 300)
	}
	return ReasonStarting, "Kafka is starting"
}

// detail is the last step of the recovery that Kafka told.
func (l *logReader) detail() string {
	if l.last == "" {
		return ""
	}
	return ": " + l.last
}

// news are the lines since the last call; a file that has become shorter is a new one.
func (l *logReader) news() []string {
	const most = 4 << 20
	info, err := os.Stat(l.path)
	if err != nil {
		return nil
	}
	if info.Size() < l.at {
		l.at, l.from, l.rest = 0, 0, ""
	}
	if info.Size()-l.at > most {
		l.at = info.Size() - most
	}
	data, err := readFrom(l.path, l.at, info.Size()-l.at)
	if err != nil || len(data) == 0 {
		return nil
	}
	l.at += int64(len(data))
	lines := strings.Split(l.rest+string(data), "\n")
	l.rest = lines[len(lines)-1]
	return lines[:len(lines)-1]
}

func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
