package main

import (
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

const (
	etcdQuota = 4 << 30
	// slowRequest: the library's zero calls every request slow.
	slowRequest = 500 * time.Millisecond
)

// runEtcd runs one etcd that a power cut may damage: it does not wait for the disk, and so is as fast as two busy cores let
// it be. (Processes that are killed lose nothing: the host's page cache has all they wrote.)
func runEtcd() int {
	flags := flag.NewFlagSet("etcd", flag.ExitOnError)
	dir := flags.String("data-dir", "", "where the data is")
	listen := flags.String("listen", "http://127.0.0.1:2379", "URL for clients")
	_ = flags.Parse(os.Args[1:]) // ends the process itself
	if err := serveEtcd(*dir, *listen); err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return 1
	}
	return 0
}

func serveEtcd(dir, listen string) error {
	client, err := url.Parse(listen)
	if err != nil {
		return fmt.Errorf("parse --listen: %w", err)
	}
	cfg := embed.NewConfig()
	cfg.Dir = dir
	cfg.UnsafeNoFsync = true
	cfg.LogLevel = "warn"
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	cfg.ListenPeerUrls = nil
	cfg.QuotaBackendBytes = etcdQuota
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "10m"
	cfg.WarningUnaryRequestDuration = slowRequest
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer server.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	select {
	case <-stop:
		return nil
	case err, ok := <-server.Err():
		if !ok {
			return errors.New("it ended by itself")
		}
		return err
	}
}
