package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"castellan.dev/castellan/core/layout"
)

// endpoint is one place at which the supervisor answers.
type endpoint struct {
	server *http.Server
	served chan struct{}
	// leave ends the requests that wait for another report.
	leave context.CancelFunc
	// folder holds a unix socket's path.
	folder *os.File
}

const (
	closeWait = time.Second
	// longestWait for another report, and longestAnswer to any request.
	longestWait   = time.Minute
	longestAnswer = longestWait + 30*time.Second
)

// open answers at all places of the node.
func (s *supervisor) open(ctx context.Context) ([]*endpoint, error) {
	socket, err := s.serve(ctx)
	if err != nil {
		return nil, err
	}
	others, err := s.servePod(ctx)
	if err != nil {
		closeAll(ctx, s.log, []*endpoint{socket})
		return nil, err
	}
	return append(others, socket), nil
}

func closeAll(ctx context.Context, log *slog.Logger, endpoints []*endpoint) {
	for _, e := range endpoints {
		if err := e.close(ctx); err != nil {
			log.WarnContext(ctx, "close an endpoint of the supervisor", errorAttr(err))
		}
	}
}

// serve opens the socket for this user alone. The path of a unix socket may have only 107
// bytes, so it is bound below the opened folder.
func (s *supervisor) serve(ctx context.Context) (*endpoint, error) {
	if err := os.Remove(s.path(layout.Socket)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of an earlier run: %w", err)
	}
	folder, err := os.Open(s.dir)
	if err != nil {
		return nil, fmt.Errorf("open the process's folder: %w", err)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), layout.Socket))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", layout.Socket, err), folder.Close())
	}
	if err := os.Chmod(s.path(layout.Socket), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect %s: %w", layout.Socket, err), listener.Close(), folder.Close())
	}
	e := s.answer(ctx, listener, s.handler())
	e.folder = folder
	return e, nil
}

// answer serves a listener until the endpoint is closed.
func (s *supervisor) answer(ctx context.Context, listener net.Listener, handler http.Handler) *endpoint {
	base, leave := context.WithCancel(context.WithoutCancel(ctx))
	e := &endpoint{
		server: &http.Server{
			Handler: handler, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: longestAnswer, IdleTimeout: 2 * time.Minute,
			MaxHeaderBytes: 16 << 10, BaseContext: func(net.Listener) context.Context { return base },
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // anybody may knock
		},
		served: make(chan struct{}),
		leave:  leave,
	}
	go func() {
		defer close(e.served)
		if err := e.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.ErrorContext(ctx, "serve", slog.String("address", listener.Addr().String()), errorAttr(err))
		}
	}()
	return e
}

func (e *endpoint) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
	defer cancel()
	e.leave()
	err := e.server.Shutdown(ctx)
	if err != nil {
		err = e.server.Close()
	}
	<-e.served
	if e.folder != nil {
		err = errors.Join(err, e.folder.Close())
	}
	return err
}

// handler of the socket: whoever may open that may see all.
func (s *supervisor) handler() http.Handler {
	mux := http.NewServeMux()
	s.handleLive(mux)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		r := s.report.get()
		if !r.Ready {
			writeText(w, http.StatusServiceUnavailable, r.Reason+": "+r.Message)
			return
		}
		writeText(w, http.StatusOK, "ok")
	})
	s.handleReport(mux)
	return mux
}

func (s *supervisor) handleLive(mux *http.ServeMux) {
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusOK, "ok")
	})
	s.handleMetrics(mux)
}

func (s *supervisor) handleMetrics(mux *http.ServeMux) {
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics(), promhttp.HandlerOpts{}))
}

// handleReport answers with the report, whose digest is the ETag. Asked with
// ?after=<digest>&wait=<seconds> it waits that long for another one than that.
func (s *supervisor) handleReport(mux *http.ServeMux) {
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, r *http.Request) {
		wait, err := waitOf(r.URL.Query().Get("wait"))
		if err != nil {
			writeText(w, http.StatusBadRequest, err.Error())
			return
		}
		data, digest, err := s.after(r.Context(), strings.Trim(r.URL.Query().Get("after"), `"`), wait)
		if err != nil {
			s.log.ErrorContext(r.Context(), "encode the report", errorAttr(err))
			writeText(w, http.StatusInternalServerError, "the report cannot be encoded: see the log of castellan node")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("ETag", `"`+digest+`"`)
		_, _ = w.Write(data) // whoever asked is gone then
	})
}

func waitOf(seconds string) (time.Duration, error) {
	if seconds == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(seconds, 10, 16)
	if err != nil {
		return 0, errors.New("wait is no number of seconds")
	}
	return min(time.Duration(n)*time.Second, longestWait), nil
}

// after waits for another report than the one with that digest, and gives what there is in
// the end.
func (s *supervisor) after(ctx context.Context, known string, wait time.Duration) (data []byte, digest string, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		now, changed := s.report.watch()
		data, digest, err := encode(now)
		if err != nil || digest != known {
			return data, digest, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return data, digest, nil
		}
	}
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, text) //nolint:gosec // plain text; and whoever asked may be gone
}

func (s *supervisor) metrics() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	gauge := func(name, help string, value func(layout.Report) float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Namespace: "castellan", Subsystem: "node", Name: name, Help: help},
			func() float64 { return value(s.report.get()) },
		))
	}
	gauge("up", "1 while the Java virtual machine runs.", func(r layout.Report) float64 { return one(r.PID != 0) })
	gauge("ready", "1 while Kafka says that the node is unfenced or a caught-up controller.", func(r layout.Report) float64 { return one(r.Ready) })
	if s.config.Pod != nil {
		gauge("in_sync", "1 while every replica of the node is in the ISR.", func(r layout.Report) float64 { return one(r.InSync) })
	}
	gauge("jvm_start_time_seconds", "When the Java virtual machine was started, as a Unix time.", func(r layout.Report) float64 {
		if r.StartedAt == nil {
			return 0
		}
		return float64(r.StartedAt.Unix())
	})
	return registry
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
