package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"castellan.dev/castellan/images/debian"
	"castellan.dev/castellan/images/kafka"
	"castellan.dev/castellan/images/rootfs"
)

func kafkaCommand() *cobra.Command {
	var (
		build                 kafka.Build
		out, name, debs, java string
	)
	cmd := &cobra.Command{
		Use:   "kafka --version V (--archive FILE | --libs DIR) --out DIR",
		Short: "Make the test bed's Kafka image, laid out like apache/kafka",
		Long: `Makes a Kafka image for tests, laid out like the official apache/kafka: Kafka in /opt/kafka, Java in /opt/java/openjdk, user
appuser (1000). It is for linux/amd64 and for machines that cannot pull the official one; it is not meant to be published.

  DIR/kafka-V.tar  a docker-archive, for "docker load" or "ctr -n k8s.io images import"

Java comes from Debian packages, which apt-get downloads once. Images made from the same packages share Java's layer.`,
		Example: `  castellan-images kafka --version 4.3.1 --archive kafka_2.13-4.3.1.tgz --out dist`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if debs == "" {
				if debs, err = cacheDir(); err != nil {
					return err
				}
			}
			if build.Debs, err = debian.Fetch(cmd.Context(), debs, kafka.Packages(java)); err != nil {
				return err
			}
			img, err := build.Image(cmd.Context())
			if err != nil {
				return err
			}
			file, ref := filepath.Join(out, "kafka-"+build.Version+".tar"), name+":"+build.Version
			if err := rootfs.SaveArchive(file, ref, img); err != nil {
				return err
			}
			return say(cmd, file, ref)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&build.Version, "version", "", "Kafka's version, which is the tag too")
	flags.StringVar(&build.Archive, "archive", "", "Kafka's archive as Apache or Castellan's package store has it, tar or tgz")
	flags.StringVar(&build.Libs, "libs", "", "folder of Kafka's jars, in place of an archive")
	flags.StringVar(&out, "out", "", "folder to write to")
	flags.StringVar(&name, "name", "apache/kafka", "image name without tag")
	flags.StringVar(&debs, "java-debs", "", "folder that keeps Debian packages; default debs in $CASTELLAN_CACHE, else in castellan in the user's cache folder")
	flags.StringVar(&java, "java", "openjdk-17-jre-headless", "Debian package of the JRE")
	required(cmd, "version", "out")
	cmd.MarkFlagsOneRequired("archive", "libs")
	cmd.MarkFlagsMutuallyExclusive("archive", "libs")
	return cmd
}

func cacheDir() (string, error) {
	dir := os.Getenv("CASTELLAN_CACHE")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache folder, name one with --java-debs: %w", err)
		}
		dir = filepath.Join(cache, "castellan")
	}
	return filepath.Join(dir, "debs"), nil
}
