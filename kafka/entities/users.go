package entities

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	core "castellan.dev/castellan/core/entities"
)

func (a *applying) createGrants(ctx context.Context, batch []int) error {
	req := kmsg.NewPtrCreateACLsRequest()
	d := newDictionary()
	for _, i := range batch {
		do, ok := a.changes[i].Do.(core.CreateGrant)
		if !ok {
			continue
		}
		c := kmsg.NewCreateACLsRequestCreation()
		c.ResourceType, c.ResourceName, c.ResourcePatternType = number(d.types, do.Grant.Type), do.Grant.Name, number(d.patterns, do.Grant.Pattern)
		c.Principal, c.Host = userPrefix+do.Principal, do.Grant.Host
		c.Operation, c.PermissionType = number(d.operations, do.Grant.Operation), number(d.effects, do.Grant.Effect)
		req.Creations = append(req.Creations, c)
	}
	resp, err := askOnce[*kmsg.CreateACLsResponse](ctx, a, req)
	if err != nil {
		return err
	}
	if len(resp.Results) != len(batch) { // they come in the order that was asked
		return fmt.Errorf("%d of %d results came back", len(resp.Results), len(batch))
	}
	for n, i := range batch {
		a.results[i] = outcome(resp.Results[n].ErrorCode, resp.Results[n].ErrorMessage)
	}
	return nil
}

// deleteGrants takes DeleteGrant and DropGrants. Where there is nothing to delete it is done.
func (a *applying) deleteGrants(ctx context.Context, batch []int) error {
	req := kmsg.NewPtrDeleteACLsRequest()
	d := newDictionary()
	for _, i := range batch {
		req.Filters = append(req.Filters, filterOf(d, a.changes[i].Do))
	}
	resp, err := askOnce[*kmsg.DeleteACLsResponse](ctx, a, req)
	if err != nil {
		return err
	}
	if len(resp.Results) != len(batch) { // they come in the order that was asked
		return fmt.Errorf("%d of %d results came back", len(resp.Results), len(batch))
	}
	for n, i := range batch {
		r := outcome(resp.Results[n].ErrorCode, resp.Results[n].ErrorMessage)
		if _, drop := a.changes[i].Do.(core.DropGrants); drop && resp.Results[n].ErrorCode == kerr.SecurityDisabled.Code {
			r = core.Result{Outcome: core.Done} // no authorizer, no ACLs
		}
		for _, m := range resp.Results[n].MatchingACLs {
			if r.Outcome == core.Done {
				r = outcome(m.ErrorCode, m.ErrorMessage)
			}
		}
		a.results[i] = r
	}
	return nil
}

func filterOf(d dictionary, action core.Action) kmsg.DeleteACLsRequestFilter {
	f := kmsg.NewDeleteACLsRequestFilter()
	switch do := action.(type) {
	case core.DeleteGrant:
		g := do.Grant
		f.ResourceType, f.ResourceName, f.ResourcePatternType = number(d.types, g.Type), &g.Name, number(d.patterns, g.Pattern)
		f.Principal, f.Host = new(userPrefix+do.Principal), &g.Host
		f.Operation, f.PermissionType = number(d.operations, g.Operation), number(d.effects, g.Effect)
	case core.DropGrants:
		f.ResourceType, f.ResourcePatternType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny
		f.Operation, f.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
		f.Principal = new(userPrefix + do.Principal)
	}
	return f
}

func (a *applying) alterQuotas(ctx context.Context, batch []int) error {
	req := kmsg.NewPtrAlterClientQuotasRequest()
	at := map[core.QuotaEntity]int{}
	for _, i := range batch {
		do, ok := a.changes[i].Do.(core.AlterQuota)
		if !ok {
			continue
		}
		e := kmsg.NewAlterClientQuotasRequestEntry()
		for _, part := range partsOf(do.Entity) {
			one := kmsg.NewAlterClientQuotasRequestEntryEntity()
			one.Type, one.Name = part.kind, part.name
			e.Entity = append(e.Entity, one)
		}
		e.Ops = quotaOps(do.From, do.To)
		at[do.Entity] = i
		req.Entries = append(req.Entries, e)
	}
	resp, err := askOnce[*kmsg.AlterClientQuotasResponse](ctx, a, req)
	if err != nil {
		return err
	}
	for i := range resp.Entries {
		e := &resp.Entries[i]
		var who core.QuotaEntity
		for _, part := range e.Entity {
			who = withPart(who, part.Type, part.Name)
		}
		if i, ok := at[who]; ok {
			a.results[i] = outcome(e.ErrorCode, e.ErrorMessage)
		}
	}
	return nil
}

// saltBytes is what Kafka's own tools take (ScramFormatter.secureRandomBytes has more).
const saltBytes = 32

// alterCredentials takes UpsertCredential and DeleteCredential; each user comes once in a batch.
func (a *applying) alterCredentials(ctx context.Context, batch []int) error {
	req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	at := byName{}
	for _, i := range batch {
		switch do := a.changes[i].Do.(type) {
		case core.DeleteCredential:
			d := kmsg.NewAlterUserSCRAMCredentialsRequestDeletion()
			d.Name, d.Mechanism = do.Principal, int8(do.Mechanism)
			req.Deletions = append(req.Deletions, d)
			at[do.Principal] = i
		case core.UpsertCredential:
			u, err := a.credential(ctx, do)
			if err != nil {
				a.results[i] = core.Result{Outcome: core.Denied, Code: "NO_PASSWORD", Reason: err.Error(), Retriable: true}
				continue
			}
			req.Upsertions = append(req.Upsertions, u)
			at[do.Principal] = i
		}
	}
	if len(at) == 0 {
		return nil
	}
	resp, err := askOnce[*kmsg.AlterUserSCRAMCredentialsResponse](ctx, a, req)
	if err != nil {
		return err
	}
	for i := range resp.Results {
		r := &resp.Results[i]
		i, ok := at[r.User]
		if !ok {
			continue
		}
		a.results[i] = outcome(r.ErrorCode, r.ErrorMessage)
		if kind[core.DeleteCredential](a.changes[i].Do) && r.ErrorCode == kerr.ResourceNotFound.Code {
			a.results[i] = core.Result{Outcome: core.Done}
		}
	}
	return nil
}

// credential salts a password as SCRAM-SHA-512 wants it (RFC 5802, Hi; org.apache.kafka.common.security.scram).
func (a *applying) credential(ctx context.Context, do core.UpsertCredential) (kmsg.AlterUserSCRAMCredentialsRequestUpsertion, error) {
	u := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
	password, err := a.passwords(ctx, do.Secret)
	if err != nil {
		return u, err
	}
	if len(password) == 0 || strings.ContainsRune(string(password), 0) {
		return u, fmt.Errorf("the password in Secret %s/%s, key %s, is empty or has a zero byte: put another one there", do.Secret.Namespace, do.Secret.Name, do.Secret.Key)
	}
	u.Name, u.Mechanism, u.Iterations = do.Principal, int8(core.ScramSha512), do.Iterations
	u.Salt = make([]byte, saltBytes)
	if _, err := rand.Read(u.Salt); err != nil {
		return u, fmt.Errorf("draw a salt: %w", err)
	}
	if u.SaltedPassword, err = pbkdf2.Key(sha512.New, string(password), u.Salt, int(do.Iterations), sha512.Size); err != nil {
		return u, fmt.Errorf("salt the password: %w", err)
	}
	return u, nil
}
