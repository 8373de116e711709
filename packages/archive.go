package packages

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Limits bound what an archive may make of this machine.
type Limits struct {
	// ArchiveBytes is an archive's, FileBytes one unpacked file's and UnpackedBytes all unpacked files' size.
	ArchiveBytes, FileBytes, UnpackedBytes int64
	// Entries is the number of files, folders and links.
	Entries int
}

// DefaultLimits have room for anything that Castellan runs.
func DefaultLimits() Limits {
	return Limits{ArchiveBytes: 4 << 30, FileBytes: 4 << 30, UnpackedBytes: 8 << 30, Entries: 200_000}
}

const maxPathBytes = 1024

// member is one checked entry of an archive: a regular file, a folder or a link within the tree.
type member struct {
	path       string // slash-separated, clean, relative
	kind       byte   // tar.TypeReg, tar.TypeDir or tar.TypeSymlink
	size       int64
	executable bool
	target     string // of a link
}

// readArchive reads the archive through to its end, checks every entry and hands it to visit, and compares the digest of the whole
// with what was wanted. A wrong digest outweighs every other error: it is their likely cause.
func readArchive(ctx context.Context, file string, want Digest, limits Limits, visit func(member, io.Reader) error) error {
	raw, err := os.Open(file) //nolint:gosec // to open what the caller or the store names is its task
	if err != nil {
		return fmt.Errorf("open archive: %w", err)
	}
	defer func() { _ = raw.Close() }()
	h := sha256.New()
	in := io.TeeReader(ctxReader{ctx, raw}, h)
	readErr := readMembers(in, limits, visit)
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fmt.Errorf("read archive %s: %w", file, err)
	}
	if found := digestOf(h); found != want {
		return &DigestError{File: file, Want: string(want), Found: string(found), Remedy: "it must be fetched again"}
	}
	if readErr != nil {
		return fmt.Errorf("archive %s: %w", file, readErr)
	}
	return nil
}

func readMembers(in io.Reader, limits Limits, visit func(member, io.Reader) error) error {
	plain, done, err := decompress(in)
	if err != nil {
		return err
	}
	defer done()
	entries, total := 0, int64(0)
	for r := tar.NewReader(plain); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		m, err := check(header)
		if err != nil {
			return err
		}
		entries++
		total += m.size
		if entries > limits.Entries || m.size > limits.FileBytes || total > limits.UnpackedBytes {
			return fmt.Errorf("refused at %q: more than %d entries, %d bytes in a file or %d bytes in all", m.path, limits.Entries, limits.FileBytes, limits.UnpackedBytes)
		}
		if err := visit(m, r); err != nil {
			return err
		}
	}
}

// decompress tells the format by the first bytes: names lie.
func decompress(in io.Reader) (plain io.Reader, done func(), err error) {
	buffered := bufio.NewReaderSize(in, 1<<20)
	magic, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("read: %w", err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, nil, fmt.Errorf("read gzip: %w", err)
		}
		return z, func() { _ = z.Close() }, nil
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, fmt.Errorf("read zstd: %w", err)
		}
		return z, z.Close, nil
	default:
		return buffered, func() {}, nil
	}
}

// check refuses every entry that could end up, or lead, outside the tree.
func check(h *tar.Header) (member, error) {
	m := member{path: path.Clean(h.Name), kind: h.Typeflag, size: h.Size, executable: h.Mode&0o111 != 0}
	if path.IsAbs(h.Name) || !filepath.IsLocal(m.path) || hasDotDot(h.Name) || strings.ContainsAny(h.Name, "\\\x00") || len(h.Name) > maxPathBytes {
		return m, fmt.Errorf("refused: entry %q leads out of the tree or has no usable name", h.Name)
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return m, nil
	case tar.TypeDir:
		m.size = 0
		return m, nil
	case tar.TypeSymlink:
		m.size, m.target = 0, h.Linkname
		return m, checkLink(m)
	default:
		return m, fmt.Errorf("refused: entry %q is of type %q; only files, folders and symbolic links are unpacked", h.Name, h.Typeflag)
	}
}

// checkLink allows "../" only at a target's start: after a name it could climb from wherever another link leads.
func checkLink(m member) error {
	rest := m.target
	for strings.HasPrefix(rest, "../") {
		rest = rest[len("../"):]
	}
	if m.target == "" || path.IsAbs(m.target) || hasDotDot(rest) || !filepath.IsLocal(path.Join(path.Dir(m.path), m.target)) {
		return fmt.Errorf("refused: link %q leads to %q, out of the tree", m.path, m.target)
	}
	return nil
}

func hasDotDot(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// contents is what an archive turns out to hold.
type contents struct {
	root string
	size int64
}

// inspect reads the whole archive without writing anything and sees whether it may be what the spec says.
func inspect(ctx context.Context, spec Spec, file string, want Digest, limits Limits) (contents, error) {
	var c contents
	files, tops := 0, map[string]bool{}
	sign := signOf(spec)
	signed := sign == ""
	err := readArchive(ctx, file, want, limits, func(m member, _ io.Reader) error {
		top, _, nested := strings.Cut(m.path, "/")
		if m.path == "." {
			return nil
		}
		tops[top] = tops[top] || nested || m.kind == tar.TypeDir
		c.root, c.size = top, c.size+m.size
		if m.kind == tar.TypeReg {
			files++
			matched, err := path.Match(sign, m.path)
			signed = signed || matched
			return err
		}
		return nil
	})
	if err != nil {
		return contents{}, err
	}
	if files == 0 {
		return contents{}, fmt.Errorf("archive %s holds no file: it is no package", file)
	}
	if !signed {
		return contents{}, fmt.Errorf("archive %s is not %s: it has no %s; correct the package's version or its source", file, spec.title(), sign)
	}
	if len(tops) != 1 || !tops[c.root] {
		c.root = "."
	}
	return c, nil
}

// signOf is a pattern of the file by which an archive is known to be of that product and version: an archive of
// another version with a matching sum is a mistake in the spec, and to run it would be an upgrade that nobody planned.
func signOf(spec Spec) string {
	if spec.Product == "Kafka" {
		return "*/libs/kafka_2.1[0-9]-" + spec.Version + ".jar"
	}
	return ""
}

// ctxReader ends a long read when the context ends.
type ctxReader struct {
	ctx context.Context //nolint:containedctx // lives for one call, an io.Reader has no other way to see it
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
