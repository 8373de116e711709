package layout_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
	"castellan.dev/castellan/core/layout"
)

var update = flag.Bool("update", false, "write the goldens anew; only for a layout that was never released")

// TestGolden holds what a supervisor renders byte for byte: a node that is started again
// under a released layout must get the same files from every later castellan.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/layout*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens found: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			golden, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := txtar.Format(render(t, golden, strings.Contains(file, "-pod")))
			if *update {
				if err := os.WriteFile(file, got, 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(txtar.Format(golden)), string(got)); diff != "" {
				t.Errorf("files changed (-golden +rendered):\n%s", diff)
			}
		})
	}
}

// render keeps the inputs of a golden and renders everything else anew.
func render(t *testing.T, golden *txtar.Archive, pod bool) *txtar.Archive {
	t.Helper()
	var static layout.Static
	var live layout.Live
	facts := layout.Facts{TLSDir: "/p/tls", SSLEngine: "the.Engine", PrincipalBuilder: "the.PrincipalBuilder", PlainUsers: "the.PlainUsers", OAuth: "the.OAuth", OAuthLogin: "the.OAuthLogin"}
	out := &txtar.Archive{Comment: golden.Comment}
	for _, f := range golden.Files {
		into := map[string]any{"node.yaml": &static, "live.yaml": &live, "advertised.yaml": &facts.Advertised}[f.Name]
		if into == nil {
			continue
		}
		if err := yaml.UnmarshalStrict(f.Data, into); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		out.Files = append(out.Files, f)
	}
	properties, err := layout.Properties(static, live, facts)
	if err != nil {
		t.Fatal(err)
	}
	jvmOptions, logging := layout.JVMOptions, layout.Logging(static.Process.Version)
	if pod {
		jvmOptions, logging = layout.PodJVMOptions, layout.PodLogging(static.Process.Version)
	}
	options, err := jvmOptions(static)
	if err != nil {
		t.Fatal(err)
	}
	options = append(options, logging.Option)
	out.Files = append(out.Files,
		txtar.File{Name: "server.properties", Data: kconf.Write(properties)},
		txtar.File{Name: "jvm", Data: []byte(strings.Join(options, "\n") + "\n")},
		txtar.File{Name: logging.Name, Data: []byte(logging.Content)},
	)
	if pod {
		out.Files = append(out.Files, txtar.File{Name: layout.SecurityFile, Data: []byte(layout.PodSecurity())})
	}
	return out
}

func TestPropertiesRefuses(t *testing.T) {
	good := func() layout.Static {
		return layout.Static{
			NodeID: 1, Roles: []api.Role{api.RoleBroker}, Process: api.ProcessSpec{Layout: 1},
			Volumes: []layout.Volume{{Name: "data", Path: "/data"}}, Ports: map[string]int32{"INTERNAL": 9091}, Address: "h1",
		}
	}
	if _, err := layout.Properties(good(), layout.Live{}, layout.Facts{}); err != nil {
		t.Fatalf("a good node is refused: %v", err)
	}
	for reason, spoil := range map[string]func(*layout.Static){
		"layout 3":        func(s *layout.Static) { s.Process.Layout = 3 },
		"need layout 2":   func(s *layout.Static) { s.Process.SuperUsers = []string{"User:admin"} },
		"no volume":       func(s *layout.Static) { s.Volumes = nil },
		"not usable":      func(s *layout.Static) { s.Volumes[0].Path = "/data/a,b" },
		"an absolute one": func(s *layout.Static) { s.Volumes[0].Path = "data" },
		"PLAIN has no port": func(s *layout.Static) {
			s.Process.Listeners = []api.NodeListener{{Name: "PLAIN", Protocol: "PLAINTEXT"}}
		},
		"both INTERNAL": func(s *layout.Static) {
			s.Process.Listeners = []api.NodeListener{{Name: "INTERNAL", Protocol: "PLAINTEXT"}}
		},
		"has no port":            func(s *layout.Static) { s.Ports = nil },
		"no way to authenticate": func(s *layout.Static) { listen(s, api.NodeListener{Name: "a", Protocol: "SASL_SSL"}) },
		"whose tokens": func(s *layout.Static) {
			listen(s, api.NodeListener{Name: "a", Protocol: "SASL_SSL", Authentication: api.AuthenticationOAuth})
		},
		"Kerberos, which": func(s *layout.Static) {
			listen(s, api.NodeListener{Name: "a", Protocol: "SASL_SSL", Authentication: "Kerberos"})
		},
		"CONTROLLER has no ": func(s *layout.Static) { s.Roles = append(s.Roles, api.RoleController) },
	} {
		s := good()
		spoil(&s)
		if _, err := layout.Properties(s, layout.Live{}, layout.Facts{}); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: error %v", reason, err)
		}
	}
}

// A user may call a listener like one of ours: to Kafka they stay two.
func TestClientListenerNamedLikeOneOfOurs(t *testing.T) {
	s := layout.Static{
		NodeID: 1, Roles: []api.Role{api.RoleBroker}, Volumes: []layout.Volume{{Name: "data", Path: "/data"}}, Address: "127.0.0.1",
		Ports:   map[string]int32{"INTERNAL": 9091, "internal": 9092, "controller": 9093},
		Process: api.ProcessSpec{Layout: 1, Listeners: []api.NodeListener{{Name: "controller", Protocol: "PLAINTEXT"}, {Name: "internal", Protocol: "SSL"}}},
	}
	got, err := layout.Properties(s, layout.Live{}, layout.Facts{})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"listeners": "INTERNAL://127.0.0.1:9091,CLIENT-CONTROLLER://127.0.0.1:9093,CLIENT-INTERNAL://127.0.0.1:9092",

		"listener.security.protocol.map": "CONTROLLER:SSL,INTERNAL:SSL,CLIENT-CONTROLLER:PLAINTEXT,CLIENT-INTERNAL:SSL",

		"listener.name.client-internal.ssl.client.auth":             "none",
		"listener.name.client-internal.ssl.principal.mapping.rules": "DEFAULT",
		"inter.broker.listener.name":                                "INTERNAL",
		"ssl.client.auth":                                           "required",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
}

// What Castellan owns stands, whatever the configuration of the process says.
func TestOwnKeysStand(t *testing.T) {
	s := layout.Static{
		NodeID: 1, Roles: []api.Role{api.RoleBroker}, Volumes: []layout.Volume{{Name: "data", Path: "/data"}},
		Ports: map[string]int32{"INTERNAL": 9091}, Address: "127.0.0.1",
		Process: api.ProcessSpec{Layout: 1, Config: map[string]string{"super.users": "User:ANONYMOUS", "ssl.client.auth": "none", "listeners": "X://:1", "num.io.threads": "3"}},
	}
	got, err := layout.Properties(s, layout.Live{}, layout.Facts{})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"super.users": layout.SuperUsers(), "ssl.client.auth": "required", "listeners": "INTERNAL://127.0.0.1:9091", "num.io.threads": "3",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
}

func TestBindAddress(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1": "127.0.0.1", "127.0.0.2": "127.0.0.2", "::1": "[::1]", "localhost": "localhost",
		"10.0.0.1": "0.0.0.0", "h1.example": "0.0.0.0", "fd00::1": "0.0.0.0",
	} {
		s := layout.Static{Roles: []api.Role{api.RoleBroker}, Ports: map[string]int32{"INTERNAL": 1}, Address: address}
		listeners, err := layout.Listeners(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := layout.HostPort(listeners[0].Bind, 1); got != want+":1" {
			t.Errorf("address %s: bound to %s, want %s", address, got, want)
		}
	}
}

func TestJVMOptions(t *testing.T) {
	s := layout.Static{Process: api.ProcessSpec{HeapBytes: 1 << 30, JVMOptions: []string{"-XX:+UseZGC"}}}
	options, err := layout.JVMOptions(s)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(options, " ")
	if strings.Contains(text, "G1") || !strings.Contains(text, "-XX:+UseZGC") {
		t.Errorf("another collector than the chosen one: %s", text)
	}
	s.Process.JVMOptions = []string{"-XX:OnError=reboot"}
	if _, err := layout.JVMOptions(s); err == nil || !strings.Contains(err.Error(), "runs a command") {
		t.Errorf("an option that runs a command: error %v", err)
	}
	s.Process.JVMOptions, s.Process.HeapBytes = nil, 0
	if _, err := layout.JVMOptions(s); err == nil {
		t.Error("no heap is accepted")
	}
}

func TestRefuseJVMOption(t *testing.T) {
	for _, bad := range []string{
		"-XX:OnOutOfMemoryError=x", "-XX:OnError=x", "-javaagent:x.jar", "-agentlib:jdwp", "-agentpath:/x", "@file", "-XX:Flags=f", "-XX:VMOptionsFile=f",
		"kafka.Kafka", "-cp", "-Xmx1g", "-Xint\n-javaagent:x", "",
	} {
		if layout.RefuseJVMOption(bad) == "" {
			t.Errorf("%q is accepted", bad)
		}
	}
	for _, good := range []string{"-XX:+UseZGC", "-Dx=y", "-XX:MaxDirectMemorySize=1g", "-Xss1m"} {
		if why := layout.RefuseJVMOption(good); why != "" {
			t.Errorf("%q is refused: %s", good, why)
		}
	}
}

func listen(s *layout.Static, l api.NodeListener) {
	s.Process.Layout, s.Process.Listeners, s.Ports[l.Name] = layout.Authenticated, []api.NodeListener{l}, 9092
}

// TestFirstLayoutOpensNothing: whatever is beyond layout 1 must not be rendered under it by a
// supervisor that would leave it out.
func TestFirstLayoutOpensNothing(t *testing.T) {
	for reason, p := range map[string]api.ProcessSpec{
		"mutual TLS":      {Listeners: []api.NodeListener{{Protocol: "SSL", Authentication: api.AuthenticationMutualTLS}}},
		"SCRAM":           {Listeners: []api.NodeListener{{Protocol: "SASL_PLAINTEXT", Authentication: api.AuthenticationScramSha512}}},
		"own certificate": {Listeners: []api.NodeListener{{Protocol: "SSL", OwnCertificate: true}}},
		"super users":     {SuperUsers: []string{"User:admin"}},
	} {
		if got := layout.Of(p); got != layout.Authenticated {
			t.Errorf("%s: layout %d", reason, got)
		}
	}
	open := api.ProcessSpec{Listeners: []api.NodeListener{{Protocol: "SSL"}, {Protocol: "PLAINTEXT", Authentication: api.AuthenticationNone}}}
	if got := layout.Of(open); got != layout.Current {
		t.Errorf("nothing new: layout %d", got)
	}
}
