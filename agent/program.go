package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	api "castellan.dev/castellan/api/v1alpha1"
)

// ownBinary as Args[0] of a Program is the agent's own executable.
const ownBinary = "castellan"

// tokenVariable marks a process, so that one that was started just before the agent was
// killed is found again.
const tokenVariable = "HOST_PROCESS_TOKEN"

// ProgramHash names a Program by content: "sha256:<hex>". The user is left out: which user
// a Host's processes run as takes effect with the next start and is no reason for one.
func ProgramHash(p api.Program) string {
	p.User = ""
	data, err := json.Marshal(p)
	if err != nil {
		// Plain data cannot fail; if it does, it must not look like an unchanged program.
		return fmt.Sprintf("unhashable: %v", err)
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// environment of a process: a little of the agent's own, where its archive lies, what the
// program asks for, and its mark.
func environment(p api.Program, archive, token string) []string {
	env := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, name := range []string{"PATH", "HOME", "JAVA_HOME", "LANG", "TZ"} {
		if value, ok := os.LookupEnv(name); ok {
			env[name] = value
		}
	}
	if archive != "" {
		env["ARCHIVE"] = archive
	}
	maps.Copy(env, p.Env)
	env[tokenVariable] = token
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// installExecutable copies the agent's executable below dir, named by content, so that
// what it starts does not change or vanish when the file is built anew.
func installExecutable(source, dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // other users pass through, the folders below are closed
		return "", fmt.Errorf("make the folder of executables: %w", err)
	}
	temp := filepath.Join(dir, ownBinary+".new")
	sum, err := copyExecutable(source, temp)
	if err != nil {
		return "", fmt.Errorf("copy the agent's executable: %w", err)
	}
	target := filepath.Join(dir, ownBinary+"-"+sum)
	if err := os.Rename(temp, target); err != nil {
		return "", fmt.Errorf("place the agent's executable: %w", err)
	}
	return target, nil
}

// copyExecutable copies piece by piece, because an executable is larger than all else that
// an agent holds in memory; it returns what names the content.
func copyExecutable(source, target string) (string, error) {
	in, err := os.Open(source) //nolint:gosec // a path of the agent itself
	if err != nil {
		return "", err
	}
	defer func() { _ = in.Close() }()                                          // only read
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755) //nolint:gosec // an executable
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, hash), in)
	if err := errors.Join(err, out.Close()); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)[:6]), nil
}
