package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"castellan.dev/castellan/core/layout"
)

// endpoint is the unix socket on which the supervisor answers.
type endpoint struct {
	server *http.Server
	folder *os.File
	served chan struct{}
}

const closeWait = time.Second

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
	e := &endpoint{
		server: &http.Server{Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second},
		folder: folder,
		served: make(chan struct{}),
	}
	go func() {
		defer close(e.served)
		if err := e.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.ErrorContext(ctx, "serve the supervisor's socket", slog.String("error", err.Error()))
		}
	}()
	return e, nil
}

func (e *endpoint) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
	defer cancel()
	err := e.server.Shutdown(ctx)
	if err != nil {
		err = e.server.Close()
	}
	<-e.served
	return errors.Join(err, e.folder.Close())
}

func (s *supervisor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		r := s.report.get()
		if !r.Ready {
			writeText(w, http.StatusServiceUnavailable, r.Reason+": "+r.Message)
			return
		}
		writeText(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, _ *http.Request) {
		data, err := json.Marshal(s.report.get())
		if err != nil {
			writeText(w, http.StatusInternalServerError, err.Error())
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(data) // whoever asked is gone then
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics(), promhttp.HandlerOpts{}))
	return mux
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, text) // whoever asked is gone then
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
