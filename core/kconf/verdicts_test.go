package kconf_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"castellan.dev/castellan/core/kconf"
)

// TestValuesAreJudgedAsKafkaJudgesThem holds ValidateValue and Normalize against what Kafka's own ConfigDef said of the same values
// when the tables were generated: for one key of each kind of type and validator.
func TestValuesAreJudgedAsKafkaJudgesThem(t *testing.T) {
	for _, minor := range kconf.Versions() {
		content, err := os.ReadFile(filepath.Join("testdata", "verdicts_"+strings.ReplaceAll(minor, ".", "_")+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var verdicts map[string]map[string]*string
		if err := json.Unmarshal(content, &verdicts); err != nil {
			t.Fatal(err)
		}
		if len(verdicts) < 25 {
			t.Errorf("%s: verdicts on %d keys only", minor, len(verdicts))
		}
		table := tableFor(t, minor)
		for name, values := range verdicts {
			k, ok := table.Key(name)
			if !ok {
				t.Errorf("%s: Kafka judges %s, which the table does not have", minor, name)
			}
			for value, read := range values {
				compareVerdict(t, minor, k, value, read)
			}
		}
	}
}

func compareVerdict(t *testing.T, minor string, k kconf.Key, value string, read *string) {
	t.Helper()
	problems := kconf.ValidateValue(k, value)
	switch {
	case k.Valid.Text != "" && read == nil: // a rule that only Kafka's code knows
	case read == nil && len(problems) == 0:
		t.Errorf("%s: %s=%q passes, but Kafka refuses it", minor, k.Name, value)
	case read != nil && len(problems) > 0:
		t.Errorf("%s: %s=%q is refused (%s), but Kafka reads %q", minor, k.Name, value, problems[0].Reason, *read)
	case read != nil && !kconf.Equal(k.Type, value, *read):
		t.Errorf("%s: %s=%q normalizes to %q, but Kafka reads %q", minor, k.Name, value, kconf.Normalize(k.Type, value), *read)
	}
}
