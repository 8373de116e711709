package kafka

import (
	"testing"
	"time"

	"castellan.dev/castellan/core/plan"
)

func TestQuorumHealth(t *testing.T) {
	const fresh, lost = "freshdirectory", "lostdirectory"
	self := Self{ID: 2, DirectoryID: fresh}
	replica := func(dir string, behind time.Duration) []plan.Replica {
		return []plan.Replica{{ID: 2, DirectoryID: dir, LastCaughtUp: behind}}
	}
	for _, tt := range []struct {
		reason            string
		voters, observers []plan.Replica
		want              string
	}{
		{"a voter that is caught up", replica(fresh, time.Second), nil, ""},
		{"a voter that is behind", replica(fresh, time.Minute), nil, NodeCatchingUp},
		{"a voter that never was caught up", replica(fresh, -1), nil, NodeCatchingUp},
		{"an observer that is caught up", nil, replica(fresh, 0), ""},
		{"its lost disk is a voter, it an observer", replica(lost, -1), replica(fresh, time.Second), ""},
		{"only its lost disk is known", replica(lost, 0), nil, NodeNotInQuorum},
		{"a static quorum knows no directories", replica("", 0), nil, ""},
		{"nobody", nil, nil, NodeNotInQuorum},
	} {
		got := quorumHealth(plan.Quorum{Voters: tt.voters, Observers: tt.observers}, self)
		if got.Reason != tt.want || got.Ready != (tt.want == "") {
			t.Errorf("%s: %+v, want %q", tt.reason, got, tt.want)
		}
	}
}
