package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
)

// maxMessage bounds a termination message and a log tail in a status.
const (
	maxMessage   = 16 << 10
	tailLines    = 20
	maxTailBytes = 4 << 10
)

// check says what a program needs that is not there, without changing anything of the
// process.
func (r *runner) check(ctx context.Context, program api.Program) *problem {
	if len(program.Args) == 0 {
		return refused("the program has no command line")
	}
	if _, err := lookupUser(program.User, r.users); err != nil {
		return asProblem(err)
	}
	if p := r.checkPaths(program); p != nil {
		return p
	}
	if p := r.checkSecrets(); p != nil {
		return p
	}
	return r.archive(ctx, program.Archive)
}

func (r *runner) checkPaths(program api.Program) *problem {
	g := r.grounds()
	for _, f := range slices.Concat(program.Files, r.order.Spec.Files) {
		if _, _, err := g.file(f.Path); err != nil {
			return asProblem(err)
		}
	}
	for _, name := range []string{program.Socket, program.TerminationMessage} {
		if name != "" && !filepath.IsLocal(name) {
			return refused("%q must lie in the process's own folder", name)
		}
	}
	for _, s := range r.order.Spec.Secrets {
		if !filepath.IsLocal(s.Path) {
			return refused("the folder %q of secret %s must lie in the process's own folder", s.Path, s.SecretName)
		}
	}
	for _, dir := range r.order.Spec.Directories {
		if _, _, err := g.data(dir); err != nil {
			return asProblem(err)
		}
	}
	return nil
}

// checkSecrets lets the process go on with what was placed before: a Secret that is gone,
// or an API server that is away, takes nothing from it.
func (r *runner) checkSecrets() *problem {
	for _, s := range r.order.Spec.Secrets {
		_, known := r.order.Secrets[s.SecretName]
		if _, placed := r.state.SecretFiles[s.Path]; !known && !placed {
			return &problem{Reason: ReasonSecretMissing, Message: fmt.Sprintf("waiting for secret %s in the host's namespace", s.SecretName)}
		}
	}
	return nil
}

// prepare makes everything that the program finds when it starts.
func (r *runner) prepare(program api.Program) *problem {
	user, err := lookupUser(program.User, r.users)
	if err != nil {
		return asProblem(err)
	}
	if err := r.folder.make(user.owner()); err != nil {
		return asProblem(err)
	}
	g := r.grounds()
	for _, dir := range r.order.Spec.Directories {
		if err := g.makeDirectory(dir, user.owner()); err != nil {
			return asProblem(err)
		}
	}
	for _, f := range program.Files {
		if err := g.write(f.Path, []byte(f.Content), user.owner()); err != nil {
			return asProblem(err)
		}
	}
	return r.placeLiveAs(user.owner())
}

// placeLive brings the files of a running process up to date; directories too, since a
// volume may be added before the process may use it.
func (r *runner) placeLive() *problem {
	running := r.order.Spec.Program
	if r.state.Program != nil {
		running = *r.state.Program
	}
	if p := r.checkPaths(running); p != nil {
		return p
	}
	user, err := lookupUser(running.User, r.users)
	if err != nil {
		return asProblem(err)
	}
	for _, dir := range r.order.Spec.Directories {
		if err := r.grounds().makeDirectory(dir, user.owner()); err != nil {
			return asProblem(err)
		}
	}
	return r.placeLiveAs(user.owner())
}

func (r *runner) placeLiveAs(own owner) *problem {
	for _, f := range r.order.Spec.Files {
		if err := r.grounds().write(f.Path, []byte(f.Content), own); err != nil {
			return asProblem(err)
		}
	}
	return r.placeSecrets(own)
}

// placeSecrets writes the keys of the known Secrets and removes keys that are gone.
func (r *runner) placeSecrets(own owner) *problem {
	placed := maps.Clone(r.state.SecretFiles)
	if placed == nil {
		placed = make(map[string][]string)
	}
	for _, s := range r.order.Spec.Secrets {
		keys, known := r.order.Secrets[s.SecretName]
		if !known {
			continue // what was placed before stays
		}
		names, err := r.placeSecret(s.Path, keys, placed[s.Path], own)
		if err != nil {
			return asProblem(err)
		}
		placed[s.Path] = names
	}
	digest, err := r.secretsDigest(placed)
	if err != nil {
		return asProblem(err)
	}
	if digest != r.state.SecretsDigest {
		r.state.SecretFiles, r.state.SecretsDigest = placed, digest
		r.remember()
	}
	return nil
}

func (r *runner) placeSecret(dir string, keys map[string][]byte, before []string, own owner) ([]string, error) {
	names := slices.Sorted(maps.Keys(keys))
	for _, name := range names {
		if name == "." || name == ".." || strings.ContainsRune(name, '/') {
			return nil, refused("key %q of a secret cannot be a file name", name)
		}
		if err := r.grounds().write(path.Join(dir, name), keys[name], own); err != nil {
			return nil, err
		}
	}
	for _, name := range before {
		if _, still := keys[name]; still {
			continue
		}
		if err := r.grounds().remove(path.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// secretsDigest names the secret files that are on disk.
func (r *runner) secretsDigest(placed map[string][]string) (string, error) {
	if len(placed) == 0 {
		return "", nil
	}
	h := sha256.New()
	for _, dir := range slices.Sorted(maps.Keys(placed)) {
		for _, name := range placed[dir] {
			content, err := r.grounds().read(path.Join(dir, name), 1<<20)
			if err != nil {
				return "", fmt.Errorf("read back secret file %s: %w", path.Join(dir, name), err)
			}
			h.Write(fmt.Appendf(nil, "%s %d ", path.Join(dir, name), len(content)))
			h.Write(content)
		}
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// describeExit prefers what the process left about its end to what the kernel says.
func (r *runner) describeExit(e exit, rebooted bool) *api.ExitStatus {
	status := &api.ExitStatus{Code: -1, Reason: ReasonExited}
	if e.Known {
		status.Code = e.Code
	}
	switch {
	case rebooted:
		status.Reason, status.Message = ReasonHostRestarted, "the host was restarted"
	case !e.Known:
		status.Message = "the process ended while nobody could learn its exit code"
	case e.Code > 128:
		status.Reason, status.Message = ReasonKilled, fmt.Sprintf("the process was killed (signal %d)", e.Code-128)
	default:
		status.Message = fmt.Sprintf("the process exited with code %d", e.Code)
	}
	if left, ok := r.terminationMessage(); ok {
		status = left
	}
	if status.At.IsZero() {
		status.At = metav1.NewTime(time.Now())
	}
	status.At = metav1.NewTime(status.At.Truncate(time.Second))
	if status.LogTail == "" {
		status.LogTail = r.outputTail()
	}
	return status
}

func (r *runner) terminationMessage() (*api.ExitStatus, bool) {
	if r.state.Program == nil || r.state.Program.TerminationMessage == "" {
		return nil, false
	}
	data, err := r.grounds().read(r.state.Program.TerminationMessage, maxMessage)
	if err != nil {
		return nil, false // it left none, as when it is killed
	}
	var left api.ExitStatus
	if err := json.Unmarshal(data, &left); err != nil {
		return nil, false
	}
	return &left, true
}

// outputTail is the end of what the process printed, bounded.
func (r *runner) outputTail() string {
	data, err := readEnd(r.folder.output(), maxTailBytes)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.ToValidUTF8(strings.Join(lines[max(0, len(lines)-tailLines):], "\n"), "?")
}
