package node

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"castellan.dev/castellan/core/layout"
)

// report is what the supervisor says of its node at any moment.
type report struct {
	clock func() time.Time // nil means time.Now

	mu  sync.Mutex
	now layout.Report
	// changed is closed, and replaced, with each change; nil while nobody waits.
	changed chan struct{}
	// since is when the node became ready; zero while it is not. synced says that it was in
	// sync since then, outOfSync why it is not.
	since     time.Time
	synced    bool
	outOfSync string
}

func (r *report) set(change func(*layout.Report)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.now)
	switch {
	case !r.now.Ready:
		r.since, r.synced, r.outOfSync = time.Time{}, false, ""
	case r.since.IsZero():
		r.since = r.time()
	}
	r.synced = r.synced || r.now.Ready && r.now.InSync
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

func (r *report) time() time.Time {
	if r.clock == nil {
		return time.Now()
	}
	return r.clock()
}

func (r *report) get() layout.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

// watch returns the report with a channel that is closed when it may be another one.
func (r *report) watch() (layout.Report, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.now, r.changed
}

// setSync says whether the replicas of the node are in the ISR, and which are not.
func (r *report) setSync(inSync bool, why string) {
	r.set(func(now *layout.Report) { now.InSync = inSync && now.Ready })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outOfSync = why
}

// closed says why a pod gets no clients and counts as disrupted, or is empty when it is
// ready. A node that has become ready, after its start or after Kafka had fenced it, must
// come back into the ISR first, or wait in vain for so long: a disk that is lost for good
// must not keep it out. Afterwards a lag does not take it away again: clients would lose
// also the partitions that it leads, and the next disruption is the operator's to refuse.
func (r *report) closed(now time.Time, patience time.Duration) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.now.Ready:
		return r.now.Reason + ": " + r.now.Message
	case r.synced || now.Sub(r.since) >= patience:
		return ""
	case r.outOfSync == "":
		return ReasonNotInSync + ": Kafka is ready, its replicas were not looked at yet"
	default:
		return ReasonNotInSync + ": " + r.outOfSync + fmt.Sprintf("; ready at the latest %s after Kafka was", patience)
	}
}

// encode is a report as JSON, with its digest.
func encode(r layout.Report) (data []byte, digest string, err error) {
	if data, err = json.Marshal(r); err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(data)
	return data, "sha256:" + hex.EncodeToString(sum[:]), nil
}
