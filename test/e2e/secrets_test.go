package e2e

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"castellan.dev/castellan/test/e2e/stand"
)

// watchArguments keeps the command lines of all processes that it sees, until the returned function is called.
func watchArguments(t *testing.T) func() string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	seen := map[string]bool{}
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is good
			for _, file := range files {
				if line, err := os.ReadFile(file); err == nil { // else it has ended
					seen[string(line)] = true
				}
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	stop := func() string {
		cancel()
		ended.Wait()
		var all strings.Builder
		for line := range seen {
			all.WriteString(line)
			all.WriteByte('\n')
		}
		return all.String()
	}
	t.Cleanup(func() { stop() })
	return stop
}

// knownSecrets are texts that must be nowhere but in Secrets, and what they are of.
type knownSecrets struct {
	s     *stand.Stand
	texts map[string]string
}

func newKnownSecrets(t *testing.T, s *stand.Stand, given string) *knownSecrets {
	t.Helper()
	k := &knownSecrets{s: s, texts: map[string]string{}}
	k.whole("what Keycloak knows", []byte(given))
	k.add(t)
	return k
}

// add takes what the Secrets of all namespaces hold by now, and keeps what they held.
func (k *knownSecrets) add(t *testing.T) {
	t.Helper()
	var list corev1.SecretList
	if err := k.s.Client().List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		for key, value := range list.Items[i].Data {
			of := list.Items[i].Namespace + "/" + list.Items[i].Name + ", " + key
			if slices.Contains([]string{"password", "user.password", "digest.key", "token"}, key) {
				k.whole(of, value)
			}
			k.keys(of, value)
		}
	}
}

// whole is a secret as it is, and as it would stand between quotes, in base64 and in hex.
func (k *knownSecrets) whole(of string, value []byte) {
	for _, text := range []string{string(value), strings.Trim(strconv.Quote(string(value)), `"`), base64.StdEncoding.EncodeToString(value), hex.EncodeToString(value)} {
		k.texts[text] = of
	}
}

// keys are the lines of private keys in PEM, but for the last one, which has what everybody may know.
func (k *knownSecrets) keys(of string, value []byte) {
	for block, rest := pem.Decode(value); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))), "\n")
		for _, line := range lines[1 : len(lines)-2] {
			k.texts[line] = of
		}
	}
}

// areNowhere looks for all of them in objects, logs and arguments. One is planted, which must be found.
func (k *knownSecrets) areNowhere(t *testing.T, arguments string) {
	t.Helper()
	for _, of := range []string{
		"what Keycloak knows", "default/kafka-ca, ca.key", "default/kafka-clients-ca, ca.key", "default/kafka-operator, tls.key", "default/keeper-cert, user.key",
		"default/keeper-cert, user.password", "default/reader-scram, password", "default/reader-scram, digest.key", "default/mover-cert, password", "default/odd-scram, password",
	} {
		if !slices.Contains(slices.Collect(maps.Values(k.texts)), of) {
			t.Errorf("%s was not found in a Secret: the search knows too little", of)
		}
	}
	planted := rand.Text()
	k.whole("a test", []byte(planted))
	if err := k.s.Client().Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "planted"}, Data: map[string]string{"text": planted}}); err != nil {
		t.Fatal(err)
	}
	places := map[string]string{"arguments of processes": arguments}
	k.objects(t, places)
	k.logs(t, places)
	if diff := cmp.Diff([]string{"configmaps has what is secret of a test"}, k.found(places)); diff != "" {
		t.Errorf("secrets outside of Secrets (-want +got):\n%s", diff)
	}
	for place, text := range map[string]string{
		"arguments of processes": "castellan-controlplane", "kafkausers": "keeper-cert", "hostprocesses": "kafka-0", "events": "default",
	} {
		if !strings.Contains(places[place], text) {
			t.Errorf("%s was not found in %s, where it is: the search sees nothing", text, place)
		}
	}
}

// found says which places have what.
func (k *knownSecrets) found(places map[string]string) []string {
	var found []string
	for place, content := range places {
		for text, of := range k.texts {
			if strings.Contains(content, text) {
				found = append(found, place+" has what is secret of "+of)
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// objects are those of every kind but Secret, by resource.
func (k *knownSecrets) objects(t *testing.T, places map[string]string) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", k.s.Dir().Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	kinds, err := discovery.NewDiscoveryClientForConfigOrDie(config).ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	objects := dynamic.NewForConfigOrDie(config)
	for _, group := range kinds {
		version, err := schema.ParseGroupVersion(group.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range group.APIResources {
			if !slices.Contains(kind.Verbs, "list") || kind.Name == "secrets" {
				continue
			}
			list, err := objects.Resource(version.WithResource(kind.Name)).List(t.Context(), metav1.ListOptions{})
			if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
				continue
			}
			if err != nil {
				t.Fatalf("list %s: %v", kind.Name, err)
			}
			text, err := json.Marshal(list)
			if err != nil {
				t.Fatal(err)
			}
			places[kind.Name] += string(text)
		}
	}
}

// logs are those below the stand's folder, Kafka's own segments among them.
func (k *knownSecrets) logs(t *testing.T, places map[string]string) {
	t.Helper()
	err := filepath.WalkDir(string(k.s.Dir()), func(file string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was there a moment ago
		}
		if err != nil || entry.IsDir() || filepath.Ext(file) != ".log" {
			return err
		}
		content, err := os.ReadFile(file)
		if err == nil {
			places[file] = string(content)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{stand.Operator, stand.Agent, stand.ControlPlane} {
		if places[k.s.Dir().Log(name)] == "" {
			t.Errorf("the log of %s was not found", name)
		}
	}
}
