package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/entities"
)

// importing writes the objects that stand for what a Kafka cluster has.
type importing struct {
	*target
	ref string
}

func importCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Write KafkaTopics and KafkaUsers for what Kafka has",
		Long: `Write KafkaTopics and KafkaUsers for what Kafka has, as YAML to be looked at, kept and applied.
Nothing is changed. Applied, each adopts what it stands for as it is.`,
		Example: "  castellan import topics --cluster orders > topics.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, one := range []struct {
		use, short string
		write      func(*importing, *core.Snapshot) []document
	}{
		{"topics", "KafkaTopics of the topics, Kafka's own left out", (*importing).topics},
		{"users", "KafkaUsers of the principals with a password or quotas, with all that they may do", (*importing).users},
		{"acls", "KafkaUsers of the principals with ACLs", (*importing).acls},
	} {
		i := &importing{target: &target{options: o}}
		sub := &cobra.Command{
			Use: one.use, Short: one.short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return i.run(cmd.Context(), one.write) },
		}
		i.addFlags(sub)
		sub.Flags().StringVar(&i.ref, "cluster-ref", "", "name of the KafkaCluster that the objects are for (default that of --cluster)")
		cmd.AddCommand(sub)
	}
	return cmd
}

// document is an object as a user writes it.
type document struct {
	comment    string
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   map[string]string `json:"metadata"`
	Spec       any               `json:"spec"`
}

func (i *importing) run(ctx context.Context, write func(*importing, *core.Snapshot) []document) error {
	if err := i.ownRef(ctx); err != nil {
		return err
	}
	config, err := i.clientConfig(ctx)
	if err != nil {
		return i.hangUp(err)
	}
	all := kafka.NewClients(kafka.Options{Dial: config.Dial})
	defer all.Close()
	have, err := entities.Read(ctx, all.Cluster(i.ref, kafka.Target{Brokers: config.Brokers, TLS: config.TLS}), entities.Ask{})
	if err = i.hangUp(err); err != nil {
		return err
	}
	return printDocuments(i.Out, write(i, have))
}

// ownRef finds out whose the objects are to be.
func (i *importing) ownRef(ctx context.Context) error {
	switch {
	case i.ref != "":
		return nil
	case len(i.brokers) > 0:
		return usagef("--bootstrap-server does not tell which KafkaCluster the objects are for: add --cluster-ref")
	}
	rest, namespace, err := i.restConfig()
	if err != nil {
		return err
	}
	c, err := typedClient(rest)
	if err != nil {
		return err
	}
	kc, err := i.find(ctx, c, namespace)
	if err == nil {
		i.ref = kc.Name
	}
	return err
}

func printDocuments(out io.Writer, all []document) error {
	for i := range all {
		data, err := yaml.Marshal(all[i])
		if err != nil {
			return err
		}
		comment := ""
		if all[i].comment != "" {
			comment = "# " + all[i].comment + "\n"
		}
		if _, err := fmt.Fprintf(out, "---\n%s%s", comment, data); err != nil {
			return err
		}
	}
	return nil
}

func (i *importing) topics(have *core.Snapshot) []document {
	var all []document
	for _, name := range slices.Sorted(maps.Keys(have.Topics)) {
		t := have.Topics[name]
		if t.Internal || core.Internal(name) {
			continue
		}
		spec := api.KafkaTopicSpec{ClusterRef: api.EntityClusterRef{Name: i.ref}, Partitions: &t.Partitions, Adopt: true}
		d := document{APIVersion: api.GroupVersion.String(), Kind: "KafkaTopic", Metadata: map[string]string{"name": objectName(name)}}
		if t.Replicas == t.MostReplicas {
			spec.Replicas = &t.Replicas
		} else {
			d.comment = fmt.Sprintf("Its partitions have from %d to %d replicas: set spec.replicas to have as many everywhere.", t.Replicas, t.MostReplicas)
		}
		if d.Metadata["name"] != name {
			spec.TopicName = name
		}
		for k, v := range t.Config {
			if strings.HasSuffix(k, ".replication.throttled.replicas") {
				continue // the balancer's
			}
			if spec.Config == nil {
				spec.Config = api.Config{}
			}
			spec.Config[k] = api.ConfigValue(v)
		}
		d.Spec = spec
		all = append(all, d)
	}
	return all
}

func (i *importing) users(have *core.Snapshot) []document {
	return i.principals(have, func(p *core.Principal) bool { return p.Scram256+p.Scram512 > 0 || len(p.Quotas) > 0 })
}

func (i *importing) acls(have *core.Snapshot) []document {
	return i.principals(have, func(p *core.Principal) bool { return len(p.Grants) > 0 })
}

// principals are External: their passwords stay as they are, for nobody can read them.
func (i *importing) principals(have *core.Snapshot, wanted func(*core.Principal) bool) []document {
	var all []document
	for _, name := range slices.Sorted(maps.Keys(have.Principals)) {
		p := have.Principals[name]
		if layout.OwnPrincipal(name) || !wanted(p) {
			continue
		}
		d := document{APIVersion: api.GroupVersion.String(), Kind: "KafkaUser", Metadata: map[string]string{"name": objectName(name)}}
		if p.Scram256+p.Scram512 > 0 {
			d.comment = "It has a password in Kafka, which External leaves alone; ScramSha512 gives it another one."
		}
		spec := api.KafkaUserSpec{ClusterRef: api.EntityClusterRef{Name: i.ref}, Authentication: api.UserAuthentication{Type: api.UserExternal}, Adopt: true}
		if _, has := p.Quotas[core.Every]; has {
			d.comment += " It has a quota for every other client id, which a KafkaUser cannot have: applied, that one is removed."
		}
		d.comment = strings.TrimSpace(d.comment)
		if d.Metadata["name"] != name {
			spec.Principal = name
		}
		spec.ACLs, spec.Quotas = aclsOf(p.Grants), quotasOf(p.Quotas)
		d.Spec = spec
		all = append(all, d)
	}
	return all
}

// aclsOf puts the operations on one resource together.
func aclsOf(grants []core.Grant) []api.ACL {
	var out []api.ACL
	sorted := slices.SortedFunc(slices.Values(grants), func(a, b core.Grant) int { return strings.Compare(a.String(), b.String()) })
	for _, g := range sorted {
		r := api.ACLResource{Type: g.Type, Name: g.Name, PatternType: g.Pattern}
		if g.Type == api.ACLCluster {
			r.Name = ""
		}
		at := slices.IndexFunc(out, func(a api.ACL) bool { return a.Resource == r && a.Effect == g.Effect && a.Host == g.Host })
		if at < 0 {
			at, out = len(out), append(out, api.ACL{Resource: r, Effect: g.Effect, Host: g.Host})
		}
		out[at].Operations = append(out[at].Operations, g.Operation)
	}
	return out
}

func quotasOf(quotas map[core.Part]core.Limits) *api.UserQuotas {
	if len(quotas) == 0 {
		return nil
	}
	out := &api.UserQuotas{}
	for _, id := range slices.Sorted(maps.Keys(quotas)) {
		if id == "" {
			out.Quota = quotaOf(quotas[id])
		} else if name, ok := id.Name(); ok {
			out.Clients = append(out.Clients, api.ClientQuota{ClientID: name, Quota: quotaOf(quotas[id])})
		}
	}
	return out
}

func quotaOf(l core.Limits) api.Quota {
	of := func(v float64) *resource.Quantity {
		if v == 0 {
			return nil
		}
		q, err := resource.ParseQuantity(strconv.FormatFloat(v, 'f', -1, 64))
		if err != nil {
			return nil // no number of Kafka's
		}
		return &q
	}
	return api.Quota{
		ProducerByteRate: of(l.ProducerByteRate), ConsumerByteRate: of(l.ConsumerByteRate),
		RequestPercentage: of(l.RequestPercentage), ControllerMutationRate: of(l.ControllerMutationRate),
	}
}

// objectName is a name that an object can have: that of Kafka, or what is left of it and a part of its digest.
func objectName(name string) string {
	if len(validation.IsDNS1123Subdomain(name)) == 0 {
		return name
	}
	left := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
	left = strings.Trim(left[:min(len(left), 200)], "-.")
	for strings.Contains(left, "..") || strings.Contains(left, ".-") || strings.Contains(left, "-.") {
		left = strings.NewReplacer("..", ".", ".-", "-", "-.", "-").Replace(left)
	}
	sum := sha256.Sum256([]byte(name))
	return strings.TrimPrefix(left+"-"+hex.EncodeToString(sum[:4]), "-")
}
