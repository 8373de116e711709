package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"castellan.dev/castellan/controlplanetest"
)

// TestListenersAreAUnion: the API server refuses what no listener can be, without any webhook.
func TestListenersAreAUnion(t *testing.T) {
	c := controlplanetest.Client(t, controlplanetest.Start(t))
	const oauth = `oauth: {jwksURL: "https://id.example/keys", issuer: "https://id.example"}`
	for i, tt := range []struct{ listener, says string }{
		{`{name: a, port: 1}`, ""},
		{`{name: a, port: 1, authentication: {}}`, ""},
		{`{name: a, port: 1, authentication: {type: ScramSha512}}`, ""},
		{`{name: a, port: 1, tls: {secretRef: {name: x}}, authentication: {type: MutualTLS}}`, ""},
		{`{name: a, port: 1, tls: {}, authentication: {type: OAuth, ` + oauth + `}}`, ""},
		{`{name: a, port: 1, authentication: {type: Plain, plain: {usersSecretRef: {name: x}}}}`, ""},
		{`{name: a, port: 1, authentication: {type: Kerberos}}`, "supported values"},
		{`{name: a, port: 1, authentication: {type: MutualTLS}}`, "need tls"},
		{`{name: a, port: 1, authentication: {type: OAuth, ` + oauth + `}}`, "need tls"},
		{`{name: a, port: 1, tls: {}, authentication: {type: OAuth}}`, "oauth goes with type OAuth"},
		{`{name: a, port: 1, tls: {}, authentication: {` + oauth + `}}`, "oauth goes with type OAuth"},
		{`{name: a, port: 1, authentication: {type: Plain}}`, "plain goes with type Plain"},
		{`{name: a, port: 1, authentication: {type: None, plain: {usersSecretRef: {name: x}}}}`, "plain goes with type Plain"},
		{`{name: a, port: 1, authentication: {type: Plain, plain: {usersSecretRef: {name: ""}}}}`, "usersSecretRef.name"},
		{`{name: a, port: 1, tls: {}, authentication: {type: OAuth, oauth: {jwksURL: "https://id.example"}}}`, "issuer"},
		{`{name: a, port: 1, tls: {}, authentication: {type: OAuth, oauth: {jwksURL: "https://a,https://b", issuer: x}}}`, "jwksURL"},
	} {
		text := fmt.Sprintf("apiVersion: castellan.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {name: c%d, namespace: default}\nspec:\n  version: 4.3.1\n  pools: [{name: a, roles: [broker], replicas: 1}]\n  listeners: [%s]\n", i, tt.listener)
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
			t.Fatal(err)
		}
		err := c.Create(t.Context(), o)
		switch {
		case tt.says == "" && err != nil:
			t.Errorf("%s: %v", tt.listener, err)
		case tt.says != "" && (err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(tt.says))):
			t.Errorf("%s: error %v, want %q", tt.listener, err, tt.says)
		}
	}
}
