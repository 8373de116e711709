package kconf_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/core/kconf"
)

func TestWriteIsSortedAndASCII(t *testing.T) {
	got := string(kconf.Write(map[string]string{
		"b key": " two  blanks ", "a": "x=y:z", "ü": "snow ☃ 🦫", "path": `C:\data`, "text": "one\ntwo\ttab\rcr\fff\x00\x7f", "#c": "!d", "empty": "",
	}))
	want := `\#c=\!d
a=x=y:z
b\ key=\ two  blanks ` + `
empty=
path=C:\\data
text=one\ntwo\ttab\rcr\fff\u0000\u007F
\u00FC=snow \u2603 \uD83E\uDDAB
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Write (-want +got):\n%s", diff)
	}
}

// javaTexts are files that java.util.Properties reads in its own way.
func javaTexts() map[string]string {
	return map[string]string{
		"separators":          "a=1\nb:2\nc 3\nd\t4\ne = 5\nf : 6\ng   7\nh\n=nokey\ni==j\nk:=l\nm = = n\n",
		"comments":            "# one\n! two\n  # three\na#b=c#d\nx=1\\\n# not a comment\ny=2\n# no\\\nz=3\n",
		"continued":           "a=1,\\\n   2,\\\n\t3\nb=x\\\\\nc=y\\\\\\\nz\nd\\\n=5\n\\\ne=6\nf=7\\\n\ng=8\nh=9\\\n   \ni=10\n\\\n\n#c\nj=1",
		"line ends":           "a=1\r\nb=2\rc=3\n\r\n\r\r\nd=4\\\r\n  5\\\r  6\n\n\n",
		"escapes":             "a\\ b=\\ c\\ \nd\\=e=f\\=g\nh\\:i=\\:\n\\#j=\\!k\nl=\\t\\n\\r\\f\\q\\'\\\"\nm=\\u00e9\\u2603\\uD83E\\uDDAB\n",
		"end in a backslash":  "a=1\\",
		"end in two":          "a=1\\\\",
		"latin 1":             "caf\xe9=na\xefve\n",
		"duplicates":          "a=1\na=2\n a=3\n",
		"blank edges":         "\n \t\f\n   a = b  \n\f c\fd\n",
		"blank value":         "a=\nb=   \nc:\nd\n",
		"backslash separator": "a\\",
	}
}

func TestParseReadsWhatJavaReads(t *testing.T) {
	texts := javaTexts()
	files := map[string][]byte{}
	for name, text := range texts {
		files[name] = []byte(text)
	}
	java := readWithJava(t, files)
	for name, text := range texts {
		got, err := kconf.Parse([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(java[name], got); diff != "" {
			t.Errorf("%s (-java +Parse):\n%s", name, diff)
		}
	}
}

func TestJavaReadsBackWhatWriteWrites(t *testing.T) {
	configs := map[string]map[string]string{
		"a node": {
			"log.dirs": "/data/0/kafka,/data/1/kafka", "ssl.principal.mapping.rules": `RULE:^CN=(.*?),\s*O=x$/$1/L,DEFAULT`,
			"listener.name.client.scram-sha-512.sasl.jaas.config": `org.apache.kafka.common.security.scram.ScramLoginModule required user="a" password="p=\"\\ü#!";`,
		},
		"nasty": {
			" ": " ", "": "", "=": "=", ":": ":", "#": "#", "!": "!", `\`: `\`, `a\`: `\n`, "\t": "\t", "\n": "\n", "\r\n": "\r\n", "\f": "\f",
			"ключ": "значение", "🦫": "🦫🦫", "\u0000": "\u0000", "\u007f": "\u0080\u00ff\u2028", `\u0041`: `\u0041`, "  lead": "  lead", "trail  ": "trail  ",
		},
	}
	files := map[string][]byte{}
	for name, config := range configs {
		files[name] = kconf.Write(config)
	}
	if diff := cmp.Diff(configs, readWithJava(t, files)); diff != "" {
		t.Errorf("java.util.Properties (-written +read):\n%s", diff)
	}
}

// readWithJava lets java.util.Properties read each file, all in one JVM.
func readWithJava(t *testing.T, files map[string][]byte) map[string]map[string]string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("java", filepath.Join("testdata", "Reader.java"), dir).Output()
	if err != nil {
		t.Fatalf("run java (a JDK 17 or newer must be on the PATH): %v", err)
	}
	read := map[string]map[string]string{}
	for name := range files {
		read[name] = map[string]string{}
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		for i, f := range fields {
			b, err := base64.StdEncoding.DecodeString(f)
			if err != nil {
				t.Fatal(err)
			}
			fields[i] = string(b)
		}
		read[fields[0]][fields[1]] = fields[2]
	}
	return read
}

func TestParseNamesTheLineOfAMalformedEscape(t *testing.T) {
	for _, text := range []string{"a=1\nb=\\\n  x\\u12\n", "\n\nc=\\u12G4", "\\uZZZZ=1"} {
		if got, err := kconf.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("Parse(%q) = %v, %v; want an error that names the line", text, got, err)
		}
	}
}

func FuzzPropertiesRoundTrip(f *testing.F) {
	for _, text := range javaTexts() {
		f.Add(text, text)
	}
	f.Add(`\u0041`, "🦫\x00")
	f.Fuzz(func(t *testing.T, key, value string) {
		if !utf8.ValidString(key) || !utf8.ValidString(value) {
			return
		}
		want := map[string]string{key: value, key + "2": value + " ", "fixed": key}
		text := kconf.Write(want)
		got, err := kconf.Parse(text)
		if err != nil {
			t.Fatalf("Parse(%q): %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("round trip (-want +got):\n%s", diff)
		}
	})
}

func FuzzParseAcceptsAnything(f *testing.F) {
	for _, text := range javaTexts() {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		config, err := kconf.Parse(content)
		if err != nil {
			return
		}
		again, err := kconf.Parse(kconf.Write(config))
		if err != nil {
			t.Fatalf("Parse(Write(%q)): %v", config, err)
		}
		if diff := cmp.Diff(config, again); diff != "" {
			j, _ := json.Marshal(string(content))
			t.Errorf("%s (-first +again):\n%s", j, diff)
		}
	})
}
