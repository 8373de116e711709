// Command keytables writes the key tables of core/kconf. For every supported Kafka minor it fetches that Kafka's jars through
// Maven, asks Kafka's own ConfigDef what keys exist (Dump.java), and writes one Go file. The output depends on the jars alone, so
// `make generate` followed by `git diff` shows whether the committed tables still say what Kafka says. Nothing here ships.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/format"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

//go:embed Dump.java
var dumpSource []byte

// releases are the Kafka releases the tables come from: the newest patch of each supported minor.
func releases() []string { return []string{"3.9.2", "4.0.2", "4.1.2", "4.2.1", "4.3.1"} }

func main() {
	out := flag.String("out", ".", "folder the generated files go to")
	jars := flag.String("jars", "", "folder with VERSION/libs/*.jar (default: fetched through mvn into the user's cache)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out, *jars); err != nil {
		fmt.Fprintln(os.Stderr, "keytables:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out, jars string) error {
	if jars == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("find a cache folder for Kafka's jars (or pass -jars): %w", err)
		}
		jars = filepath.Join(cache, "castellan", "keytables")
	}
	var minors []string
	for _, version := range releases() {
		libs := filepath.Join(jars, version, "libs")
		if err := fetch(ctx, version, libs); err != nil {
			return fmt.Errorf("fetch the jars of Kafka %s: %w", version, err)
		}
		d, err := dumpOf(ctx, version, libs)
		if err != nil {
			return fmt.Errorf("ask Kafka %s for its keys: %w", version, err)
		}
		digest, err := digestOf(libs, version)
		if err != nil {
			return fmt.Errorf("digest the jars of Kafka %s: %w", version, err)
		}
		minor := version[:strings.LastIndex(version, ".")]
		minors = append(minors, minor)
		file := strings.ReplaceAll(minor, ".", "_")
		if err := writeSource(filepath.Join(out, "keys_"+file+"_generated.go"), render(d, minor, digest)); err != nil {
			return err
		}
		if err := writeVerdicts(filepath.Join(out, "testdata", "verdicts_"+file+".json"), d); err != nil {
			return err
		}
		fmt.Printf("Kafka %s: %d broker keys, %d topic keys\n", version, len(d.Broker), len(d.Topic))
	}
	return writeSource(filepath.Join(out, "minors_generated.go"), renderIndex(minors))
}

// fetch assembles Kafka's jars with Maven unless they are there already. The folder appears complete or not at all.
func fetch(ctx context.Context, version, libs string) error {
	if _, err := os.Stat(libs); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	dir := filepath.Dir(libs)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	pom := `<project><modelVersion>4.0.0</modelVersion><groupId>castellan</groupId><artifactId>keytables</artifactId><version>1</version>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>` + version + `</version></dependency></dependencies></project>
`
	if err := os.WriteFile(filepath.Join(dir, "pom.xml"), []byte(pom), 0o600); err != nil {
		return err
	}
	partial := libs + ".partial"
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory="+partial) //nolint:gosec // the folder is the caller's own
	cmd.Dir = dir
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mvn dependency:copy-dependencies in %s: %w\n%s", dir, err, output)
	}
	return os.Rename(partial, libs)
}

// digestOf is one SHA-256 over the names and contents of Kafka's own jars that hold keys. Third-party jars define none.
func digestOf(libs, version string) (string, error) {
	sum := sha256.New()
	for _, artifact := range []string{
		"kafka-clients", "kafka-group-coordinator", "kafka-metadata", "kafka-raft", "kafka-server", "kafka-server-common",
		"kafka-storage", "kafka-transaction-coordinator", "kafka_2.13",
	} {
		name := artifact + "-" + version + ".jar"
		content, err := os.ReadFile(filepath.Join(libs, name)) //nolint:gosec // the folder is the caller's own
		if err != nil {
			return "", err
		}
		sum.Write(fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(content), name))
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// dump is what Dump.java prints.
type dump struct {
	Version         string
	Broker, Topic   []key
	TopicSynonyms   map[string][]string
	ListenerDynamic []string
	// Verdicts is, for some keys and values, the text Kafka reads a value as; nil when it refuses the value.
	Verdicts map[string]map[string]*string
}

type key struct {
	Name, Type, Mode, Doc string
	Default               *string
	Internal              bool
	Validator             *validator
}

type validator struct {
	Class, Text, Min, Max string
	ValidStrings          []string
	IsEmptyAllowed        *bool
}

func dumpOf(ctx context.Context, version, libs string) (dump, error) {
	dir, err := os.MkdirTemp("", "keytables")
	if err != nil {
		return dump{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	source := filepath.Join(dir, "Dump.java")
	if err := os.WriteFile(source, dumpSource, 0o600); err != nil {
		return dump{}, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "java", "-cp", filepath.Join(libs, "*"), source) //nolint:gosec // the folder is the caller's own
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return dump{}, fmt.Errorf("java Dump.java (a JDK 17 or newer is needed): %w\n%s", err, stderr.Bytes())
	}
	var d dump
	if err := json.Unmarshal(stdout.Bytes(), &d); err != nil {
		return dump{}, fmt.Errorf("read the output of Dump.java: %w", err)
	}
	if d.Version != version {
		return dump{}, fmt.Errorf("the jars in %s are of Kafka %s: delete the folder and generate again", libs, d.Version)
	}
	return d, nil
}

// render writes one table as Go source.
func render(d dump, minor, digest string) []byte {
	suffix := strings.ReplaceAll(minor, ".", "")
	listener := map[string]bool{}
	for _, name := range d.ListenerDynamic {
		listener[name] = true
	}
	var b bytes.Buffer
	header(&b)
	fmt.Fprintf(&b, "func source%s() Source {\n\treturn Source{Version: %q, SHA256: %q}\n}\n\n", suffix, d.Version, digest)
	fmt.Fprintf(&b, "func brokerKeys%s() []Key {\n\treturn []Key{\n", suffix)
	for _, k := range d.Broker {
		fields := literal(k)
		if listener[k.Name] {
			fields += ", listenerDynamic: true"
		}
		fmt.Fprintf(&b, "\t\t{%s},\n", fields)
	}
	fmt.Fprintf(&b, "\t}\n}\n\nfunc topicKeys%s() []TopicKey {\n\treturn []TopicKey{\n", suffix)
	for _, k := range d.Topic {
		fmt.Fprintf(&b, "\t\t{Key: Key{%s}, BrokerKeys: %s},\n", literal(k), list(d.TopicSynonyms[k.Name]))
	}
	b.WriteString("\t}\n}\n")
	return b.Bytes()
}

func renderIndex(minors []string) []byte {
	var b bytes.Buffer
	header(&b)
	b.WriteString("// minors returns the supported minors, oldest first.\n")
	fmt.Fprintf(&b, "func minors() []string {\n\treturn %s\n}\n\n", list(minors))
	b.WriteString("func generated(minor string) (data, bool) {\n\tswitch minor {\n")
	for _, minor := range minors {
		s := strings.ReplaceAll(minor, ".", "")
		fmt.Fprintf(&b, "\tcase %q:\n\t\treturn data{source%s(), brokerKeys%s(), topicKeys%s()}, true\n", minor, s, s, s)
	}
	b.WriteString("\t}\n\treturn data{}, false\n}\n")
	return b.Bytes()
}

func header(b *bytes.Buffer) {
	b.WriteString("// Code generated by hack/keytables from Kafka's own ConfigDef. DO NOT EDIT.\n\npackage kconf\n\n")
}

// literal is the body of a Key literal; zero fields are left out.
func literal(k key) string {
	fields := []string{fmt.Sprintf("Name: %q, Type: %s", k.Name, typeName(k.Type))}
	if k.Default != nil {
		fields = append(fields, fmt.Sprintf("Default: %q, HasDefault: true", *k.Default))
	}
	if v := validLiteral(k); v != "" {
		fields = append(fields, "Valid: Valid{"+v+"}")
	}
	switch k.Mode {
	case "per-broker":
		fields = append(fields, "UpdateMode: PerBroker")
	case "cluster-wide":
		fields = append(fields, "UpdateMode: ClusterWide")
	}
	if k.Internal {
		fields = append(fields, "Internal: true")
	}
	if deprecated(k.Doc) {
		fields = append(fields, "Deprecated: true")
	}
	return strings.Join(fields, ", ")
}

// typeName turns ConfigDef's BOOLEAN into kconf's Boolean.
func typeName(t string) string { return t[:1] + strings.ToLower(t[1:]) }

func validLiteral(k key) string {
	v := k.Validator
	if v == nil {
		return ""
	}
	if m := rangeOr.FindStringSubmatch(v.Text); m != nil {
		return fmt.Sprintf("Min: %q, Max: %q, Or: %q", m[1], m[2], m[3])
	}
	if strings.HasPrefix(v.Text, minusOneText) {
		return `Min: "1", Or: "-1"`
	}
	var fields []string
	add := func(format string, args ...any) { fields = append(fields, fmt.Sprintf(format, args...)) }
	if v.Min != "" {
		add("Min: %q", v.Min)
	}
	if v.Max != "" {
		add("Max: %q", v.Max)
	}
	if len(v.ValidStrings) > 0 {
		add("OneOf: %s", list(v.ValidStrings))
	}
	if v.Class == "CaseInsensitiveValidString" {
		add("IgnoreCase: true")
	}
	if v.Class == "NonEmptyString" || v.IsEmptyAllowed != nil && !*v.IsEmptyAllowed {
		add("NonEmpty: true")
	}
	if v.IsEmptyAllowed != nil { // Kafka 4's ValidList also refuses duplicates and blank elements (KIP-1161)
		add("Unique: true")
	}
	if len(fields) == 0 && v.Text != "" && v.Class != "NonNullValidator" {
		add("Text: %q", v.Text)
	}
	return strings.Join(fields, ", ")
}

// rangeOr is how Kafka prints "a range, or this one value", which it checks with a lambda.
var rangeOr = regexp.MustCompile(`^\[(-?\d+),\.\.\.,(-?\d+)\] or (-?\d+)$`)

// minusOneText begins the prose by which Kafka 3.9 prints "-1, or more than 0", which it checks with a lambda.
const minusOneText = "The default value of -1 means that this will be set to the configured value of"

// deprecatedDoc matches the ways Kafka's documentation marks a whole key: ConfigDef itself has no such flag.
var deprecatedDoc = regexp.MustCompile(`(?i)^\[?deprecated|this config(uration)? (is|has been) deprecated`)

func deprecated(doc string) bool { return deprecatedDoc.MatchString(doc) }

func list(values []string) string {
	if len(values) == 0 {
		return "nil"
	}
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = fmt.Sprintf("%q", v)
	}
	return "[]string{" + strings.Join(quoted, ", ") + "}"
}

// writeVerdicts writes the verdicts with one line per key, so that a diff shows which key Kafka judges anew.
func writeVerdicts(name string, d dump) error {
	b := []byte("{")
	for i, key := range slices.Sorted(maps.Keys(d.Verdicts)) {
		verdicts, err := json.Marshal(d.Verdicts[key])
		if err != nil {
			return fmt.Errorf("write Kafka's verdicts on %s: %w", key, err)
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "\n%q: %s", key, verdicts)
	}
	return write(name, append(b, "\n}\n"...))
}

func writeSource(name string, source []byte) error {
	formatted, err := format.Source(source)
	if err != nil {
		return fmt.Errorf("format %s: %w", name, err)
	}
	return write(name, formatted)
}

func write(name string, content []byte) error {
	if err := os.WriteFile(name, content, 0o644); err != nil { //nolint:gosec // generated source is as readable as the rest
		return fmt.Errorf("write a key table: %w", err)
	}
	return nil
}
