package pki

import (
	"bytes"
	"fmt"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"castellan.dev/castellan/controlplane/internal/datadir"
)

// WriteKubeconfig writes the administrator's kubeconfig for a server URL, with all certificates embedded.
func WriteKubeconfig(dir datadir.Dir, url string) error {
	const name = "castellan"
	var files [3][]byte
	for i, path := range []string{dir.CACert(), dir.AdminCert(), dir.AdminKey()} {
		data, err := os.ReadFile(path) //nolint:gosec // a path of the data directory
		if err != nil {
			return fmt.Errorf("read certificate for kubeconfig: %w", err)
		}
		files[i] = data
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: url, CertificateAuthorityData: files[0]}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: files[1], ClientKeyData: files[2]}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	data, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encode kubeconfig: %w", err)
	}
	if old, err := os.ReadFile(dir.AdminKubeconfig()); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return datadir.WriteFile(dir.AdminKubeconfig(), data)
}
