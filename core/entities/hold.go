package entities

import (
	"slices"
	"strconv"
	"strings"
)

// hold is the content of api.HoldAnnotation: `<uid>`, then for a topic ` config=<key>,<key>`, for
// a user ` scram=<iterations>:<digest>`.
type hold struct {
	uid        string
	keys       []string // sorted
	iterations int32
	digest     string
}

// parseHold reads an annotation; one that belongs to another object, or cannot be read, holds nothing.
func parseHold(text, uid string) (hold, bool) {
	fields := strings.Fields(text)
	if uid == "" || len(fields) == 0 || fields[0] != uid {
		return hold{}, false
	}
	h := hold{uid: uid}
	for _, f := range fields[1:] {
		name, value, _ := strings.Cut(f, "=")
		switch name {
		case "config":
			h.keys = strings.Split(value, ",")
			slices.Sort(h.keys)
		case "scram":
			iterations, digest, _ := strings.Cut(value, ":")
			if n, err := strconv.ParseInt(iterations, 10, 32); err == nil {
				h.iterations, h.digest = int32(n), digest
			}
		}
	}
	return h, true
}

func (h hold) String() string {
	text := h.uid
	if len(h.keys) > 0 {
		text += " config=" + strings.Join(h.keys, ",")
	}
	if h.iterations > 0 {
		text += " scram=" + strconv.Itoa(int(h.iterations)) + ":" + h.digest
	}
	return text
}

// Iterations of our credentials lie in a range of their own, above Kafka's least and the
// default of its tools (both 4096, ScramMechanism), and cost a login little more than that.
const (
	firstIterations = 4097
	manyIterations  = 256
)

// nextIterations is a number for a new password that no credential in sight has.
func nextIterations(used ...int32) int32 {
	n := int32(firstIterations)
	if len(used) > 0 && used[0] >= firstIterations {
		n = firstIterations + (used[0]-firstIterations+1)%manyIterations
	}
	for slices.Contains(used, n) {
		n = firstIterations + (n-firstIterations+1)%manyIterations
	}
	return n
}
