package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// write makes files and links ("-> target") below dir.
func write(t *testing.T, dir string, contents map[string]string) {
	t.Helper()
	for file, content := range contents {
		file = filepath.Join(dir, file)
		err := os.MkdirAll(filepath.Dir(file), 0o755)
		if target, link := strings.CutPrefix(content, "-> "); link {
			err = errors.Join(err, os.Symlink(target, file))
		} else {
			err = errors.Join(err, os.WriteFile(file, []byte(content), 0o755))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// debs fills a cache with small packages that have the places of the real ones.
func debs(t *testing.T) string {
	t.Helper()
	cache := t.TempDir()
	for pkg, contents := range map[string]map[string]string{
		"openjdk-17-jre-headless": {
			"usr/lib/jvm/java-17-openjdk-amd64/bin/java":             "java",
			"usr/lib/jvm/java-17-openjdk-amd64/lib/security/cacerts": "-> /etc/ssl/certs/java/cacerts",
			"usr/lib/jvm/java-17-openjdk-amd64/docs":                 "-> ../../../share/doc/java",
			"usr/lib/jvm/java-1.17.0-openjdk-amd64":                  "-> java-17-openjdk-amd64",
			"etc/java-17-openjdk/security/java.security":             "secure",
			"usr/share/man/man1/java.1.gz":                           "man",
		},
		"libc6":          {"lib64/ld-linux-x86-64.so.2": "-> /lib/ld.so", "lib/ld.so": "ld", "usr/lib/x86_64-linux-gnu/gconv/X.so": "x"},
		"libc-bin":       {"usr/lib/locale/C.utf8/LC_CTYPE": "utf8"},
		"libgcc-s1":      {"lib/libgcc_s.so.1": "gcc"},
		"libstdc++6":     {"usr/lib/libstdc++.so.6": "c++", "usr/share/doc/libstdc++6/copyright": "GPL with exception"},
		"zlib1g":         {"lib/libz.so.1": "z"},
		"busybox-static": {"bin/busybox": "busybox"},
	} {
		dir := t.TempDir()
		// dpkg-deb wants it public.
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, dir, contents)
		write(t, dir, map[string]string{"DEBIAN/control": "Package: " + pkg + "\nVersion: 1\nArchitecture: amd64\nMaintainer: test <test@example.org>\nDescription: test\n"})
		if text, err := exec.Command("dpkg-deb", "--build", "-Znone", dir, filepath.Join(cache, pkg+"_1_amd64.deb")).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
	return cache
}

// archive makes a .tgz as Apache and the package store have it, but for size.
func archive(t *testing.T, version string) string {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, file := range []string{"LICENSE", "libs/kafka_2.13-" + version + ".jar", "libs/zstd-jni.jar", "bin/kafka-topics.sh", "site-docs/docs.tgz"} {
		err := w.WriteHeader(&tar.Header{Name: "kafka_2.13-" + version + "/" + file, Typeflag: tar.TypeReg, Mode: 0o755, Uid: 12, Gid: 13})
		if err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "kafka.tgz")
	if err := errors.Join(w.Close(), z.Close(), os.WriteFile(file, out.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return file
}

func kafkaImage(t *testing.T, version, cache string, args ...string) v1.Image { //nolint:ireturn // go-containerregistry has interfaces only
	t.Helper()
	out := t.TempDir()
	mustMake(t, append([]string{"kafka", "--version", version, "--out", out, "--java-debs", cache}, args...)...)
	tag, err := name.NewTag("apache/kafka:" + version)
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(filepath.Join(out, "kafka-"+version+".tar"), &tag)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestTheKafkaImageIsLaidOutLikeTheOfficialOne(t *testing.T) {
	img := kafkaImage(t, "4.3.1", debs(t), "--archive", archive(t, "4.3.1"))
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	found := files(t, img)
	for path, want := range map[string]string{
		"opt/kafka":                                  "50755 1000:1000",
		"opt/kafka/libs":                             "50755 1000:1000",
		"opt/kafka/libs/kafka_2.13-4.3.1.jar":        "00755 1000:1000",
		"opt/kafka/LICENSE":                          "00755 1000:1000",
		"opt/kafka/bin/kafka-topics.sh":              "00755 1000:1000",
		"opt/java/openjdk/bin/java":                  "00755 0:0",
		"opt/java/openjdk/lib/security/cacerts":      "20777 0:0/etc/ssl/certs/java/cacerts",
		"etc/ssl/certs/java/cacerts":                 "00644 0:0",
		"etc/java-17-openjdk/security/java.security": "00755 0:0",
		"lib64":                                      "20777 0:0usr/lib64",
		"usr/lib64/ld-linux-x86-64.so.2":             "20777 0:0/lib/ld.so",
		"usr/lib/locale/C.utf8/LC_CTYPE":             "00755 0:0",
		"usr/share/doc/libstdc++6/copyright":         "00755 0:0",
		"usr/bin/sh":                                 "20777 0:0busybox",
		"tmp":                                        "501777 0:0",
		"var/lib/kafka/data":                         "50775 1000:0",
		"mnt/shared/config":                          "50755 1000:1000",
		"home/appuser":                               "50755 1000:1000",
		"opt/java/openjdk/docs":                      "", // and what is left out
		"opt/kafka/site-docs/docs.tgz":               "",
		"usr/share/man/man1/java.1.gz":               "",
		"usr/lib/jvm/java-1.17.0-openjdk-amd64":      "",
		"usr/lib/x86_64-linux-gnu/gconv/X.so":        "",
		"usr/lib/jvm/java-17-openjdk-amd64/bin/java": "",
	} {
		if found[path] != want {
			t.Errorf("/%s is %q, want %q", path, found[path], want)
		}
	}
	want := v1.Config{
		User: "appuser", WorkingDir: "/",
		Env: []string{
			"PATH=/opt/java/openjdk/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"JAVA_HOME=/opt/java/openjdk", "LANG=C.UTF-8", "LC_ALL=C.UTF-8",
		},
		ExposedPorts: map[string]struct{}{"9092/tcp": {}},
		Volumes:      map[string]struct{}{"/etc/kafka/secrets": {}, "/var/lib/kafka/data": {}, "/mnt/shared/config": {}},
	}
	got := config(t, img).Config
	got.Labels = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (- want, + got):\n%s", diff)
	}
}

func TestVersionsShareTheLayerOfJava(t *testing.T) {
	cache := debs(t)
	jars := t.TempDir()
	write(t, jars, map[string]string{"kafka_2.13-4.2.1.jar": "kafka"})
	var layers [][]v1.Layer
	for _, img := range []v1.Image{
		kafkaImage(t, "4.3.1", cache, "--archive", archive(t, "4.3.1")),
		kafkaImage(t, "4.2.1", cache, "--libs", jars),
	} {
		l, err := img.Layers()
		if err != nil || len(l) != 2 {
			t.Fatalf("%d layers, error %v", len(l), err)
		}
		layers = append(layers, l)
	}
	if digest(t, layers[0][0]) != digest(t, layers[1][0]) || digest(t, layers[0][1]) == digest(t, layers[1][1]) {
		t.Error("want the first layer to be the same, and the second to differ")
	}
}

func TestAnotherKafkaThanNamedIsRefused(t *testing.T) {
	cache := debs(t)
	for _, source := range [][]string{{"--archive", archive(t, "4.3.0")}, {"--libs", t.TempDir()}} {
		_, err := castellanImages(t, append([]string{"kafka", "--version", "4.3.1", "--out", t.TempDir(), "--java-debs", cache}, source...)...)
		if err == nil || !strings.Contains(err.Error(), "is no Kafka 4.3.1") {
			t.Errorf("%q: error %v", source, err)
		}
	}
}
