// Command packagelock writes the lock of a Kafka version for package packages: it has mvn resolve what Kafka
// needs to run and notes every jar with its size and SHA-256, and the digest of the archive they make.
//
// It decides which artifacts make a Kafka, and nothing else; run it again for a new version and read the diff.
//
//	go run ./hack/packagelock -out packages/locks 3.9.2 4.2.1 4.3.1
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"castellan.dev/castellan/packages"
)

func main() {
	out := flag.String("out", "packages/locks", "folder of the locks")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, version := range flag.Args() {
		if err := write(ctx, version, *out); err != nil {
			fmt.Fprintf(os.Stderr, "packagelock: Kafka %s: %v\n", version, err)
			os.Exit(1)
		}
	}
}

type dependency struct {
	Group    string `xml:"groupId"`
	Artifact string `xml:"artifactId"`
	Version  string `xml:"version"`
}

// roots are Kafka's server, its command line tools and a logging backend, which Kafka leaves open.
func roots(version string) []dependency {
	logging := dependency{"org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.3"}
	if strings.HasPrefix(version, "3.") {
		logging = dependency{"org.slf4j", "slf4j-reload4j", "1.7.36"}
	}
	return []dependency{
		{"org.apache.kafka", "kafka_2.13", version},
		{"org.apache.kafka", "kafka-tools", version},
		logging,
	}
}

func write(ctx context.Context, version, out string) error {
	dir, err := os.MkdirTemp("", "packagelock-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	lock := packages.Lock{Product: "Kafka", Version: version, Root: "kafka_2.13-" + version}
	for _, d := range roots(version) {
		lock.From = append(lock.From, d.Group+":"+d.Artifact+":"+d.Version)
	}
	if err := resolve(ctx, dir, roots(version)); err != nil {
		return err
	}
	jars := filepath.Join(dir, "jars")
	if lock.Entries, err = entries(filepath.Join(dir, "repository"), jars); err != nil {
		return err
	}
	h := sha256.New()
	if err := lock.WriteArchive(ctx, h, jars); err != nil {
		return fmt.Errorf("make archive: %w", err)
	}
	lock.Archive = packages.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
	if _, err := packages.ParseLock(lock.String()); err != nil {
		return err
	}
	file := filepath.Join(out, "kafka-"+version+".lock")
	if err := os.WriteFile(file, []byte(lock.String()), 0o600); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	fmt.Printf("%s: %d jars, %d bytes, %s\n", file, len(lock.Entries), lock.Size(), lock.Archive)
	return nil
}

// resolve has mvn put every jar of the runtime class path into dir/repository, in the layout that tells its coordinates.
func resolve(ctx context.Context, dir string, from []dependency) error {
	project := struct {
		XMLName  xml.Name     `xml:"project"`
		Model    string       `xml:"modelVersion"`
		Group    string       `xml:"groupId"`
		Artifact string       `xml:"artifactId"`
		Version  string       `xml:"version"`
		From     []dependency `xml:"dependencies>dependency"`
	}{Model: "4.0.0", Group: "castellan.local", Artifact: "lock", Version: "1", From: from}
	pom, err := xml.Marshal(project)
	if err != nil {
		return fmt.Errorf("write pom: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pom.xml"), pom, 0o600); err != nil {
		return fmt.Errorf("write pom: %w", err)
	}
	cmd := exec.CommandContext(ctx, "mvn", "-B", "-DincludeScope=runtime", "-Dmdep.useRepositoryLayout=true", "-DoutputDirectory=repository",
		"org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mvn: %w", err)
	}
	return nil
}

// entries reads group/as/path/artifact/version/file.jar and links each jar into one folder.
func entries(repository, jars string) ([]packages.LockEntry, error) {
	if err := os.Mkdir(jars, 0o750); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	var found []packages.LockEntry
	err := filepath.WalkDir(repository, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".jar" {
			return err
		}
		entry, err := entryOf(repository, path)
		if err != nil {
			return err
		}
		found = append(found, entry)
		return os.Link(path, filepath.Join(jars, entry.File)) //nolint:gosec // a temporary folder that only this process and mvn write to
	})
	if err != nil {
		return nil, fmt.Errorf("read what mvn resolved: %w", err)
	}
	return found, nil
}

func entryOf(repository, path string) (packages.LockEntry, error) {
	rel, err := filepath.Rel(repository, path)
	if err != nil {
		return packages.LockEntry{}, err
	}
	parts := strings.Split(filepath.ToSlash(rel), "/")
	if len(parts) < 4 {
		return packages.LockEntry{}, fmt.Errorf("%s is not group/artifact/version/file", rel)
	}
	n := len(parts)
	e := packages.LockEntry{Group: strings.Join(parts[:n-3], "."), Artifact: parts[n-3], Version: parts[n-2], File: parts[n-1]}
	rest, ok := strings.CutPrefix(strings.TrimSuffix(e.File, ".jar"), e.Artifact+"-"+e.Version)
	if !ok {
		return packages.LockEntry{}, fmt.Errorf("%s is not named artifact-version", rel)
	}
	e.Classifier = strings.TrimPrefix(rest, "-")
	content, err := os.ReadFile(path) //nolint:gosec // a path that the walk gave
	if err != nil {
		return packages.LockEntry{}, err
	}
	sum := sha256.Sum256(content)
	e.SHA256, e.Size = hex.EncodeToString(sum[:]), int64(len(content))
	return e, nil
}
