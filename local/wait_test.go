package local

import (
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
)

// A node that cannot start is Stalled and not Stalled in turn, for longer and longer each.
func TestWhatBlocksAgainAndAgainIsGivenUpOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told strings.Builder
		progress := NewProgress(&told, false)
		defer progress.Close()
		w := waiter{up: &up{UpOptions: UpOptions{Progress: progress}}}
		stalled := func(status metav1.ConditionStatus) *api.KafkaCluster {
			return &api.KafkaCluster{Status: api.KafkaClusterStatus{Conditions: []metav1.Condition{
				{Type: api.ConditionStalled, Status: status, Message: "port 9092 is taken"},
			}}}
		}
		began := time.Now()
		var err error
		for err == nil && time.Since(began) < time.Minute {
			for range 4 {
				if err = w.blocked(stalled(metav1.ConditionTrue)); err != nil {
					break
				}
				<-time.After(time.Second)
			}
			if err == nil {
				err = w.blocked(stalled(metav1.ConditionFalse))
				<-time.After(time.Second)
			}
		}
		if took := time.Since(began); err == nil || took < patience || took > patience+5*time.Second {
			t.Errorf("after %s: %v", took, err)
		}
		if n := strings.Count(told.String(), "is blocked"); n != 1 {
			t.Errorf("told %d times: %s", n, told.String())
		}

		w = waiter{up: &up{UpOptions: UpOptions{Progress: NewProgress(io.Discard, false)}}}
		defer w.Progress.Close()
		for range 10 { // each time something else that lasts: nothing is wrong for long
			if err := w.blocked(stalled(metav1.ConditionTrue)); err != nil {
				t.Error(err)
			}
			<-time.After(patience + time.Second)
		}
	})
}

// A listener that wants to know its clients says nothing to `up`, and serves all the same.
func TestListenersThatKnowTheirClientsServe(t *testing.T) {
	open, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &api.KafkaCluster{
		Spec:   api.KafkaClusterSpec{Listeners: []api.Listener{{Name: "scram", Authentication: api.Authentication{Type: api.AuthenticationScramSha512}}}},
		Status: api.KafkaClusterStatus{Listeners: []api.ListenerStatus{{Name: "scram", BootstrapServers: open.Addr().String()}}},
	}
	w := waiter{up: &up{}}
	if waits := w.serves(t.Context(), c); waits != "" {
		t.Errorf("a listener that accepts connections: waits for %q", waits)
	}
	if err := open.Close(); err != nil {
		t.Fatal(err)
	}
	if waits := w.serves(t.Context(), c); !strings.Contains(waits, "Kafka does not answer yet") {
		t.Errorf("a listener where nobody listens: waits for %q", waits)
	}
}
