package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	askEarly   = time.Second     // until the process is ready
	askLater   = 3 * time.Second // afterwards
	askTimeout = 2 * time.Second
	// lostAfter is how many questions in a row a process may leave unanswered.
	lostAfter = 3
	maxReport = 64 << 10
)

// answer is what a process says of itself.
type answer struct {
	Ready  bool
	Report string
	// Lost says that it answered once and does not any more.
	Lost bool
}

// watchAnswers asks the process what it says of itself until it ends.
func (r *runner) watchAnswers(ctx context.Context) {
	if r.state.Program == nil || r.state.Program.Socket == "" {
		return
	}
	ctx, r.stopProbe = context.WithCancel(ctx)
	asker := newAsker(r.folder.run(), r.state.Program.Socket)
	r.owned.Go(func() {
		defer asker.close()
		r.ask(ctx, asker)
	})
}

func (r *runner) ask(ctx context.Context, asker *asker) {
	var last answer
	failures := 0
	for {
		found, err := asker.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			failures++
			found = last
			if failures >= lostAfter && last.Report != "" {
				found.Ready, found.Lost = false, true
			}
		} else {
			failures = 0
		}
		if found != last {
			last = found
			r.heard(ctx, found)
		}
		wait := askEarly
		if found.Ready && failures == 0 {
			wait = askLater
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// heard notes an answer, unless the process that gave it is let go already.
func (r *runner) heard(ctx context.Context, a answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() == nil {
		r.answer = a
		r.nudge()
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// asker asks one process over its unix socket.
type asker struct {
	client    *http.Client
	transport *http.Transport
}

func newAsker(dir, socket string) *asker {
	transport := &http.Transport{
		MaxIdleConns: 1,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialIn(ctx, dir, socket)
		},
	}
	return &asker{client: &http.Client{Transport: transport, Timeout: askTimeout}, transport: transport}
}

// dialIn dials through the opened folder: a socket's path may have only 107 bytes.
func dialIn(ctx context.Context, dir, socket string) (net.Conn, error) {
	folder, err := os.OpenFile(filepath.Join(dir, filepath.Dir(socket)), os.O_RDONLY|syscall.O_DIRECTORY, 0) //nolint:gosec // a path of the agent itself
	if err != nil {
		return nil, fmt.Errorf("open the folder of the socket: %w", err)
	}
	defer folder.Close() //nolint:errcheck // only looked at
	var dialer net.Dialer
	return dialer.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(socket)))
}

func (a *asker) close() { a.transport.CloseIdleConnections() }

func (a *asker) ask(ctx context.Context) (answer, error) {
	_, text, err := a.get(ctx, "/report")
	if err != nil {
		return answer{}, err
	}
	var report bytes.Buffer
	if err := json.Compact(&report, text); err != nil {
		return answer{}, fmt.Errorf("read the report: %w", err)
	}
	code, _, err := a.get(ctx, "/readyz")
	if err != nil {
		return answer{}, err
	}
	return answer{Ready: code == http.StatusOK, Report: report.String()}, nil
}

func (a *asker) get(ctx context.Context, path string) (code int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://process"+path, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("ask for %s: %w", path, err)
	}
	response, err := a.client.Do(request)
	if err != nil {
		return 0, nil, fmt.Errorf("ask for %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	body, err = io.ReadAll(io.LimitReader(response.Body, maxReport))
	if err != nil {
		return 0, nil, fmt.Errorf("read %s: %w", path, err)
	}
	return response.StatusCode, body, nil
}

// readEnd reads the last bytes of a file.
func readEnd(path string, most int64) (data []byte, err error) {
	file, err := os.Open(path) //nolint:gosec // a path of the agent itself
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(file, max(0, info.Size()-most), most))
}
