package pki

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"castellan.dev/castellan/controlplane/internal/datadir"
)

// encryptionTemplate encrypts Secrets only; identity last lets Secrets written before encryption still be read.
const encryptionTemplate = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox:
      keys:
      - name: key1
        secret: %s
  - identity: {}
`

func ensureEncryption(dir datadir.Dir, fresh bool) error {
	_, err := os.Stat(dir.Encryption())
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for the encryption key: %w", err)
	}
	if !fresh {
		return lost(dir.Encryption(), "key that Secrets are encrypted with")
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // crypto/rand.Read never fails since Go 1.24
	return datadir.WriteFile(dir.Encryption(), fmt.Appendf(nil, encryptionTemplate, base64.StdEncoding.EncodeToString(key)))
}
