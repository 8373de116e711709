package packages

import (
	"fmt"
	"sync"
	"time"
)

// Update tells what is being done.
type Update struct {
	// Text is one line for a person.
	Text string
	// Done and Total are bytes; Total is 0 when it is not known.
	Done, Total int64
}

// Progress is told what goes on, one call at a time and at least every five seconds while something does. It must
// return quickly. A nil Progress is told nothing.
type Progress func(Update)

const (
	heartbeat   = 5 * time.Second
	byteUpdates = 500 * time.Millisecond
)

// reporter calls a Progress: at once for a new step, now and then for bytes, and again when a step takes long.
type reporter struct {
	tell Progress
	quit chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex
	last  Update
	since time.Time // when the step began
	told  time.Time
}

// report starts a reporter; stop ends it.
func report(tell Progress) *reporter {
	r := &reporter{tell: tell, quit: make(chan struct{})}
	if tell != nil {
		r.done.Go(r.beat)
	}
	return r
}

func (r *reporter) stop() {
	close(r.quit)
	r.done.Wait()
}

// say begins a step.
func (r *reporter) say(format string, args ...any) {
	if r.tell == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.since, r.told = time.Now(), time.Now()
	r.last = Update{Text: fmt.Sprintf(format, args...)}
	r.tell(r.last)
}

// bytes tells how far the step is.
func (r *reporter) bytes(done, total int64) {
	if r.tell == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last.Done, r.last.Total = done, total
	if time.Since(r.told) < byteUpdates && done != total {
		return
	}
	r.told = time.Now()
	r.tell(r.last)
}

func (r *reporter) beat() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-r.quit:
			return
		case <-tick.C:
			r.still()
		}
	}
}

func (r *reporter) still() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last.Text == "" || time.Since(r.told) < heartbeat-time.Second {
		return
	}
	r.told = time.Now()
	again := r.last
	again.Text += fmt.Sprintf(" (for %s now)", time.Since(r.since).Round(time.Second))
	r.tell(again)
}
