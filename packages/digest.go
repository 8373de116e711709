package packages

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"regexp"
	"strings"
)

// Digest is the SHA-256 of an archive, written "sha256:" and 64 lower-case hexadecimal digits.
type Digest string

const digestPrefix = "sha256:"

// ParseDigest checks the form of a digest.
func ParseDigest(s string) (Digest, error) {
	sum, found := strings.CutPrefix(s, digestPrefix)
	if !found || !isHex(sum, sha256.Size) {
		return "", fmt.Errorf("%q is not a digest: want %q and 64 lower-case hexadecimal digits", s, digestPrefix)
	}
	return Digest(s), nil
}

func digestOf(h hash.Hash) Digest {
	return Digest(digestPrefix + hex.EncodeToString(h.Sum(nil)))
}

// name is the digest as a file name.
func (d Digest) name() string {
	return strings.Replace(string(d), ":", "-", 1)
}

// DigestError says that a file is not the one that was promised.
type DigestError struct {
	// File is a path or URL.
	File string
	// Want and Found start with the name of the algorithm: "sha256:…", "sha512:…", or tell a size.
	Want, Found string
	// Remedy says what to do next.
	Remedy string
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("%s is damaged or is not the file it should be: expected %s, found %s; %s", e.File, e.Want, e.Found, e.Remedy)
}

func isHex(s string, size int) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == size && strings.ToLower(s) == s
}

// ParseChecksum finds the SHA-512 of the named file in the text of a checksum file and returns it as 128
// lower-case hexadecimal digits. It reads the form Apache publishes ("file: AB12 CD34 …" over several lines), that
// of sha512sum ("digits  file"), that of BSD ("SHA512 (file) = digits") and the bare digits.
func ParseChecksum(text, file string) (string, error) {
	if sum, ok := bareSum(text); ok {
		return sum, nil
	}
	if sum, ok := lineSum(text, file); ok {
		return sum, nil
	}
	if sum, ok := groupedSum(text, file); ok {
		return sum, nil
	}
	return "", fmt.Errorf("no SHA-512 of %s in the checksum file: take the .sha512 file that is published beside the archive", file)
}

func bareSum(text string) (string, bool) {
	sum := strings.ToLower(strings.Join(strings.Fields(text), ""))
	return sum, isHex(sum, sha512.Size)
}

func lineSum(text, file string) (string, bool) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 4 && strings.EqualFold(fields[0], "SHA512") && fields[1] == "("+file+")" && fields[2] == "=" {
			fields = []string{fields[3], file}
		}
		if len(fields) != 2 || baseName(strings.TrimPrefix(fields[1], "*")) != file {
			continue
		}
		if sum := strings.ToLower(fields[0]); isHex(sum, sha512.Size) {
			return sum, true
		}
	}
	return "", false
}

// groupedSum reads the output of gpg --print-md, which Apache publishes: a name, a colon, groups of digits.
func groupedSum(text, file string) (string, bool) {
	entry := regexp.MustCompile(`(?m)^\s*(\S+):\s+((?:[0-9A-Fa-f]+\s+)*[0-9A-Fa-f]+)\s*$`)
	for _, m := range entry.FindAllStringSubmatch(text, -1) {
		if sum, ok := bareSum(m[2]); ok && baseName(m[1]) == file {
			return sum, true
		}
	}
	return "", false
}

func baseName(p string) string {
	return p[strings.LastIndexByte(p, '/')+1:]
}
