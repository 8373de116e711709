package packages

import (
	"bufio"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	copyGoal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
	// A whole assembly takes ten seconds; with an empty repository on a slow line, minutes.
	mvnTotal = 30 * time.Minute
	// mvn prints a line per file, and nothing while it downloads a large one.
	mvnIdle = 5 * time.Minute
)

// assemble has mvn fetch the lock's artifacts and makes the archive of them in folder.
func (s *Store) assemble(ctx context.Context, l Lock, folder string, r *reporter) (string, error) {
	if err := s.needSpace("assemble "+l.Product+" "+l.Version, 2*l.Size()); err != nil {
		return "", err
	}
	jars := filepath.Join(folder, "jars")
	if err := s.fetchJars(ctx, l, folder, jars, r); err != nil {
		return "", err
	}
	r.say("writing the archive of %s %s (%d jars, %s)", l.Product, l.Version, len(l.Entries), inMiB(l.Size()))
	file := filepath.Join(folder, "archive")
	out, err := os.Create(file) //nolint:gosec // to open what the caller or the store names is its task
	if err != nil {
		return "", fmt.Errorf("create archive: %w", err)
	}
	if err := errors.Join(l.WriteArchive(ctx, out, jars), out.Sync(), out.Close()); err != nil {
		return "", fmt.Errorf("write archive: %w", err)
	}
	return file, nil
}

// fetchJars goes round a damaged local Maven repository: that is the user's, so it is not touched.
func (s *Store) fetchJars(ctx context.Context, l Lock, folder, jars string, r *reporter) error {
	if err := s.runMvn(ctx, l, folder, jars, r); err != nil {
		return err
	}
	bad, err := l.damaged(ctx, jars)
	if err != nil || len(bad) == 0 {
		return err
	}
	r.say("%v; fetching again without the local Maven repository", bad[0])
	if err := os.RemoveAll(jars); err != nil {
		return fmt.Errorf("remove damaged jars: %w", err)
	}
	if err := s.runMvn(ctx, l, folder, jars, r, "-Dmaven.repo.local="+filepath.Join(folder, "repository")); err != nil {
		return errors.Join(append(bad, err)...)
	}
	if bad, err = l.damaged(ctx, jars); err != nil {
		return err
	}
	return errors.Join(bad...)
}

// runMvn runs mvn in its own process group, so that ending it ends the JVM behind the script too.
func (s *Store) runMvn(ctx context.Context, l Lock, folder, jars string, r *reporter, more ...string) error {
	mvn, err := exec.LookPath(s.mvn())
	if err != nil {
		return fmt.Errorf("there is no mvn to fetch %s %s with: install Maven 3.6.3 or newer, or add a source with the url of an archive: %w", l.Product, l.Version, err)
	}
	pom := filepath.Join(folder, "pom.xml")
	if err := os.WriteFile(pom, []byte(l.pom(jars)), 0o600); err != nil {
		return fmt.Errorf("write pom: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, mvnTotal, fmt.Errorf("mvn took longer than %s", mvnTotal))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	args := append([]string{"-B", "-U", "-Dstyle.color=never", "-f", pom}, more...)
	cmd := exec.CommandContext(ctx, mvn, append(args, copyGoal)...) //nolint:gosec // the operator of this machine chooses mvn
	cmd.Dir = folder
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	r.say("asking mvn for the %d artifacts of %s %s", len(l.Entries), l.Product, l.Version)
	return watchMvn(ctx, cmd, stop, &mvnOutput{lock: l, r: r})
}

func watchMvn(ctx context.Context, cmd *exec.Cmd, stop context.CancelCauseFunc, said *mvnOutput) error {
	// A pipe of our own: Wait must not close it before the last line is read.
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start mvn: %w", err)
	}
	idle := time.AfterFunc(mvnIdle, func() { stop(fmt.Errorf("mvn said nothing for %s", mvnIdle)) })
	defer idle.Stop()
	var follow sync.WaitGroup
	follow.Go(func() { said.follow(read, func() { idle.Reset(mvnIdle) }) })
	err := cmd.Wait()
	_ = write.Close()
	follow.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("mvn was ended: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("mvn failed (%w): check its network access and settings; it said: %s", err, said.why())
	}
	return nil
}

// mvnOutput tells how far mvn is and keeps the lines that say why it failed.
type mvnOutput struct {
	lock         Lock
	r            *reporter
	errors, last []string
	files        int   // downloaded, with poms and plugins
	bytes        int64 // of the lock's jars that were downloaded
}

const keptLines = 8

func (o *mvnOutput) follow(in io.Reader, alive func()) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		alive()
		o.take(strings.TrimSpace(lines.Text()))
	}
	// A line too long for the scanner must not block mvn.
	_, _ = io.Copy(io.Discard, in)
}

func (o *mvnOutput) take(line string) {
	if len(line) > 400 {
		line = line[:400] + "…"
	}
	switch {
	case line == "":
		return
	case strings.HasPrefix(line, "[ERROR]"):
		o.failed(strings.TrimSpace(strings.TrimPrefix(line, "[ERROR]")))
	case strings.Contains(line, "Downloaded from "):
		o.downloaded(line)
	}
	if o.last = append(o.last, line); len(o.last) > keptLines {
		o.last = o.last[1:]
	}
}

// failed keeps a reason and leaves out how to run mvn by hand, which does not help whoever did not.
func (o *mvnOutput) failed(reason string) {
	for _, advice := range []string{"To see the full", "Re-run Maven", "For more information", "[Help"} {
		if strings.HasPrefix(reason, advice) {
			return
		}
	}
	if reason, _, _ = strings.Cut(reason, " -> [Help"); reason != "" && len(o.errors) < keptLines {
		o.errors = append(o.errors, reason)
	}
}

// downloaded reads "Downloaded from name: url (size at speed)".
func (o *mvnOutput) downloaded(line string) {
	if o.files++; o.files%50 == 0 && o.bytes == 0 {
		o.r.say("mvn has downloaded %d files, poms and its own plugins included", o.files)
	}
	url, _, _ := strings.Cut(line, " (")
	for _, e := range o.lock.Entries {
		if e.File == baseName(url) {
			o.bytes += e.Size
			o.r.bytes(o.bytes, o.lock.Size())
		}
	}
}

func (o *mvnOutput) why() string {
	if len(o.errors) > 0 {
		return strings.Join(o.errors, " | ")
	}
	return strings.Join(o.last, " | ")
}

// pom asks for exactly the lock's artifacts: the copy goal follows no dependency of theirs.
func (l Lock) pom(jars string) string {
	type item struct {
		Group      string `xml:"groupId"`
		Artifact   string `xml:"artifactId"`
		Version    string `xml:"version"`
		Classifier string `xml:"classifier,omitempty"`
		Type       string `xml:"type"`
		File       string `xml:"destFileName"`
	}
	type plugin struct {
		Group    string `xml:"groupId"`
		Artifact string `xml:"artifactId"`
		Jars     string `xml:"configuration>outputDirectory"`
		Items    []item `xml:"configuration>artifactItems>artifactItem"`
	}
	project := struct {
		XMLName   xml.Name `xml:"project"`
		Model     string   `xml:"modelVersion"`
		Group     string   `xml:"groupId"`
		Artifact  string   `xml:"artifactId"`
		Version   string   `xml:"version"`
		Packaging string   `xml:"packaging"`
		Plugin    plugin   `xml:"build>plugins>plugin"`
	}{
		Model: "4.0.0", Group: "castellan.local", Artifact: "package", Version: "1", Packaging: "pom",
		Plugin: plugin{Group: "org.apache.maven.plugins", Artifact: "maven-dependency-plugin", Jars: jars},
	}
	for _, e := range l.Entries {
		project.Plugin.Items = append(project.Plugin.Items, item{e.Group, e.Artifact, e.Version, e.Classifier, "jar", e.File})
	}
	text, err := xml.Marshal(project)
	if err != nil {
		panic("marshal a pom of plain strings: " + err.Error())
	}
	return string(text)
}
