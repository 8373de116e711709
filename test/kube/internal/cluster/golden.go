package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"castellan.dev/castellan/test/kube/internal/image"
	"castellan.dev/castellan/test/kube/internal/machine"
)

// golden is a containerd directory that has all images. Each node begins with hard links to it: layers are unpacked once, use
// the disk once and are in memory once, since overlayfs never writes to a lower file. Only databases are copied.
const goldenMachine = "golden"

// goldenConfig runs containerd without the part that serves kubelets.
const goldenConfig = `version = 2
root = "` + containerdDir + `"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "` + containerdSocket + `"
`

// archive says which file was imported, so that the same one is not imported twice.
type archive struct {
	Path     string    `json:"path"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
}

func archiveOf(path string) (archive, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return archive{}, fmt.Errorf("find the image archive %s: %w", path, err)
	}
	info, err := os.Stat(abs) //nolint:gosec // the caller's own file
	if err != nil {
		return archive{}, fmt.Errorf("find the image archive: %w", err)
	}
	return archive{Path: abs, Size: info.Size(), Modified: info.ModTime()}, nil
}

func (d Dir) archivesFile() string { return d.path("golden", "archives.json") }

func (d Dir) readArchives() ([]archive, error) {
	data, err := os.ReadFile(d.archivesFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the list of images: %w", err)
	}
	var list []archive
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("read the list of images %s (remove it to begin anew): %w", d.archivesFile(), err)
	}
	return list, nil
}

// Load imports archives into the golden directory of a cluster that is down. Those that are in it already cost nothing.
func Load(ctx context.Context, d Dir, paths []string, say func(string, ...any)) error {
	return loadGolden(ctx, machine.NewStarter(), d, paths, say)
}

func loadGolden(ctx context.Context, starter *machine.Starter, d Dir, paths []string, say func(string, ...any)) error {
	have, err := d.readArchives()
	if err != nil {
		return err
	}
	var fresh []archive
	for _, path := range paths {
		a, err := archiveOf(path)
		if err != nil {
			return err
		}
		same := func(b archive) bool { return a.Path == b.Path && a.Size == b.Size && a.Modified.Equal(b.Modified) }
		if !slices.ContainsFunc(have, same) && !slices.ContainsFunc(fresh, same) {
			fresh = append(fresh, a)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := makeDirs(d.path("bin"), d.golden(), d.logs(goldenMachine)); err != nil {
		return err
	}
	if err := installBinaries(d); err != nil {
		return err
	}
	m, err := startGolden(starter, d)
	if err != nil {
		return err
	}
	defer m.PowerOff(context.WithoutCancel(ctx)) //nolint:errcheck // it has nothing to lose
	for _, a := range fresh {
		say("importing %s", a.Path)
		if err := importInto(ctx, m.Pid, a.Path); err != nil {
			return fmt.Errorf("%w\n%s", err, tail(d.log(goldenMachine, "containerd"), tailLines))
		}
		have = append(slices.DeleteFunc(have, func(b archive) bool { return b.Path == a.Path }), a)
		if err := writeJSON(d.archivesFile(), have); err != nil {
			return err
		}
	}
	return nil
}

func startGolden(starter *machine.Starter, d Dir) (*machine.Machine, error) {
	if err := os.WriteFile(d.path("golden", "containerd.toml"), []byte(goldenConfig), 0o600); err != nil {
		return nil, fmt.Errorf("write containerd's configuration: %w", err)
	}
	spec := machine.Spec{
		Hostname: goldenMachine, Home: string(d), Overlays: outer(),
		Binds:     []machine.Bind{{From: "golden/containerd", To: containerdDir}},
		Processes: []machine.Process{containerdProcess(goldenMachine, inside("golden", "containerd.toml"))},
	}
	m, err := starter.Start(d.path("bin", "testkube-addons"), spec, d.path("golden", "machine.json"), d.log(goldenMachine, "machine"))
	if err != nil {
		return nil, err
	}
	return m, m.Release()
}

// importInto gives the containerd of a machine all images of an archive, under every name the archive says.
func importInto(ctx context.Context, pid int, path string) error {
	f, err := os.Open(path) //nolint:gosec // the caller's choice
	if err != nil {
		return fmt.Errorf("open the image archive: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	names, err := image.Names(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	// containerd has just been started: the first calls may come too early.
	if err := poll(ctx, startTimeout, func(ctx context.Context) error {
		_, err := ctr(ctx, pid, nil, "version")
		return err
	}); err != nil {
		return fmt.Errorf("reach containerd: %w", err)
	}
	if _, err := ctr(ctx, pid, f, "images", "import", "-"); err != nil {
		return fmt.Errorf("import %s: %w", path, err)
	}
	return tag(ctx, pid, names)
}

// tag gives images their full names where containerd put its own prefix before one: it does so for an OCI layout which says
// the name in the annotation org.opencontainers.image.ref.name only.
func tag(ctx context.Context, pid int, names []string) error {
	out, err := ctr(ctx, pid, nil, "images", "list", "-q")
	if err != nil {
		return err
	}
	have := strings.Fields(out)
	for _, name := range names {
		for _, h := range have {
			if h != name && strings.HasSuffix(h, ":"+name) {
				if _, err := ctr(ctx, pid, nil, "images", "tag", "--force", h, name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func ctr(ctx context.Context, pid int, stdin io.Reader, args ...string) (string, error) {
	all := append([]string{"-t", strconv.Itoa(pid), "-m", "-n", "-p", "--", "ctr", "--address", containerdSocket, "-n", "k8s.io"}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", all...) //nolint:gosec // fixed programs
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// cloneGolden gives a node its own containerd directory with all images.
func cloneGolden(ctx context.Context, d Dir, node string) error {
	to := d.path("nodes", node, "containerd")
	if err := os.RemoveAll(to); err != nil { //nolint:gosec // below the folder that the caller gave
		return fmt.Errorf("remove %s: %w", to, err)
	}
	from := d.path("golden", "containerd")
	if out, err := exec.CommandContext(ctx, "cp", "-al", from, to).CombinedOutput(); err != nil { //nolint:gosec // our own paths
		return fmt.Errorf("link the images for %s: %w: %s", node, err, out)
	}
	databases, err := filepath.Glob(filepath.Join(to, "*", "*.db"))
	if err != nil || len(databases) == 0 {
		return fmt.Errorf("find containerd's databases in %s: %d found: %w", to, len(databases), err)
	}
	for _, db := range databases {
		relative := strings.TrimPrefix(db, to)
		if out, err := exec.CommandContext(ctx, "cp", "-p", "--remove-destination", from+relative, db).CombinedOutput(); err != nil { //nolint:gosec // our own paths
			return fmt.Errorf("copy %s: %w: %s", relative, err, out)
		}
	}
	return nil
}

// ownImages writes those that every cluster needs.
func ownImages(d Dir) ([]string, error) {
	pause, err := image.Pause()
	if err != nil {
		return nil, err
	}
	addons, err := os.ReadFile(d.path("bin", "testkube-addons"))
	if err != nil {
		return nil, fmt.Errorf("read our own executable: %w", err)
	}
	images := map[string]image.Static{
		"pause.tar":   {Name: image.PauseName, Files: map[string][]byte{"pause": pause}, Entrypoint: []string{"/pause"}},
		"coredns.tar": {Name: image.DNSName, Files: map[string][]byte{"testkube-addons": addons}, Entrypoint: []string{"/testkube-addons", "dns"}},
	}
	if err := makeDirs(d.path("images")); err != nil {
		return nil, err
	}
	var paths []string
	for file, img := range images {
		path := d.path("images", file)
		paths = append(paths, path)
		if upToDate(path, d.path("bin", "testkube-addons")) {
			continue
		}
		if err := img.WriteFile(path); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

func upToDate(path, source string) bool {
	made, err := os.Stat(path)
	if err != nil {
		return false
	}
	from, err := os.Stat(source)
	return err == nil && made.ModTime().After(from.ModTime())
}
