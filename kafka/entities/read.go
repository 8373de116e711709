package entities

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/kafka"
)

// Ask says how much to read.
type Ask struct {
	// Keys of a topic's configuration to read; a topic without any is not asked for it. nil is
	// every key of every topic, which for many topics is many MiB.
	Keys func(topic string) []string
}

// How many topics one request asks the configuration of, so that an answer stays near 1 MiB: some
// keys of each are 100 bytes or so, all keys (about 40 in Kafka 4.3) 2 KiB.
const (
	topicsWithSomeKeys = 4000
	topicsWithAllKeys  = 400
)

// Read reads everything: two requests to find a broker that is up to date, one for all topics, one for each 4,000
// topics whose keys are asked for, and three for all ACLs, credentials and quotas. It gives all or an error.
func Read(ctx context.Context, c *kafka.Cluster, what Ask) (*core.Snapshot, error) {
	s := core.NewSnapshot()
	err := c.Session(ctx, func(ctx context.Context, session *kafka.Session) error {
		if err := readTopics(ctx, session, s); err != nil {
			return err
		}
		if err := readConfigs(ctx, session, what, s); err != nil {
			return err
		}
		return readPrincipals(ctx, session, nil, s)
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Few principals are read one by one, more with everything: each costs two requests, all three.
const fewPrincipals = 4

// ReadPrincipals reads again what Kafka has of these principals, without User:. One that has
// nothing is missing in the answer.
func ReadPrincipals(ctx context.Context, c *kafka.Cluster, names []string) (map[string]*core.Principal, error) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if len(names) == 0 {
		return map[string]*core.Principal{}, nil
	}
	s := core.NewSnapshot()
	err := c.Session(ctx, func(ctx context.Context, session *kafka.Session) error {
		if len(names) > fewPrincipals {
			return readPrincipals(ctx, session, nil, s)
		}
		return readPrincipals(ctx, session, names, s)
	})
	if err != nil {
		return nil, err
	}
	for name := range s.Principals {
		if _, asked := slices.BinarySearch(names, name); !asked {
			delete(s.Principals, name)
		}
	}
	return s.Principals, nil
}

// read asks once more where a connection died, and is the answer as what it is.
func read[R kmsg.Response](ctx context.Context, session *kafka.Session, req kmsg.Request) (R, error) { //nolint:ireturn // R is concrete at each call
	var none R
	resp, err := session.Read(ctx, req)
	if err != nil {
		return none, err
	}
	r, ok := resp.(R)
	if !ok {
		return none, fmt.Errorf("request %s: answered with a %T", kmsg.NameForKey(req.Key()), resp)
	}
	return r, nil
}

func readTopics(ctx context.Context, session *kafka.Session, s *core.Snapshot) error {
	const doing = "read all topics"
	req := kmsg.NewPtrMetadataRequest() // no topics named: all of them
	resp, err := read[*kmsg.MetadataResponse](ctx, session, req)
	if err == nil {
		err = kafka.Refused(doing, resp.ErrorCode, nil)
	}
	if err != nil {
		return err
	}
	if resp.ClusterID != nil && *resp.ClusterID != session.ClusterID() {
		return fmt.Errorf("%s: the answer is of cluster %s, not of %s", doing, *resp.ClusterID, session.ClusterID())
	}
	s.Brokers = len(resp.Brokers)
	for i := range resp.Topics {
		t := &resp.Topics[i]
		if t.ErrorCode == kerr.UnknownTopicOrPartition.Code {
			continue // deleted at this moment
		}
		if t.Topic == nil {
			return fmt.Errorf("%s: a topic has no name", doing)
		}
		if err := kafka.Refused(doing+": "+*t.Topic, t.ErrorCode, nil); err != nil {
			return err
		}
		s.Topics[*t.Topic] = topicOf(t)
	}
	return nil
}

func topicOf(t *kmsg.MetadataResponseTopic) *core.Topic {
	one := &core.Topic{Internal: t.IsInternal, Partitions: int32(len(t.Partitions))} //nolint:gosec // Kafka counts so
	if t.TopicID != [16]byte{} {
		one.ID = base64.RawURLEncoding.EncodeToString(t.TopicID[:])
	}
	for i := range t.Partitions {
		n := int32(len(t.Partitions[i].Replicas)) //nolint:gosec // Kafka counts so
		if i == 0 {
			one.Replicas = n
		}
		one.Replicas, one.MostReplicas = min(one.Replicas, n), max(one.MostReplicas, n)
	}
	return one
}

func readConfigs(ctx context.Context, session *kafka.Session, what Ask, s *core.Snapshot) error {
	atOnce := topicsWithSomeKeys
	if what.Keys == nil {
		atOnce = topicsWithAllKeys
	}
	req := kmsg.NewPtrDescribeConfigsRequest()
	flush := func() error {
		err := describe(ctx, session, req, s)
		req = kmsg.NewPtrDescribeConfigsRequest()
		return err
	}
	for name, t := range s.Topics {
		t.AskedAll = what.Keys == nil
		if what.Keys != nil {
			if t.Asked = what.Keys(name); len(t.Asked) == 0 {
				continue
			}
		}
		one := kmsg.NewDescribeConfigsRequestResource()
		one.ResourceType, one.ResourceName, one.ConfigNames = kmsg.ConfigResourceTypeTopic, name, t.Asked
		req.Resources = append(req.Resources, one)
		if len(req.Resources) == atOnce {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func describe(ctx context.Context, session *kafka.Session, req *kmsg.DescribeConfigsRequest, s *core.Snapshot) error {
	if len(req.Resources) == 0 {
		return nil
	}
	resp, err := read[*kmsg.DescribeConfigsResponse](ctx, session, req)
	if err != nil {
		return err
	}
	if len(resp.Resources) != len(req.Resources) {
		return fmt.Errorf("read the configuration of topics: %d of %d came back", len(resp.Resources), len(req.Resources))
	}
	for i := range resp.Resources {
		r := &resp.Resources[i]
		if r.ErrorCode == kerr.UnknownTopicOrPartition.Code {
			delete(s.Topics, r.ResourceName) // deleted since
			continue
		}
		if err := kafka.Refused("read the configuration of topic "+r.ResourceName, r.ErrorCode, r.ErrorMessage); err != nil {
			return err
		}
		t := s.Topics[r.ResourceName]
		if t == nil {
			return fmt.Errorf("read the configuration of topics: nobody asked for %s", r.ResourceName)
		}
		for j := range r.Configs {
			if c := &r.Configs[j]; c.Source == kmsg.ConfigSourceDynamicTopicConfig && c.Value != nil {
				if t.Config == nil {
					t.Config = map[string]string{}
				}
				t.Config[c.Name] = *c.Value
			}
		}
	}
	return nil
}

// readPrincipals reads those named, or without any all.
func readPrincipals(ctx context.Context, session *kafka.Session, names []string, s *core.Snapshot) error {
	if len(names) == 0 {
		if err := readACLs(ctx, session, nil, s); err != nil {
			return err
		}
		if err := readQuotas(ctx, session, nil, s); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := readACLs(ctx, session, &name, s); err != nil {
			return err
		}
		if err := readQuotas(ctx, session, &name, s); err != nil {
			return err
		}
	}
	return readCredentials(ctx, session, names, s)
}

func of(s *core.Snapshot, name string) *core.Principal {
	p := s.Principals[name]
	if p == nil {
		p = &core.Principal{}
		s.Principals[name] = p
	}
	return p
}

const userPrefix = "User:"

func readACLs(ctx context.Context, session *kafka.Session, name *string, s *core.Snapshot) error {
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType, req.ResourcePatternType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny
	req.Operation, req.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	if name != nil {
		req.Principal = new(userPrefix + *name)
	}
	resp, err := read[*kmsg.DescribeACLsResponse](ctx, session, req)
	if err != nil {
		return err
	}
	if resp.ErrorCode == kerr.SecurityDisabled.Code {
		return nil // no authorizer, no ACLs: who wants one hears of it when it is created
	}
	if err := kafka.Refused("read the ACLs", resp.ErrorCode, resp.ErrorMessage); err != nil {
		return err
	}
	words := newDictionary()
	for i := range resp.Resources {
		r := &resp.Resources[i]
		for j := range r.ACLs {
			a := &r.ACLs[j]
			user, ok := strings.CutPrefix(a.Principal, userPrefix)
			if !ok {
				s.OtherACLs++
				continue
			}
			p := of(s, user)
			p.Grants = append(p.Grants, words.grant(r, a))
		}
	}
	return nil
}

func readCredentials(ctx context.Context, session *kafka.Session, names []string, s *core.Snapshot) error {
	const doing = "read who has a password"
	req := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
	for _, name := range names {
		one := kmsg.NewDescribeUserSCRAMCredentialsRequestUser()
		one.Name = name
		req.Users = append(req.Users, one)
	}
	resp, err := read[*kmsg.DescribeUserSCRAMCredentialsResponse](ctx, session, req)
	if err == nil {
		err = kafka.Refused(doing, resp.ErrorCode, resp.ErrorMessage)
	}
	if err != nil {
		return err
	}
	for i := range resp.Results {
		r := &resp.Results[i]
		if r.ErrorCode == kerr.ResourceNotFound.Code {
			continue
		}
		if err := kafka.Refused(doing+": "+r.User, r.ErrorCode, r.ErrorMessage); err != nil {
			return err
		}
		for _, one := range r.CredentialInfos {
			switch core.Mechanism(one.Mechanism) {
			case core.ScramSha256:
				of(s, r.User).Scram256 = one.Iterations
			case core.ScramSha512:
				of(s, r.User).Scram512 = one.Iterations
			}
		}
	}
	return nil
}

func readQuotas(ctx context.Context, session *kafka.Session, name *string, s *core.Snapshot) error {
	req := kmsg.NewPtrDescribeClientQuotasRequest()
	if name != nil {
		one := kmsg.NewDescribeClientQuotasRequestComponent()
		one.EntityType, one.MatchType, one.Match = quotaUser, kmsg.QuotasMatchTypeExact, name
		req.Components = append(req.Components, one)
	}
	resp, err := read[*kmsg.DescribeClientQuotasResponse](ctx, session, req)
	if err == nil {
		err = kafka.Refused("read the quotas", resp.ErrorCode, resp.ErrorMessage)
	}
	if err != nil {
		return err
	}
	for i := range resp.Entries {
		e := &resp.Entries[i]
		var who core.QuotaEntity
		for _, part := range e.Entity {
			who = withPart(who, part.Type, part.Name)
		}
		limits := limitsOf(e.Values)
		if user, ok := who.User.Name(); ok {
			p := of(s, user)
			if p.Quotas == nil {
				p.Quotas = map[core.Part]core.Limits{}
			}
			p.Quotas[who.ClientID] = limits
			continue
		}
		s.Quotas[who] = limits
	}
	return nil
}
