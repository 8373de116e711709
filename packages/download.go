package packages

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// download copies a source's archive into folder and compares its sums.
func (s *Store) download(ctx context.Context, source Source, folder string, r *reporter) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(s.idle(), func() {
		cancel(fmt.Errorf("nothing was received for %s: check the network or the server, then try again", s.idle()))
	})
	defer idle.Stop()
	r.say("fetching %s", source)
	in, size, err := s.open(ctx, source)
	if err != nil {
		return "", causeOf(ctx, err)
	}
	defer func() { _ = in.Close() }()
	if size > s.limits().ArchiveBytes {
		return "", fmt.Errorf("refused: %d bytes are more than the limit of %d", size, s.limits().ArchiveBytes)
	}
	if err := s.needSpace("fetch "+source.String(), max(size, 0)); err != nil {
		return "", err
	}
	file := filepath.Join(folder, "archive")
	out, err := os.Create(file) //nolint:gosec // to open what the caller or the store names is its task
	if err != nil {
		return "", fmt.Errorf("create archive: %w", err)
	}
	c := &copying{total: size, limit: s.limits().ArchiveBytes, sums: sumsOf(source), alive: func() { idle.Reset(s.idle()) }, r: r}
	err = c.copy(out, ctxReader{ctx, in})
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return "", causeOf(ctx, err)
	}
	return file, c.verify(source)
}

// causeOf prefers why the context ended to what that made of a read.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// open returns the archive's bytes and size, -1 if the server does not tell it.
func (s *Store) open(ctx context.Context, source Source) (io.ReadCloser, int64, error) {
	u, err := url.Parse(source.URL)
	if err != nil {
		return nil, 0, fmt.Errorf("read url: %w", err)
	}
	switch u.Scheme {
	case "http", "https":
		return s.request(ctx, source.URL)
	case "file":
		return openFile(u.Path)
	case "":
		return openFile(source.URL)
	default:
		return nil, 0, fmt.Errorf("url of scheme %q: use https, http, file or a path", u.Scheme)
	}
}

func openFile(path string) (io.ReadCloser, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, fmt.Errorf("open archive: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a file: name the archive itself", path)
	}
	f, err := os.Open(path) //nolint:gosec // to open what the caller or the store names is its task
	if err != nil {
		return nil, 0, fmt.Errorf("open archive: %w", err)
	}
	return f, info.Size(), nil
}

func (s *Store) request(ctx context.Context, url string) (io.ReadCloser, int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, fmt.Errorf("make request: %w", err)
	}
	// Without this a server that calls a .tgz "gzip-encoded" has it unpacked on the way, and no sum matches.
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := s.client().Do(req)
	if err != nil {
		return nil, 0, fmt.Errorf("request: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, 0, fmt.Errorf("the server answers %q: check the url", resp.Status)
	}
	return resp.Body, resp.ContentLength, nil
}

type sum struct {
	algorithm, want string
	h               hash.Hash
}

func sumsOf(source Source) []sum {
	var sums []sum
	if source.SHA512 != "" {
		sums = append(sums, sum{"sha512:", strings.ToLower(source.SHA512), sha512.New()})
	}
	if source.SHA256 != "" {
		sums = append(sums, sum{digestPrefix, strings.ToLower(source.SHA256), sha256.New()})
	}
	return sums
}

// copying is one archive on its way.
type copying struct {
	done, total, limit int64
	sums               []sum
	alive              func()
	r                  *reporter
}

// Write counts and hashes.
func (c *copying) Write(p []byte) (int, error) {
	c.alive()
	if c.done += int64(len(p)); c.done > c.limit {
		return 0, fmt.Errorf("refused: more than the limit of %d bytes", c.limit)
	}
	for _, s := range c.sums {
		_, _ = s.h.Write(p) // a hash never fails
	}
	c.r.bytes(c.done, max(c.total, 0))
	return len(p), nil
}

func (c *copying) copy(out io.Writer, in io.Reader) error {
	_, err := io.Copy(io.MultiWriter(c, out), in)
	if errors.Is(err, io.ErrUnexpectedEOF) || err == nil && c.total >= 0 && c.done != c.total {
		return fmt.Errorf("cut off after %d of %d bytes: try again", c.done, c.total)
	}
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", c.done, err)
	}
	return nil
}

func (c *copying) verify(source Source) error {
	for _, s := range c.sums {
		if found := hex.EncodeToString(s.h.Sum(nil)); found != s.want {
			return &DigestError{
				File: source.URL, Want: s.algorithm + s.want, Found: s.algorithm + found,
				Remedy: "delete it if it is yours and get it again, or correct the sum if it was mistyped",
			}
		}
	}
	return nil
}
