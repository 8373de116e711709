package stand

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"

	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka/kafkatest"
)

// Progress of a [Traffic], as the client tells it.
type Progress struct {
	Acknowledged, Read, Failed int
	Why                        string
	LongestGap                 time.Duration
}

// Testimony is what a [Traffic] saw from its beginning to its end.
type Testimony struct {
	Verdict    kafkatest.Verdict
	ISR        kafkatest.ISRReport
	LongestGap time.Duration
	Failed     int
}

// Traffic is an acks=all writer, a reader and a watch over in-sync replicas of all topics, from outside of the cluster's
// network, that go on while a story happens.
type Traffic struct {
	c      *Cluster
	topic  string
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr bytes.Buffer
	ended  chan error

	mu   sync.Mutex
	now  Progress
	last []byte
}

// Traffic begins at a new topic through the listener [Outside]. The test must call End.
func (c *Cluster) Traffic(topic string) *Traffic {
	c.tb.Helper()
	t := &Traffic{c: c, topic: topic, ended: make(chan error, 1)}
	args := []string{"exec", "ext", "--dir", c.dir, "--", c.client, "witness", "-brokers", c.Bootstrap(Outside), "-topic", topic}
	ctx, cancel := context.WithCancel(c.tb.Context())
	c.tb.Cleanup(cancel)
	t.cmd = exec.CommandContext(ctx, c.testkube, args...) //nolint:gosec // the stand's own
	t.cmd.Stderr = &t.stderr
	t.cmd.WaitDelay = 5 * time.Second
	stdin, err := t.cmd.StdinPipe()
	if err != nil {
		c.tb.Fatal(err)
	}
	t.stdin = stdin
	stdout, err := t.cmd.StdoutPipe()
	if err != nil {
		c.tb.Fatal(err)
	}
	if err := t.cmd.Start(); err != nil {
		c.tb.Fatalf("start the client: %v", err)
	}
	go t.listen(stdout)
	c.Eventually("records of "+topic+" are written and read", time.Minute, t.MoreThan(100))
	return t
}

func (t *Traffic) listen(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var p Progress
		err := json.Unmarshal(lines.Bytes(), &p)
		t.mu.Lock()
		if err == nil {
			t.now = p
		}
		t.last = bytes.Clone(lines.Bytes())
		t.mu.Unlock()
	}
	t.ended <- t.cmd.Wait()
}

// Progress so far.
func (t *Traffic) Progress() Progress {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// MoreThan is the fact that more than so many records were acknowledged, and read.
func (t *Traffic) MoreThan(records int) Fact {
	return func(context.Context) error {
		p := t.Progress()
		if p.Acknowledged > records && p.Read > records {
			return nil
		}
		select {
		case err := <-t.ended:
			t.ended <- err
			return fmt.Errorf("the client has ended: %w: %s", err, t.stderr.String())
		default:
			return fmt.Errorf("%d records acknowledged, %d failed (%s), %d read", p.Acknowledged, p.Failed, p.Why, p.Read)
		}
	}
}

// GoesOn is the fact that records are acknowledged after those of now.
func (t *Traffic) GoesOn() Fact { return t.MoreThan(t.Progress().Acknowledged + 50) }

// End stops it and fails the test when an acknowledged record cannot be read.
func (t *Traffic) End() Testimony {
	c := t.c
	c.tb.Helper()
	if err := t.stdin.Close(); err != nil {
		c.tb.Fatalf("stop the client: %v", err)
	}
	patience := time.NewTimer(4 * time.Minute)
	defer patience.Stop()
	select {
	case err := <-t.ended:
		if err != nil {
			c.tb.Fatalf("the client of %s: %v: %s", t.topic, err, t.stderr.String())
		}
	case <-patience.C:
		c.tb.Fatalf("the client of %s does not come to its end; it last said %s", t.topic, t.last)
	}
	var seen Testimony
	if err := json.Unmarshal(t.last, &seen); err != nil {
		c.tb.Fatalf("read what the client of %s saw: %v: %s", t.topic, err, t.last)
	}
	v := seen.Verdict
	if v.Acknowledged == 0 {
		c.tb.Errorf("nothing of %s was acknowledged: %s", t.topic, t.last)
	}
	if len(v.Missing) > 0 {
		c.tb.Errorf("%d of %d acknowledged records of %s are lost, the first is number %d", len(v.Missing), v.Acknowledged, t.topic, v.Missing[0])
	}
	c.tb.Logf("%s: %d acknowledged, %d failed, none lost, longest gap %s; %d looks at in-sync replicas, %d unanswered",
		t.topic, v.Acknowledged, seen.Failed, seen.LongestGap.Round(time.Millisecond), seen.ISR.Samples, seen.ISR.Unknown)
	return seen
}

// ExpectMinISR fails the test if a partition was seen below its min.insync.replicas.
func (c *Cluster) ExpectMinISR(seen Testimony) {
	c.tb.Helper()
	if seen.ISR.Samples == 0 {
		c.tb.Errorf("nobody looked at in-sync replicas: %s", seen.ISR.Why)
	}
	for partition, at := range seen.ISR.Under {
		c.tb.Errorf("%s was under min.insync.replicas %d at %s: in sync %v of %v", partition, at.MinISR, at.At.Format(time.TimeOnly), at.ISR, at.Replicas)
	}
}

// Topics are all topics with their partitions, as clients from outside see them.
func (c *Cluster) Topics(ctx context.Context) ([]plan.Topic, error) {
	c.tb.Helper()
	out := c.tryOutside(ctx, 30*time.Second, "observe", "-brokers", c.Bootstrap(Outside))
	if out.Code != 0 {
		return nil, fmt.Errorf("observe Kafka: %s", out)
	}
	var seen struct{ Topics []plan.Topic }
	if err := json.Unmarshal([]byte(out.Stdout), &seen); err != nil {
		return nil, fmt.Errorf("read what the client sees: %w", err)
	}
	return seen.Topics, nil
}

// InSync is the fact that every replica of every partition is in sync, as clients from outside see it.
func (c *Cluster) InSync() Fact {
	c.tb.Helper()
	return func(ctx context.Context) error {
		topics, err := c.Topics(ctx)
		if err != nil {
			return err
		}
		for _, topic := range topics {
			for i, p := range topic.Partitions {
				if len(p.ISR) != len(p.Replicas) {
					return fmt.Errorf("partition %s-%d has replicas %v and in sync are %v", topic.Name, i, p.Replicas, p.ISR)
				}
			}
		}
		return nil
	}
}
