package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	certutil "k8s.io/client-go/util/cert"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm"
	"k8s.io/kubernetes/cmd/kubeadm/app/util/kubeconfig"
	"k8s.io/kubernetes/cmd/kubeadm/app/util/pkiutil"
)

const (
	masters = "system:masters"
	// userAdmin is who the administrator's kubeconfig is for.
	userAdmin = "admin"
	userCSI   = "csi"
	userProxy = "system:kube-proxy"
)

// leaf is one certificate, by the name of its files.
type leaf struct {
	file string
	certutil.Config
}

func leaves(nodes []place) []leaf {
	client, server := x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	user := func(file, name string, groups ...string) leaf {
		return leaf{file, certutil.Config{CommonName: name, Organization: groups, Usages: []x509.ExtKeyUsage{client}}}
	}
	all := []leaf{
		{"apiserver", certutil.Config{CommonName: "kube-apiserver", Usages: []x509.ExtKeyUsage{server}, AltNames: certutil.AltNames{
			IPs:      []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(apiIP), net.ParseIP(firstServiceIP)},
			DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + domain},
		}}},
		user("apiserver-kubelet", "kube-apiserver-kubelet-client", masters),
		user("admin", userAdmin, masters),
		user("csi", userCSI, masters),
		user("kube-controller-manager", "system:kube-controller-manager"),
		user("kube-scheduler", "system:kube-scheduler"),
		user("kube-proxy", userProxy),
	}
	for _, p := range nodes {
		node := user(p.name(), "system:node:"+p.name(), "system:nodes")
		node.Usages = append(node.Usages, server)
		node.AltNames = certutil.AltNames{IPs: []net.IP{p.ip().AsSlice()}, DNSNames: []string{p.name()}}
		all = append(all, node)
	}
	return all
}

// makePKI makes a CA, all certificates and a kubeconfig beside each client's, as FILE.crt, FILE.key and FILE.conf.
func makePKI(d Dir, nodes []place) error {
	if err := os.MkdirAll(d.pki(), 0o700); err != nil {
		return fmt.Errorf("make %s: %w", d.pki(), err)
	}
	ca, caKey, err := pkiutil.NewCertificateAuthority(&pkiutil.CertConfig{
		Config: certutil.Config{CommonName: "testkube"}, EncryptionAlgorithm: kubeadm.EncryptionAlgorithmECDSAP256,
	})
	if err != nil {
		return fmt.Errorf("make the CA: %w", err)
	}
	if err := pkiutil.WriteCertAndKey(d.pki(), "ca", ca, caKey); err != nil {
		return fmt.Errorf("write the CA: %w", err)
	}
	for _, l := range leaves(nodes) {
		cert, key, err := pkiutil.NewCertAndKey(ca, caKey, &pkiutil.CertConfig{Config: l.Config, EncryptionAlgorithm: kubeadm.EncryptionAlgorithmECDSAP256})
		if err != nil {
			return fmt.Errorf("make the certificate %s: %w", l.file, err)
		}
		if err := pkiutil.WriteCertAndKey(d.pki(), l.file, cert, key); err != nil {
			return fmt.Errorf("write the certificate %s: %w", l.file, err)
		}
		if err := writeKubeconfig(d, l.file, "https://"+apiAddress, d.path("pki", l.file+".conf")); err != nil {
			return err
		}
	}
	tokens, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the key of service accounts: %w", err)
	}
	if err := pkiutil.WriteKey(d.pki(), "sa", tokens); err != nil {
		return fmt.Errorf("write the key of service accounts: %w", err)
	}
	return nil
}

// writeKubeconfig writes one for a client whose certificate exists.
func writeKubeconfig(d Dir, client, server, path string) error {
	var files [3][]byte
	for i, name := range []string{"ca.crt", client + ".key", client + ".crt"} {
		data, err := os.ReadFile(d.path("pki", name))
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		files[i] = data
	}
	config := kubeconfig.CreateWithCerts(server, "testkube", client, files[0], files[1], files[2])
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("write the kubeconfig %s: %w", path, err)
	}
	return nil
}
