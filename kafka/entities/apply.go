package entities

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/kafka"
)

// Passwords gives the bytes that have the digest of a reference, or why not. They are not kept.
type Passwords func(ctx context.Context, ref core.SecretRef) ([]byte, error)

// Apply does changes in batches, and gives one result for each, in their order. Of one object what closes
// a door is done before what opens one; what opens is left (NotTried) where anything of the object failed
// before. After a request that was not answered nothing more is asked: the rest is NotTried, with the reason.
//
// Nothing is repeated here. An answer that tells neither yes nor no (a timeout, also Kafka's own) is Unanswered.
func Apply(ctx context.Context, c *kafka.Cluster, changes []core.Change, passwords Passwords) []core.Result {
	a := &applying{changes: changes, results: make([]core.Result, len(changes)), failed: map[core.Ref]bool{}, passwords: passwords}
	if len(changes) == 0 {
		return a.results
	}
	err := c.Session(ctx, func(ctx context.Context, session *kafka.Session) error {
		a.session = session
		for _, s := range steps() {
			a.do(ctx, s)
		}
		return nil
	})
	why := "nobody knew what to do with it"
	if err != nil {
		why = err.Error()
	}
	for i := range a.results {
		if a.results[i].Outcome == "" {
			a.results[i] = core.Result{Outcome: core.NotTried, Reason: why}
		}
	}
	return a.results
}

type applying struct {
	session   *kafka.Session
	changes   []core.Change
	results   []core.Result
	failed    map[core.Ref]bool
	passwords Passwords
	// dead is why nothing more is asked.
	dead error
}

// step is one kind of change.
type step struct {
	is func(core.Action) bool
	// opens is true where something becomes allowed.
	opens bool
	// items and weight bound one request, see [weight].
	items int
	send  func(*applying, context.Context, []int) error
}

// How many changes one request carries. The active controller does a request in one go and writes it as one
// batch of the metadata log, at most 10,000 records (QuorumController.MAX_RECORDS_PER_USER_OP): a topic is
// one record and one for each partition and key, an ACL, a credential and a quota one each. A tenth of that
// keeps others waiting for some 10 ms only, and larger requests save little: at 200 topics a flush of the
// log is already shared by 200. Answers of CreateTopics carry 2 KiB for each topic. A password costs 3 ms here.
const (
	topicsAtOnce      = 200
	recordsAtOnce     = 1000
	grantsAtOnce      = 1000
	configsAtOnce     = 500
	quotasAtOnce      = 500
	credentialsAtOnce = 200
)

// steps in their order.
func steps() []step {
	deny := func(g core.Grant) bool { return g.Effect == "Deny" }
	return []step{
		{is: kind[core.DeleteCredential], items: credentialsAtOnce, send: (*applying).alterCredentials},
		{is: kind[core.AlterQuota], items: quotasAtOnce, send: (*applying).alterQuotas},
		{is: which(func(c core.CreateGrant) bool { return deny(c.Grant) }), items: grantsAtOnce, send: (*applying).createGrants},
		{is: which(func(c core.CreateGrant) bool { return !deny(c.Grant) }), opens: true, items: grantsAtOnce, send: (*applying).createGrants},
		{is: which(func(c core.DeleteGrant) bool { return !deny(c.Grant) }), items: grantsAtOnce, send: (*applying).deleteGrants},
		{is: kind[core.DropGrants], items: grantsAtOnce / 10, send: (*applying).deleteGrants},
		{is: which(func(c core.DeleteGrant) bool { return deny(c.Grant) }), opens: true, items: grantsAtOnce, send: (*applying).deleteGrants},
		{is: kind[core.UpsertCredential], opens: true, items: credentialsAtOnce, send: (*applying).alterCredentials},
		{is: kind[core.DeleteTopic], items: topicsAtOnce, send: (*applying).deleteTopics},
		{is: kind[core.CreateTopic], items: topicsAtOnce, send: (*applying).createTopics},
		{is: kind[core.AddPartitions], items: topicsAtOnce, send: (*applying).addPartitions},
		{is: kind[core.AlterConfig], items: configsAtOnce, send: (*applying).alterConfigs},
	}
}

func kind[A core.Action](a core.Action) bool {
	_, ok := a.(A)
	return ok
}

func which[A core.Action](yes func(A) bool) func(core.Action) bool {
	return func(a core.Action) bool {
		one, ok := a.(A)
		return ok && yes(one)
	}
}

func (a *applying) do(ctx context.Context, s step) {
	var batch []int
	records := 0
	users := map[string]bool{}
	flush := func() {
		if len(batch) > 0 {
			a.send(ctx, s, batch)
		}
		batch, records = nil, 0
		clear(users)
	}
	for i, c := range a.changes {
		if !s.is(c.Do) {
			continue
		}
		if s.opens && a.failed[c.Owner] {
			a.results[i] = core.Result{Outcome: core.NotTried}
			continue
		}
		user := userOf(c.Do)
		if len(batch) == s.items || records+weight(c.Do) > recordsAtOnce || user != "" && users[user] {
			flush()
		}
		batch = append(batch, i)
		records += weight(c.Do)
		users[user] = true
	}
	flush()
}

// weight is how many records a change makes.
func weight(a core.Action) int {
	switch do := a.(type) {
	case core.CreateTopic:
		return 1 + int(max(do.Partitions, 1)) + len(do.Config)
	case core.AddPartitions:
		return int(do.To - do.From)
	case core.AlterConfig:
		return len(do.Set) + len(do.Delete)
	default:
		return 1
	}
}

// userOf is of whom a request may name only one credential.
func userOf(a core.Action) string {
	switch do := a.(type) {
	case core.UpsertCredential:
		return do.Principal
	case core.DeleteCredential:
		return do.Principal
	default:
		return ""
	}
}

// send does one batch; every change of it has a result afterwards.
func (a *applying) send(ctx context.Context, s step, batch []int) {
	if a.dead == nil {
		a.dead = ctx.Err()
	}
	if a.dead != nil {
		a.rest(batch, core.Result{Outcome: core.NotTried, Reason: a.dead.Error()})
		return
	}
	if err := s.send(a, ctx, batch); err != nil {
		a.dead = err
		a.rest(batch, core.Result{Outcome: core.Unanswered, Reason: err.Error()})
		return
	}
	a.rest(batch, core.Result{Outcome: core.Unanswered, Reason: "Kafka's answer lacks it"})
}

// rest gives those of a batch a result that have none, and notes whose failed.
func (a *applying) rest(batch []int, r core.Result) {
	for _, i := range batch {
		if a.results[i].Outcome == "" {
			a.results[i] = r
		}
		if a.results[i].Outcome != core.Done {
			a.failed[a.changes[i].Owner] = true
		}
	}
}

// askOnce sends a change once.
func askOnce[R kmsg.Response](ctx context.Context, a *applying, req kmsg.Request) (R, error) { //nolint:ireturn // R is concrete at each call
	var none R
	resp, err := a.session.Change(ctx, req)
	if err != nil {
		return none, err
	}
	r, ok := resp.(R)
	if !ok {
		return none, fmt.Errorf("request %s: answered with a %T", kmsg.NameForKey(req.Key()), resp)
	}
	return r, nil
}

// outcome of an error code; codes in fine are as good as done.
func outcome(code int16, message *string, fine ...*kerr.Error) core.Result {
	if code == 0 || slices.ContainsFunc(fine, func(e *kerr.Error) bool { return e.Code == code }) {
		return core.Result{Outcome: core.Done}
	}
	r := core.Result{Outcome: core.Denied, Code: "UNKNOWN"}
	if no, ok := errors.AsType[*kafka.RefusedError](kafka.Refused("", code, message)); ok {
		r.Code, r.Reason, r.Retriable = no.Name, no.Message, no.Retriable
	}
	// The controller may have done it, or may still do it.
	if code == kerr.RequestTimedOut.Code || code == kerr.UnknownServerError.Code {
		r.Outcome, r.Reason = core.Unanswered, r.Code+": "+r.Reason
	}
	return r
}

// byName gives results to the changes of a batch by a name that is unique in it.
type byName map[string]int

func (a *applying) names(batch []int, name func(core.Action) string) byName {
	out := make(byName, len(batch))
	for _, i := range batch {
		out[name(a.changes[i].Do)] = i
	}
	return out
}

func (a *applying) set(at byName, name string, r core.Result) {
	if i, ok := at[name]; ok {
		a.results[i] = r
	}
}
