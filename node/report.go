package node

import (
	"sync"

	"castellan.dev/castellan/core/layout"
)

// report is what the supervisor says of its node at any moment.
type report struct {
	mu  sync.Mutex
	now layout.Report
}

func (r *report) set(change func(*layout.Report)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.now)
}

func (r *report) get() layout.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}
