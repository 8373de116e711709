package kafka

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"castellan.dev/castellan/images/debian"
	"castellan.dev/castellan/images/rootfs"
)

func javaTree(ctx context.Context, debs []string) (*rootfs.Tree, error) {
	t := rootfs.New()
	debian.LinkUsr(t)
	for _, deb := range debs {
		if err := debian.Unpack(ctx, t, deb, placeDebian); err != nil {
			return nil, err
		}
	}
	for _, file := range []string{javaHome + "/bin/java", "usr/bin/busybox"} {
		if !t.Has(file) {
			return nil, fmt.Errorf("no package brings /%s: name a headless JRE as Debian or Ubuntu packages it", file)
		}
	}
	for _, tool := range tools() {
		t.Link("usr/bin/"+tool, "busybox")
	}
	return t, addSystem(t)
}

// tools are what a person who looks into a pod expects; busybox has more under its own name.
func tools() []string {
	return strings.Fields("sh ls cat cp mv rm mkdir chmod touch head tail less vi grep sed awk find sort wc cut tr xargs df du free ps top " +
		"kill env id hostname date sleep seq stat md5sum sha256sum tar gzip gunzip nc wget nslookup ip netstat ping test true false echo")
}

func addSystem(t *rootfs.Tree) error {
	pem, err := rootfs.RootsPEM()
	if err != nil {
		return err
	}
	pkcs12, err := rootfs.RootsPKCS12()
	if err != nil {
		return err
	}
	root, user := rootfs.Owner{}, appuser()
	t.Text("etc/passwd", rootfs.Passwd("root", root, "/root", "/bin/sh")+rootfs.Passwd("appuser", user, "/home/appuser", "/bin/sh"))
	t.Text("etc/group", rootfs.Group("root", 0)+rootfs.Group("appuser", user.GID))
	t.Text("etc/nsswitch.conf", "hosts: files dns\n")
	t.Bytes("etc/ssl/certs/ca-certificates.crt", pem, 0o644, root)
	t.Bytes("etc/ssl/certs/java/cacerts", pkcs12, 0o644, root) // where Debian's Java has its link to
	t.Folder("root", 0o700, root)
	t.Folder("tmp", 0o1777, root)
	t.Folder("home/appuser", 0o755, user)
	for _, dir := range []string{"usr/logs", "mnt/shared/config"} {
		t.Folder(dir, 0o755, user)
	}
	for _, dir := range []string{"etc/kafka", "etc/kafka/docker", "etc/kafka/secrets", "var/lib/kafka", "var/lib/kafka/data"} {
		t.Folder(dir, 0o775, rootfs.Owner{UID: user.UID}) // of group root, as the official image has it
	}
	return nil
}

// placeDebian keeps what runs, configuration and licences, and puts Java where Temurin's images have it.
func placeDebian(name string) string {
	name = debian.MergeUsr(name)
	if rest, ok := strings.CutPrefix(name, "usr/lib/jvm/"); ok {
		release, file, below := strings.Cut(rest, "/")
		// Beside the release's folder, java-17-openjdk-amd64, lie links and files that speak of it; docs is a link to what we leave out.
		if !below || !strings.HasPrefix(release, "java-") || file == "docs" {
			return ""
		}
		return javaHome + "/" + file
	}
	for _, drop := range []string{"usr/lib/x86_64-linux-gnu/gconv", "usr/lib/debug"} {
		if name == drop || strings.HasPrefix(name, drop+"/") {
			return ""
		}
	}
	if strings.HasPrefix(name, "usr/share/") {
		if licence, _ := path.Match("usr/share/doc/*/copyright", name); !licence {
			return ""
		}
	}
	return name
}

// placeKafka takes the archive's one folder for /opt/kafka.
func placeKafka(name string) string {
	_, rest, below := strings.Cut(name, "/")
	if !below || strings.HasPrefix(rest, "site-docs/") {
		return ""
	}
	return home + "/" + rest
}

// decompress tells by the first bytes, as names lie.
func decompress(in io.Reader) (plain io.Reader, done func(), err error) {
	buffered := bufio.NewReaderSize(in, 1<<20)
	magic, err := buffered.Peek(2)
	if err != nil {
		return nil, nil, fmt.Errorf("read: %w", err)
	}
	if !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return buffered, func() {}, nil
	}
	z, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, nil, fmt.Errorf("read gzip: %w", err)
	}
	return z, func() { _ = z.Close() }, nil
}
