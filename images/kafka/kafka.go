// Package kafka makes the test bed's Kafka image, laid out like the official apache/kafka, which a machine without a registry
// cannot pull: /opt/kafka, Java in /opt/java/openjdk, the same user, folders, ports and environment.
//
// It differs where Castellan does not look: Debian's Java 17 in place of Temurin's 21 on Alpine, busybox in place of Alpine's
// tools, and no start scripts unless the archive brings bin/. So it has no CMD: a pod says what it runs.
package kafka

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"castellan.dev/castellan/images/rootfs"
)

// home is the official image's name for it, and so is the user's number: the first that Alpine gives.
const (
	home     = "opt/kafka"
	javaHome = "opt/java/openjdk"
)

func appuser() rootfs.Owner { return rootfs.Owner{UID: 1000, GID: 1000} }

// Build is one image.
type Build struct {
	Version string
	// Archive is a Kafka as Castellan's package store or Apache has it: a tar, plain or compressed, of one folder with libs/.
	Archive string
	// Libs is a folder of jars, used if Archive is empty.
	Libs string
	// Debs are the files of the Debian packages that Packages names.
	Debs []string
}

// Packages are the Debian packages of the Java layer: a JRE, the libraries that it links, a locale whose charset is UTF-8, and
// one file with a shell and small tools.
func Packages(jre string) []string {
	return []string{jre, "libc6", "libc-bin", "libgcc-s1", "libstdc++6", "zlib1g", "busybox-static"}
}

// Image makes the image, for linux/amd64. The layer of Java depends on Debs only, so that images of several versions share it.
func (b Build) Image(ctx context.Context) (v1.Image, error) { //nolint:ireturn // go-containerregistry has interfaces only
	java, err := javaTree(ctx, b.Debs)
	if err != nil {
		return nil, err
	}
	kafka, err := b.kafkaTree()
	if err != nil {
		return nil, err
	}
	return rootfs.Image(v1.Platform{OS: "linux", Architecture: "amd64"}, b.config(),
		rootfs.Part{Tree: java, What: "Java, its libraries and a shell, from Debian packages"},
		rootfs.Part{Tree: kafka, What: "Kafka " + b.Version})
}

func (b Build) config() v1.Config {
	nothing := struct{}{}
	return v1.Config{
		User: "appuser",
		Env: []string{
			"PATH=/" + javaHome + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"JAVA_HOME=/" + javaHome,
			// Official is en_US.UTF-8; of UTF-8 locales, Debian's C library brings only this one.
			"LANG=C.UTF-8", "LC_ALL=C.UTF-8",
		},
		ExposedPorts: map[string]struct{}{"9092/tcp": nothing},
		Volumes:      map[string]struct{}{"/etc/kafka/secrets": nothing, "/var/lib/kafka/data": nothing, "/mnt/shared/config": nothing},
		WorkingDir:   "/",
		Labels: map[string]string{
			"org.label-schema.name": "kafka", "org.label-schema.description": "Apache Kafka",
			"org.opencontainers.image.title":       "kafka",
			"org.opencontainers.image.version":     b.Version,
			"org.opencontainers.image.description": "Castellan's test bed: laid out like apache/kafka, not made by the Apache Kafka project",
		},
	}
}

func (b Build) kafkaTree() (*rootfs.Tree, error) {
	t := rootfs.New()
	t.Folder(home, 0o755, appuser())
	t.Folder(home+"/libs", 0o755, appuser())
	from := b.Archive
	if b.Archive != "" {
		if err := addArchive(t, b.Archive); err != nil {
			return nil, err
		}
	} else {
		from = b.Libs
		if err := addJars(t, b.Libs); err != nil {
			return nil, err
		}
	}
	if jar := home + "/libs/kafka_2.13-" + b.Version + ".jar"; !t.Has(jar) {
		return nil, fmt.Errorf("%s is no Kafka %s: /%s would be missing; name another one or another version", from, b.Version, jar)
	}
	return t, nil
}

func addJars(t *rootfs.Tree, dir string) error {
	jars, err := filepath.Glob(filepath.Join(dir, "*.jar"))
	if err != nil {
		return fmt.Errorf("look for jars: %w", err)
	}
	for _, jar := range jars {
		t.File(home+"/libs/"+filepath.Base(jar), jar, 0o644, appuser())
	}
	return nil
}

func addArchive(t *rootfs.Tree, file string) error {
	raw, err := os.Open(file) //nolint:gosec // what the user named is read
	if err != nil {
		return fmt.Errorf("open Kafka archive: %w", err)
	}
	defer func() { _ = raw.Close() }()
	plain, done, err := decompress(raw)
	if err != nil {
		return fmt.Errorf("open Kafka archive %s: %w", file, err)
	}
	defer done()
	if err := t.Tar(plain, appuser(), placeKafka); err != nil {
		return fmt.Errorf("read Kafka archive %s: %w", file, err)
	}
	return nil
}
