package kconf

import (
	"slices"
	"strings"
)

// Nearest returns the key the name is most likely a misspelling of. Keys that only differ in case or in the separator (LOG_DIRS,
// log-dirs) are near; otherwise the number of slips must be small for the length.
func (t Table) Nearest(name string) (string, bool) {
	return nearest(name, t.Names())
}

func nearest(name string, names []string) (string, bool) {
	plain := strings.NewReplacer("_", ".", "-", ".", " ", "").Replace(strings.ToLower(name))
	best, slips := "", min(3, 1+len(plain)/8)+1
	for _, candidate := range names {
		if d := distance(plain, candidate, slips); d < slips {
			best, slips = candidate, d
		}
	}
	return best, best != ""
}

// distance counts insertions, deletions, replacements and swaps of neighbours, up to limit.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	before, previous, current := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		current[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			current[j] = min(previous[j]+1, current[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
		if slices.Min(current) >= limit {
			return limit
		}
		before, previous, current = previous, current, before
	}
	return min(previous[len(b)], limit)
}
