package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

const headerTimeout = 5 * time.Second

// Serve takes commands on the directory's socket until ctx ends.
func (c *Cluster) Serve(ctx context.Context) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", c.dir.socket())
	if err != nil {
		return fmt.Errorf("listen for commands: %w", err)
	}
	mux := http.NewServeMux()
	handle := func(pattern string, f func(context.Context, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := f(r.Context(), r); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	}
	handle("POST /node/{name}/kill", func(ctx context.Context, r *http.Request) error { return c.KillNode(ctx, r.PathValue("name")) })
	handle("POST /node/{name}/start", func(ctx context.Context, r *http.Request) error {
		return c.StartNode(ctx, r.PathValue("name"), r.FormValue("fresh-disk") == "true")
	})
	handle("POST /loadbalancer/{state}", func(_ context.Context, r *http.Request) error {
		c.SetLoadBalancer(r.PathValue("state") == "on")
		return nil
	})
	handle("POST /load", func(ctx context.Context, r *http.Request) error { return c.load(ctx, r.URL.Query()["image"]) })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve commands: %w", err)
	}
	return nil
}

// Command sends one to the daemon of a running cluster: a path of the API above.
func Command(ctx context.Context, d Dir, path string, query url.Values) error {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.socket())
	}}}
	target := url.URL{Scheme: "http", Host: "testkube", Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), nil)
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("no cluster runs in %s (start one with 'testkube up --dir %s'): %w", d, d, err)
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(body)))
	}
	return nil
}

func (c *Cluster) place(name string) (place, error) {
	for _, p := range places(c.config.Nodes) {
		if p.name() == name {
			return p, nil
		}
	}
	return place{}, fmt.Errorf("there is no node %q: see 'kubectl get nodes'", name)
}

// KillNode cuts the power of a node.
func (c *Cluster) KillNode(ctx context.Context, name string) error {
	if _, err := c.place(name); err != nil {
		return err
	}
	c.mu.Lock()
	m := c.machines[name]
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if err := m.PowerOff(ctx); err != nil {
		return err
	}
	return c.writeStatus()
}

// StartNode turns a node on that is off. With a fresh disk, its volumes and containers are lost.
func (c *Cluster) StartNode(ctx context.Context, name string, freshDisk bool) error {
	p, err := c.place(name)
	if err != nil {
		return err
	}
	if c.pid(name) != 0 {
		return fmt.Errorf("%s is on: 'testkube node kill' turns it off", name)
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if freshDisk {
		if err := remove(c.dir.node(name)); err != nil {
			return err
		}
		if err := writeNode(c.dir, c.config.Name, p); err != nil {
			return err
		}
		if err := cloneGolden(ctx, c.dir, name); err != nil {
			return err
		}
	}
	if err := c.startNode(ctx, p); err != nil {
		return err
	}
	return c.writeStatus()
}

// load imports archives into every node that is on, and into the directory from which fresh disks are made.
func (c *Cluster) load(ctx context.Context, paths []string) error {
	var pids []int
	for _, p := range places(c.config.Nodes) {
		pids = append(pids, c.pid(p.name()))
	}
	pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == 0 })
	errs := make([]error, len(pids)+1)
	var wg sync.WaitGroup
	wg.Go(func() { errs[len(pids)] = loadGolden(ctx, c.starter, c.dir, paths, func(string, ...any) {}) })
	for i, pid := range pids {
		wg.Go(func() {
			for _, path := range paths {
				if err := importInto(ctx, pid, path); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Running reports whether a daemon runs in the directory.
func Running(ctx context.Context, d Dir) bool {
	if _, err := os.Stat(d.StatusFile()); err != nil {
		return false
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", d.socket())
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
