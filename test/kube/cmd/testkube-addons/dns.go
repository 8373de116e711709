package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/coredns/caddy"
	_ "github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
)

// serveDNS runs CoreDNS with the plugins imported above, which are those that a cluster without the outside world needs.
// (CoreDNS's own list brings the software of every cloud.)
func serveDNS(ctx context.Context, corefile []byte) error {
	caddy.AppName, caddy.Quiet = "CoreDNS", true
	log.SetOutput(os.Stdout)
	server, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", Contents: corefile, ServerTypeName: "dns"})
	if err != nil {
		return fmt.Errorf("start CoreDNS: %w", err)
	}
	<-ctx.Done()
	for _, err := range server.ShutdownCallbacks() {
		log.Print(err)
	}
	if err := server.Stop(); err != nil {
		return fmt.Errorf("stop CoreDNS: %w", err)
	}
	return nil
}
