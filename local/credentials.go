package local

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"castellan.dev/castellan/core/host"
)

const (
	// tokenLifetime bounds what a stolen token is worth; deleting the ServiceAccount ends it at once.
	tokenLifetime = 30 * 24 * time.Hour
	// tokenCheck is how often the server looks whether a token is in the last third of its life.
	tokenCheck = 6 * time.Hour
)

// account is a child's own identity. A token of a ServiceAccount serves, and not a
// certificate of the control plane's CA: it can be taken back, works with any API server,
// and client-go reads the renewed file by itself.
type account struct {
	name, namespace string
	token           string // file
	kubeconfig      string // file
}

func accounts(d Dir) []account {
	return []account{
		{operatorAccount, systemNamespace, d.token(Operator), d.OperatorKubeconfig()},
		{agentAccount, host.Namespace(HostName), d.token(Agent), d.AgentKubeconfig()},
	}
}

// ensureCredentials writes kubeconfig and token of every child that lacks them or whose
// token ends soon.
func ensureCredentials(ctx context.Context, c client.Client, config *rest.Config, d Dir, now time.Time) error {
	for _, a := range accounts(d) {
		if err := a.ensureToken(ctx, c, now); err != nil {
			return err
		}
		if err := a.writeKubeconfig(config); err != nil {
			return err
		}
	}
	return nil
}

func (a account) ensureToken(ctx context.Context, c client.Client, now time.Time) error {
	if held, err := os.ReadFile(a.token); err == nil && tokenServes(string(held), now) && a.knows(ctx, c, string(held)) {
		return nil
	}
	seconds := int64(tokenLifetime / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	owner := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: a.name}}
	if err := c.SubResource("token").Create(ctx, owner, request); err != nil {
		return fmt.Errorf("request a token for %s/%s: %w", a.namespace, a.name, err)
	}
	return writeFile(a.token, []byte(request.Status.Token))
}

// knows says whether the API server accepts a token: one of a restored or a new control
// plane does not know what an older one gave out.
func (a account) knows(ctx context.Context, c client.Client, token string) bool {
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	err := c.Create(ctx, review)
	return err == nil && review.Status.Authenticated
}

// tokenServes reads the dates in a token (JWT, not verified here) and says whether it is
// in the first two thirds of its life.
func tokenServes(token string, now time.Time) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return false
	}
	var claims struct {
		IssuedAt int64 `json:"iat"`
		Expires  int64 `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return false
	}
	return now.Unix() < claims.Expires-(claims.Expires-claims.IssuedAt)/3
}

func (a account) writeKubeconfig(server *rest.Config) error {
	const name = "castellan"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: server.Host, CertificateAuthorityData: server.CAData}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{TokenFile: a.token}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name, Namespace: a.namespace}
	config.CurrentContext = name
	data, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encode the kubeconfig of %s: %w", a.name, err)
	}
	return writeFile(a.kubeconfig, data)
}
