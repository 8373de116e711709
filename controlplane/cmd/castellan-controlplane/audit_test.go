package main

import (
	"encoding/json"
	"slices"
	"testing"
	"time"
)

// auditLine is what the tests need of an audit event.
type auditLine struct {
	Verb      string    `json:"verb"`
	Stage     string    `json:"stage"`
	Received  time.Time `json:"requestReceivedTimestamp"`
	ObjectRef struct {
		Resource string `json:"resource"`
		Name     string `json:"name"`
	} `json:"objectRef"`
	User struct {
		Username string `json:"username"`
	} `json:"user"`
}

func parseAudit(t *testing.T, text string) auditLine {
	t.Helper()
	var line auditLine
	if err := json.Unmarshal([]byte(text), &line); err != nil {
		t.Fatalf("audit line %q: %v", text, err)
	}
	return line
}

func (l auditLine) isWrite() bool {
	return l.Stage == "ResponseComplete" && slices.Contains([]string{"create", "update", "patch", "delete", "deletecollection"}, l.Verb)
}
