package cluster

import (
	"cmp"
	"fmt"
	"time"

	"github.com/robfig/cron/v3"

	api "castellan.dev/castellan/api/v1alpha1"
)

// parseWindow says what is wrong with a window, or when it opens.
func parseWindow(w api.Window) (cron.Schedule, error) { //nolint:ireturn // cron gives only the interface
	schedule, err := cron.ParseStandard("CRON_TZ=" + cmp.Or(w.TimeZone, "UTC") + " " + w.Schedule)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", w.Schedule, err)
	}
	if w.Duration.Duration <= 0 {
		return nil, fmt.Errorf("the duration %s is never open", w.Duration.Duration)
	}
	return schedule, nil
}

// InWindow says whether one of the windows is open, and if not, when the next one opens. None
// at all is always open; one that cannot be read never opens.
func InWindow(windows []api.Window, now time.Time) (open bool, next time.Time) {
	if len(windows) == 0 {
		return true, time.Time{}
	}
	for _, w := range windows {
		schedule, err := parseWindow(w)
		if err != nil {
			continue
		}
		if began := schedule.Next(now.Add(-w.Duration.Duration)); !began.IsZero() && !began.After(now) {
			return true, time.Time{}
		}
		if opens := schedule.Next(now); !opens.IsZero() && (next.IsZero() || opens.Before(next)) {
			next = opens
		}
	}
	return false, next
}
