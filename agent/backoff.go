package agent

import "time"

const (
	backoffFirst = time.Second
	backoffMost  = time.Minute
	// backoffForget is how long a process must have run to be trusted again.
	backoffForget = 10 * time.Minute
)

// backoff says when a process that ended by itself may start again.
type backoff struct {
	delay time.Duration
	until time.Time
}

// ended notes an end at now after a run of the given time.
func (b *backoff) ended(now time.Time, ran time.Duration) {
	if ran >= backoffForget {
		b.delay = 0
	}
	b.delay = min(max(2*b.delay, backoffFirst), backoffMost)
	b.until = now.Add(b.delay)
}

// reset lets the process start at once: something changed that may have been the cause.
func (b *backoff) reset() { *b = backoff{} }

// left is how long to wait still.
func (b *backoff) left(now time.Time) time.Duration { return max(0, b.until.Sub(now)) }
