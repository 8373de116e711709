package cluster

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
)

func TestInWindow(t *testing.T) {
	window := func(schedule, zone string, open time.Duration) api.Window {
		return api.Window{Schedule: schedule, TimeZone: zone, Duration: metav1.Duration{Duration: open}}
	}
	at := func(text string) time.Time {
		t.Helper()
		now, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return now
	}
	saturdays, nightly := window("0 2 * * SAT", "", 4*time.Hour), window("30 22 * * *", "Europe/Zurich", time.Hour)
	for _, c := range []struct {
		windows []api.Window
		now     string
		open    bool
		next    string
	}{
		{nil, "2026-01-01T00:00:00Z", true, ""},
		{[]api.Window{saturdays}, "2026-01-03T01:59:59Z", false, "2026-01-03T02:00:00Z"},
		{[]api.Window{saturdays}, "2026-01-03T02:00:00Z", true, ""},
		{[]api.Window{saturdays}, "2026-01-03T05:59:59Z", true, ""},
		{[]api.Window{saturdays}, "2026-01-03T06:00:00Z", false, "2026-01-10T02:00:00Z"},
		{[]api.Window{saturdays, nightly}, "2026-01-03T06:00:00Z", false, "2026-01-03T21:30:00Z"},
		{[]api.Window{nightly}, "2026-07-01T20:45:00Z", true, ""}, // summer time
		{[]api.Window{nightly}, "2026-07-01T21:45:00Z", false, "2026-07-02T20:30:00Z"},
	} {
		open, next := InWindow(c.windows, at(c.now))
		if open != c.open || c.next != "" && !next.Equal(at(c.next)) {
			t.Errorf("%v at %s: open %v, next %s, want %v, %s", c.windows, c.now, open, next, c.open, c.next)
		}
	}
}

func TestParseWindowRefusesNonsense(t *testing.T) {
	for _, w := range []api.Window{
		{Schedule: "whenever", Duration: metav1.Duration{Duration: time.Hour}},
		{Schedule: "0 2 * * SAT"},
		{Schedule: "0 2 * * *", TimeZone: "Atlantis", Duration: metav1.Duration{Duration: time.Hour}},
	} {
		if _, err := parseWindow(w); err == nil {
			t.Errorf("%+v is taken", w)
		}
	}
}
