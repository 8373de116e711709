package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// endpoints are the listeners of one kind, tried by address. A nil endpoints has none.
type endpoints struct {
	kind   string
	addrs  []string
	client *kgo.Client
	seeds  []*kgo.Broker // by index of addrs
	// good is the index that answered last.
	good atomic.Int64
}

func (e *endpoints) close() {
	if e != nil {
		e.client.Close()
	}
}

// at is the broker or controller behind an address that Kafka advertises for id. One that is not among
// ours is left to the client's own discovery, which works for brokers only.
func (e *endpoints) at(id int32, host string, port int32) *kgo.Broker {
	addr := hostPort(host, port)
	for i, a := range e.addrs {
		if a == addr {
			return e.seeds[i]
		}
	}
	return e.client.Broker(int(id))
}

// address of one of the seeds.
func (e *endpoints) address(b *kgo.Broker) string { return e.addrs[slices.Index(e.seeds, b)] }

// hedge is how long one endpoint may keep silent before the next is asked as well: 33 of them within
// 10 seconds, where a rack that swallows packets would otherwise cost dialTimeout each.
const hedge = 300 * time.Millisecond

type attempt[T any] struct {
	endpoint int
	answer   T
	err      error
}

// choose asks one endpoint after another until one gives a good answer, and returns that one with its
// answer. An endpoint that fails or is silent costs no more than hedge.
func choose[T any](ctx context.Context, e *endpoints, ask func(context.Context, *kgo.Broker) (T, error)) (*kgo.Broker, T, error) { //nolint:ireturn // T is concrete at each call
	var none T
	if e == nil {
		return nil, none, errors.New("no address is known")
	}
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan attempt[T])
	running, next, first := 0, 0, int(e.good.Load())
	defer func() {
		cancel()
		for range running {
			<-results
		}
	}()
	launch := func() {
		i := (first + next) % len(e.seeds)
		next++
		running++
		go func() {
			one, stop := context.WithTimeout(ctx, answerTimeout)
			defer stop()
			answer, err := ask(one, e.seeds[i])
			results <- attempt[T]{i, answer, err}
		}()
	}
	tick := time.NewTicker(hedge)
	defer tick.Stop()
	var failed []error
	launch()
	for {
		select {
		case r := <-results:
			running--
			if r.err == nil {
				e.good.Store(int64(r.endpoint))
				return e.seeds[r.endpoint], r.answer, nil
			}
			failed = append(failed, fmt.Errorf("%s %s: %w", e.kind, e.addrs[r.endpoint], r.err))
			if next < len(e.seeds) {
				launch()
			} else if running == 0 {
				return nil, none, joinFew(failed)
			}
		case <-tick.C:
			if next < len(e.seeds) {
				launch()
			}
		case <-ctx.Done():
			return nil, none, joinFew(append(failed, fmt.Errorf("after %d of %d %ss: %w", next, len(e.seeds), e.kind, ctx.Err())))
		}
	}
}

// joinFew keeps the first errors: three hundred dead brokers need no three hundred lines.
func joinFew(errs []error) error { return joinUpTo(3, errs) }

func joinUpTo(few int, errs []error) error {
	if len(errs) > few {
		errs = append(errs[:few:few], fmt.Errorf("and %d more", len(errs)-few))
	}
	return errors.Join(errs...)
}

// ask sends req to exactly b and returns the answer as what it is.
func ask[R kmsg.Response](ctx context.Context, b *kgo.Broker, req kmsg.Request) (R, error) { //nolint:ireturn // R is concrete at each call
	var none R
	resp, err := b.Request(ctx, req)
	if err != nil && ctx.Err() == nil && !isDial(err) {
		// A connection that lay idle may have died with the process behind it; every request here may be repeated.
		resp, err = b.Request(ctx, req)
	}
	if err != nil {
		return none, fmt.Errorf("request %s: %w", kmsg.NameForKey(req.Key()), err)
	}
	r, ok := resp.(R)
	if !ok {
		return none, fmt.Errorf("request %s: answered with a %T", kmsg.NameForKey(req.Key()), resp)
	}
	return r, nil
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
