package node

import (
	"strings"
	"testing"
	"time"

	"castellan.dev/castellan/core/layout"
)

// A pod that has become ready gets clients when it is in sync, or after five minutes; a lag
// never takes them away again, Kafka's word does.
func TestReadinessOfPods(t *testing.T) {
	const patience = 5 * time.Minute
	now := time.Unix(1000, 0)
	r := report{clock: func() time.Time { return now }}
	ready := func(yes bool) func() {
		return func() {
			r.set(func(x *layout.Report) { x.Ready, x.Reason, x.InSync = yes, "Fenced", x.InSync && yes })
		}
	}
	sync := func(yes bool) func() { return func() { r.setSync(yes, "1 of 2") } }
	wait := func(d time.Duration) func() { return func() { now = now.Add(d) } }
	for _, step := range []struct {
		reason string
		do     func()
		want   string
	}{
		{"not ready", ready(false), "Fenced"},
		{"ready", ready(true), "not looked at"},
		{"out of sync", sync(false), "1 of 2"},
		{"for long", wait(patience - time.Second), ReasonNotInSync},
		{"for too long", wait(time.Second), ""},
		{"fenced after that", ready(false), "Fenced"},
		{"ready again: the ISR is without it", ready(true), ReasonNotInSync},
		{"out of sync again", sync(false), "1 of 2"},
		{"in sync", sync(true), ""},
		{"a lag", sync(false), ""},
		{"a lag of hours", wait(time.Hour), ""},
		{"fenced", ready(false), "Fenced"},
		{"in sync counts only while ready", sync(true), "Fenced"},
		{"ready once more", ready(true), ReasonNotInSync},
		{"in sync at once", sync(true), ""},
	} {
		step.do()
		if got := r.closed(now, patience); (got == "") != (step.want == "") || !strings.Contains(got, step.want) {
			t.Errorf("%s: %q, want %q", step.reason, got, step.want)
		}
	}
	if r.get().InSync != true {
		t.Errorf("in sync is not reported: %+v", r.get())
	}
}
