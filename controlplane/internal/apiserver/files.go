package apiserver

import (
	"castellan.dev/castellan/controlplane/internal/datadir"
)

// auditPolicy records who did what at metadata level: no request or response body, hence no secret, is ever logged.
// What the server's own controllers read, and questions that change nothing and are asked all the time, is left out.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:apiserver"]
  verbs: [get, list, watch]
- level: None
  nonResourceURLs: ["/livez*", "/readyz*", "/healthz*", "/version", "/openapi*", "/api", "/api/*", "/apis", "/apis/*"]
  verbs: [get, list, head]
- level: Metadata
`

// authentication lets nobody in anonymously but those who ask for health.
const authentication = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
  - path: /livez
  - path: /readyz
  - path: /healthz
`

// WriteConfig writes the configuration files that the server reads at start. They hold no state: each start replaces them.
func WriteConfig(dir datadir.Dir) error {
	if err := datadir.WriteFile(dir.AuditPolicy(), []byte(auditPolicy)); err != nil {
		return err
	}
	return datadir.WriteFile(dir.Authentication(), []byte(authentication))
}
