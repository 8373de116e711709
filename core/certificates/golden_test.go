package certificates_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/core/certificates"
)

// TestReasons holds every text that people read. To take a change over, run with UPDATE_GOLDEN=1.
func TestReasons(t *testing.T) {
	var out bytes.Buffer
	for _, s := range tales() {
		w := newWorld(t, 3, 1)
		fmt.Fprintf(&out, "== %s\n", s.name)
		s.tell(w, func() { w.print(&out) })
		fmt.Fprintln(&out)
	}
	file := filepath.Join("testdata", "reasons.golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("reasons (-golden +now):\n%s", diff)
	}
}

// print computes once and writes what it says.
func (w *world) print(out *bytes.Buffer) {
	w.printed(out, w.pass())
}

func (w *world) printed(out *bytes.Buffer, plan certificates.Plan) {
	fmt.Fprintf(out, "-- %s: cluster %s, clients %s", w.now.Format(time.DateTime), plan.Phases[certificates.Cluster], plan.Phases[certificates.Clients])
	if !plan.Again.IsZero() {
		fmt.Fprintf(out, ", again after %s", plan.Again.Sub(w.now))
	}
	fmt.Fprintln(out)
	for _, s := range plan.Steps {
		fmt.Fprintf(out, "%s: %s\n", s.Action, s.Reason)
	}
	for _, wait := range plan.Waits {
		fmt.Fprintf(out, "wait %s: %s\n", wait.For, wait.Reason)
	}
	for _, p := range plan.Problems {
		fmt.Fprintf(out, "problem: %s\n", p)
	}
}

type tale struct {
	name string
	tell func(w *world, look func())
}

func tales() []tale {
	return slices.Concat(replacements(), leaves(), givenCAs(), repairs())
}

func (w *world) all(look func(), times int) {
	for range times {
		look()
		w.step()
	}
}

func replacements() []tale {
	cluster := func(w *world) *store { return w.stores[certificates.Cluster] }
	return []tale{
		{"a new key for the cluster CA, from the wish to the end", func(w *world, look func()) {
			cluster(w).wish.Generation = 1
			w.all(look, 9)
		}},
		{"a new key for the clients CA, which waits for users", func(w *world, look func()) {
			w.stores[certificates.Clients].wish.Generation = 1
			for range 5 {
				for _, s := range w.pass().Steps {
					w.do(s)
				}
				for _, a := range w.actors {
					if a.Kind != certificates.Client {
						a.takeAll()
					}
				}
				w.advance(time.Minute)
			}
			look()
		}},
		{"nodes that do not answer, were seen earlier, refuse it still", func(w *world, look func()) {
			w.join("node 3", certificates.Node)
			w.settle("one more")
			cluster(w).wish.Generation = 1
			w.do(w.pass().Steps[0])
			w.actor("node 0").down, w.actor("node 1").invisible = true, true
			w.advance(time.Second)
			look()
			for _, s := range w.pass().Steps {
				w.do(s)
			}
			w.advance(time.Minute)
			look()
		}},
		{"a node that was not looked at, and one of which a part is not known", func(w *world, look func()) {
			cluster(w).wish.Generation = 1
			w.do(w.pass().Steps[0])
			for _, s := range w.pass().Steps {
				w.do(s)
			}
			for _, a := range w.actors {
				a.takeAll()
			}
			w.advance(2 * grace)
			w.edit = func(in *certificates.Input) {
				in.Parties[1].Seen, in.Parties[2].Seen.Trusts[certificates.Cluster] = certificates.Seen{}, nil
			}
			look()
		}},
		{"certificates of the old CA are seen still", func(w *world, look func()) {
			cluster(w).wish.Generation = 1
			for range 3 {
				w.step()
			}
			for _, s := range w.pass().Steps {
				w.do(s)
			}
			w.actor("operator").take("")
			w.actor("node 1").take("")
			w.edit = func(in *certificates.Input) { in.Parties[2].Seen.Presents[0].Issuer = "" }
			look()
			w.edit = func(in *certificates.Input) { in.Parties[2].Seen.Presents = nil }
			look()
		}},
		{"reissue waits for a node that stopped answering", func(w *world, look func()) {
			cluster(w).wish.Generation = 1
			for range 3 {
				w.step()
			}
			w.actor("node 2").down = true
			look()
		}},
		{"the wish is put back while the new CA signs, and after the old one was retired", func(w *world, look func()) {
			cluster(w).wish.Generation = 1
			for range 5 {
				w.step()
			}
			cluster(w).wish.Generation = 0
			w.all(look, 3)
		}},
		{"a retired CA that a node accepts still", func(w *world, look func()) {
			cluster(w).wish.Generation = 1
			for range 5 {
				w.step()
			}
			look()
			for _, s := range w.pass().Steps {
				w.do(s)
			}
			look()
			w.actor("node 0").down = true
			look()
		}},
	}
}

func leaves() []tale {
	return []tale{
		{"renewal at two thirds of a life", func(w *world, look func()) {
			w.advance(leafLifetime/3*2 + leafLifetime/60)
			look()
		}},
		{"other addresses, a lost Secret, a new node", func(w *world, look func()) {
			w.actor("node 0").Leaf.Names = false
			w.actor("node 1").forgetSecret()
			w.join("node 3", certificates.Node)
			look()
		}},
		{"a node that does not read its files", func(w *world, look func()) {
			w.advance(leafLifetime / 10 * 9)
			for _, s := range w.pass().Steps {
				w.do(s)
			}
			look()
			w.advance(leafLifetime / 10)
			look()
		}},
		{"a CA in the last third of its life", func(w *world, look func()) {
			w.advance(caLifetime/3*2 + time.Hour)
			look()
		}},
	}
}

func givenCAs() []tale {
	fault := func(key, reason, remedy string) *certificates.Given {
		return &certificates.Given{Secret: "mine", Faults: []certificates.Fault{{Secret: "mine", Key: key, Reason: reason, Remedy: remedy}}}
	}
	return []tale{
		{"the user's own CA, and back to a built-in one", func(w *world, look func()) {
			s := w.stores[certificates.Cluster]
			s.wish.Own = w.own("")
			look()
			w.settle("own CA")
			s.wish.Own = nil
			look()
		}},
		{"the user's own CA with a fault", func(w *world, look func()) {
			w.stores[certificates.Cluster].wish.Own = fault("tls.key", "there is no such key", "put the private key there")
			look()
		}},
		{"the user's own CA with a fault in a new cluster", func(w *world, look func()) {
			w.stores[certificates.Cluster].wish.Own = fault("tls.crt", "it holds no certificate", "put the chain there")
			w.stores[certificates.Cluster].cas, w.stores[certificates.Cluster].signs = nil, ""
			w.edit = func(in *certificates.Input) { in.Authorities[0].Found, in.Parties = nil, nil }
			look()
		}},
		{"the user's own CA ends", func(w *world, look func()) {
			w.stores[certificates.Cluster].wish.Own = w.own("")
			w.settle("own CA")
			w.advance(caLifetime / 10 * 9)
			look()
		}},
		{"another intermediate under the same root", func(w *world, look func()) {
			s := w.stores[certificates.Cluster]
			w.truth["sha256:root"] = certificates.CA{ID: "sha256:root", Anchor: "sha256:root", NotAfter: began.Add(9 * caLifetime)}
			s.wish.Own = w.own("sha256:root")
			w.settle("own CA")
			s.wish.Own = w.own("sha256:root")
			w.all(look, 6)
		}},
	}
}

func repairs() []tale {
	cluster := func(w *world) *store { return w.stores[certificates.Cluster] }
	return []tale{
		{"the Secret cannot be read", func(w *world, look func()) {
			w.edit = func(in *certificates.Input) {
				in.Authorities[0].Unknown = "Secret orders-ca, key ca.key: it holds no private key; restore it from a backup, or delete the Secret: then the CA is replaced, and stays trusted meanwhile"
			}
			look()
		}},
		{"the Secret was deleted", func(w *world, look func()) {
			cluster(w).cas, cluster(w).signs = nil, ""
			w.all(look, 8)
		}},
		{"the Secret was deleted, and a certificate is due before the next CA signs", func(w *world, look func()) {
			w.advance(leafLifetime/3*2 + leafLifetime/30)
			cluster(w).cas, cluster(w).signs = nil, ""
			for range 2 {
				w.do(w.pass().Steps[0])
			}
			w.actor("node 2").down = true
			look()
		}},
		{"the Secret came from an old backup", func(w *world, look func()) {
			backup := *cluster(w)
			cluster(w).wish.Generation = 1
			w.settle("replaced")
			cluster(w).cas, cluster(w).signs = backup.cas, backup.signs
			look()
		}},
		{"everything ended while nobody looked", func(w *world, look func()) {
			w.advance(caLifetime + time.Hour)
			w.all(look, 5)
		}},
		{"leaves ended while nobody looked", func(w *world, look func()) {
			w.advance(leafLifetime + time.Hour)
			look()
		}},
	}
}

func TestFaultNamesSecretAndKey(t *testing.T) {
	f := certificates.Fault{Secret: "mine", Key: "tls.key", Reason: "there is no such key", Remedy: "put the private key there"}
	if got := f.String(); !strings.HasPrefix(got, "Secret mine, key tls.key: ") {
		t.Error(got)
	}
}
