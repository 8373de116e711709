package packages_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/packages"
)

func TestBuiltinLocksAreSortedCompleteAndReadBack(t *testing.T) {
	locks, err := packages.BuiltinLocks()
	if err != nil {
		t.Fatal(err)
	}
	var versions []string
	for _, l := range locks {
		versions = append(versions, l.Version)
		again, err := packages.ParseLock(l.String())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(l, again); diff != "" {
			t.Errorf("%s read back (-was +is):\n%s", l.Version, diff)
		}
		if l.Archive == "" || len(l.Entries) < 80 || l.Size() < 40<<20 {
			t.Errorf("%s: archive %q, %d jars, %d bytes", l.Version, l.Archive, len(l.Entries), l.Size())
		}
	}
	if diff := cmp.Diff([]string{"3.9.2", "4.2.1", "4.3.1"}, versions); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
}

func TestParseLockRefusesWhatCouldLeaveItsPlace(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	head := "# castellan package lock 1\nproduct Kafka\nversion 1.0\nroot kafka-1.0\n"
	for _, c := range []struct{ reason, text, want string }{
		{"no title", "product Kafka\n", "first line"},
		{"no entry", head, "no artifact"},
		{"file leaves the folder", head + "g:a:1 " + sum + " 3 ../a.jar\n", "../a.jar"},
		{"markup in a coordinate", head + "g:a<b:1 " + sum + " 3 a.jar\n", "a<b"},
		{"root leaves the archive", strings.Replace(head, "root kafka-1.0", "root ..", 1) + "g:a:1 " + sum + " 3 a.jar\n", "root"},
		{"short sum", head + "g:a:1 abcd 3 a.jar\n", "sha256"},
		{"negative size", head + "g:a:1 " + sum + " -3 a.jar\n", "size"},
		{"two artifacts of one name", head + "g:a:1 " + sum + " 3 a.jar\nh:a:1 " + sum + " 3 a.jar\n", "both"},
		{"two coordinates only", head + "g:a " + sum + " 3 a.jar\n", "group:artifact"},
		{"not a jar", head + "g:a:1 " + sum + " 3 a.sh\n", ".jar"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			_, err := packages.ParseLock(c.text)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to tell of %q", err, c.want)
			}
		})
	}
}

func TestCatalogSaysWhichVersionsExist(t *testing.T) {
	catalog, err := packages.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	catalog = append(catalog, packages.Spec{Product: "Kafka", Version: "4.10.0"}, packages.Spec{Product: "Kafka", Version: "4.3.1"})
	if diff := cmp.Diff([]string{"3.9.2", "4.2.1", "4.3.1", "4.10.0"}, catalog.Versions("Kafka")); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	spec, err := catalog.Find("Kafka", "4.3.1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]packages.Source{{Maven: "kafka-4.3.1"}}, spec.Sources); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	_, err = catalog.Find("Kafka", "9.9.9")
	want := "no Package provides Kafka 9.9.9: use one of 3.9.2, 4.2.1, 4.3.1, 4.10.0, or add a Package with its sources"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, err = catalog.Find("Flink", "1"); err == nil {
		t.Error("an unknown product was found")
	}
}

func TestParseChecksum(t *testing.T) {
	sum := strings.Repeat("0123456789abcdef", 8)
	upper := strings.ToUpper(sum)
	var groups strings.Builder
	groups.WriteString("kafka_2.13-4.3.1.tgz: ")
	for i := 0; i < len(upper); i += 8 {
		if i > 0 && i%32 == 0 {
			groups.WriteString("\n                      ")
		}
		groups.WriteString(upper[i:i+8] + " ")
	}
	for _, c := range []struct {
		reason, text string
		found        bool
	}{
		{"Apache's groups over several lines", groups.String() + "\n", true},
		{"Apache's groups among others", "other.tgz: " + strings.Repeat("00", 64) + "\n" + groups.String() + "\n", true},
		{"sha512sum", sum + "  kafka_2.13-4.3.1.tgz\n", true},
		{"sha512sum, binary, with folder", sum + " *dist/kafka_2.13-4.3.1.tgz\n", true},
		{"BSD", "SHA512 (kafka_2.13-4.3.1.tgz) = " + sum + "\n", true},
		{"digits alone", upper + "\n", true},
		{"another file", sum + "  kafka_2.13-4.2.1.tgz\n", false},
		{"too short", "kafka_2.13-4.3.1.tgz: ABCD 1234\n", false},
		{"a page of the server", "<html>not found</html>", false},
	} {
		t.Run(c.reason, func(t *testing.T) {
			got, err := packages.ParseChecksum(c.text, "kafka_2.13-4.3.1.tgz")
			if c.found && (err != nil || got != sum) {
				t.Errorf("got %q, %v", got, err)
			}
			if !c.found && err == nil {
				t.Errorf("got %q, want an error", got)
			}
		})
	}
}

func TestSpecReportsEveryMistake(t *testing.T) {
	err := packages.Spec{
		Product: "../Kafka", Version: "",
		Sources: []packages.Source{{URL: "https://example.org/k.tgz"}, {URL: "/k.tgz", SHA512: "12"}, {}},
	}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"product", "version", "sources[0]", "no sha512", "sources[1]", "128", "sources[2]", "exactly one"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not tell of %q", err, want)
		}
	}
}
