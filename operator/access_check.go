package operator

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// recheck is how soon rights that were missing, or an operation that was forbidden, lead
// to asking again.
const recheck = 30 * time.Second

// RightsCheck finds out which rights an operator lacks, by SelfSubjectAccessReviews: once,
// and again after something was forbidden. It is safe for concurrent use; nil lacks none.
type RightsCheck struct {
	client client.Client
	access Access
	own    string // namespace of the operator
	wide   bool   // serves all namespaces
	now    func() time.Time
	log    *slog.Logger

	mu    sync.Mutex
	asked map[string]*answered // by namespace that is served; "" is all
}

// answered is what is known of one namespace.
type answered struct {
	missing []authorizationv1.ResourceAttributes
	at      time.Time
	again   bool // ask for everything anew
}

// newRightsCheck asks with a client that may read past any cache.
func newRightsCheck(c client.Client, config Config) *RightsCheck {
	return &RightsCheck{
		client: c, access: KubernetesAccess(config.LeaseNamespace), own: config.LeaseNamespace, wide: len(config.WatchNamespaces) == 0,
		now: config.now, log: config.Log, asked: map[string]*answered{},
	}
}

// Missing says, one sentence each, which rights the operator needs for the clusters of a
// namespace and lacks. Rights that could not be asked for count as there: what they are needed for
// will tell.
func (r *RightsCheck) Missing(ctx context.Context, namespace string) []string {
	if r == nil {
		return nil
	}
	if r.wide {
		namespace = ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.asked[namespace]
	if a == nil {
		a = &answered{again: true}
		r.asked[namespace] = a
	}
	var ask []authorizationv1.ResourceAttributes
	switch early := r.now().Before(a.at.Add(recheck)); {
	case early && !a.at.IsZero():
	case a.again:
		ask = append(attributes(r.access.Namespaced, namespace), attributes(r.access.Own, r.own)...)
	default:
		ask = a.missing
	}
	if len(ask) > 0 {
		missing, err := r.ask(ctx, ask)
		if err != nil {
			r.log.WarnContext(ctx, "could not ask for the operator's own rights", slog.Any("error", err))
			return nil
		}
		a.missing, a.at, a.again = missing, r.now(), false
	}
	return sentences(a.missing)
}

// Admission says which rights the operator lacks to have bad specs refused.
func (r *RightsCheck) Admission(ctx context.Context) []string {
	if r == nil {
		return nil
	}
	return r.optional(ctx, r.access.Admission)
}

// Sight says which rights the operator lacks to see what lies in no namespace.
func (r *RightsCheck) Sight(ctx context.Context) []string { return r.optional(ctx, r.access.Cluster) }

func (r *RightsCheck) optional(ctx context.Context, rules []rbacv1.PolicyRule) []string {
	missing, err := r.ask(ctx, attributes(rules, ""))
	if err != nil {
		return []string{err.Error()}
	}
	return sentences(missing)
}

// Note takes an error of any request; after one that was forbidden the rights are asked
// for again, though not at once each time.
func (r *RightsCheck) Note(err error) {
	if r == nil || !apierrors.IsForbidden(err) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.asked {
		a.again = true
	}
}

// ask returns those of the attributes that are not allowed.
func (r *RightsCheck) ask(ctx context.Context, all []authorizationv1.ResourceAttributes) ([]authorizationv1.ResourceAttributes, error) {
	denied := make([]bool, len(all))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range all {
		group.Go(func() error {
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &all[i]}}
			if err := r.client.Create(ctx, review); err != nil {
				return fmt.Errorf("ask whether the operator may %s: %w", all[i].Verb+" "+resource(all[i]), err)
			}
			denied[i] = !review.Status.Allowed
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var missing []authorizationv1.ResourceAttributes
	for i := range all {
		if denied[i] {
			missing = append(missing, all[i])
		}
	}
	return missing, nil
}

// attributes are the single rights that rules give in a namespace.
func attributes(rules []rbacv1.PolicyRule, namespace string) []authorizationv1.ResourceAttributes {
	var all []authorizationv1.ResourceAttributes
	for _, rule := range rules {
		names := rule.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, group := range rule.APIGroups {
			for _, kind := range rule.Resources {
				kind, sub, _ := strings.Cut(kind, "/")
				for _, verb := range rule.Verbs {
					for _, name := range names {
						all = append(all, authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Group: group, Resource: kind, Subresource: sub, Name: name})
					}
				}
			}
		}
	}
	return all
}

// sentences say what is missing, the verbs for one resource together.
func sentences(missing []authorizationv1.ResourceAttributes) []string {
	type place struct{ resource, name, namespace string }
	var order []place
	verbs := map[place][]string{}
	for _, a := range missing {
		p := place{resource(a), a.Name, a.Namespace}
		if verbs[p] == nil {
			order = append(order, p)
		}
		verbs[p] = append(verbs[p], a.Verb)
	}
	slices.SortStableFunc(order, func(a, b place) int { return cmp.Compare(a.namespace, b.namespace) })
	out := make([]string, 0, len(order))
	for _, p := range order {
		what := p.resource
		if p.name != "" {
			what += " " + p.name
		}
		if p.namespace != "" {
			what += " in namespace " + p.namespace
		}
		out = append(out, fmt.Sprintf("the operator may not %s %s: give its ServiceAccount this right, as the installation's manifests do", strings.Join(verbs[p], ", "), what))
	}
	return out
}

// resource is a resource as kubectl names it: statefulsets.apps, kafkanodes.castellan.dev/status.
func resource(a authorizationv1.ResourceAttributes) string {
	name := a.Resource
	if a.Group != "" {
		name += "." + a.Group
	}
	if a.Subresource != "" {
		name += "/" + a.Subresource
	}
	return name
}
