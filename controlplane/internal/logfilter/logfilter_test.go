package logfilter

import (
	"bytes"
	"testing"
)

func TestWhatIsWorthReading(t *testing.T) {
	const header = "1121 07:40:22.596537   26536 file.go:1] "
	tests := []struct {
		reason, record string
		info, kept     bool
	}{
		{"a warning", "W" + header + "something odd", false, true},
		{"an error", "E" + header + "something broke", false, true},
		{"information nobody asked for", "I" + header + "starting", false, false},
		{"information somebody asked for", "I" + header + "starting", true, true},
		{"noise of every start", "W" + header + "Skipping API x because it has no resources.", true, false},
		{"etcd's own record", `{"level":"warn","msg":"slow fdatasync"}`, false, true},
		{"text that only begins with I", "Instance failed", false, true},
	}
	for _, test := range tests {
		t.Run(test.reason, func(t *testing.T) {
			var out bytes.Buffer
			w := New(&out)
			w.Info = test.info
			n, err := w.Write([]byte(test.record))
			if err != nil || n != len(test.record) {
				t.Errorf("wrote %d, %v", n, err)
			}
			if kept := out.Len() > 0; kept != test.kept {
				t.Errorf("kept %t, want %t", kept, test.kept)
			}
		})
	}
}
