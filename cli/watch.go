package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

func watchCommand(o *options) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "watch CLUSTER|OPERATION",
		Short: "Follow what is being done until it is over",
		Long: `Follow an operation, or all that is being done to a cluster, until it is over: how each node is,
how far it is, and when it probably ends. It ends with 0 if the last one succeeded, else with 1.
Ctrl-C ends the watching and nothing else.`,
		Example: "  castellan watch orders\n  castellan watch orders-rollout-7",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, config, namespace, err := o.objects()
			if err != nil {
				return err
			}
			w, err := o.watchedOf(cmd.Context(), c, namespace, args[0])
			if err != nil {
				return err
			}
			return o.watch(cmd.Context(), config, namespace, w, timeout)
		},
	}
	o.addNamespace(cmd)
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how long to watch (default until it is over)")
	return cmd
}

// watched is one Operation or, without its name, all that is done to a cluster.
type watched struct{ cluster, operation string }

func (o *options) watchedOf(ctx context.Context, c client.Client, namespace, name string) (watched, error) {
	var op api.Operation
	err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &op)
	switch {
	case err == nil:
		return watched{cluster: op.Spec.ClusterRef.Name, operation: name}, nil
	case !apierrors.IsNotFound(err):
		return watched{}, fmt.Errorf("read Operation %s/%s: %w", namespace, name, err)
	}
	return watched{cluster: name}, o.missing(ctx, c, namespace, name)
}

// watch follows until it is over; its error is how the last Operation ended.
func (o *options) watch(ctx context.Context, config *rest.Config, namespace string, w watched, timeout time.Duration) error {
	c, err := watchClient(config)
	if err != nil {
		return err
	}
	bounded := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	f := &follower{options: o, want: w, namespace: namespace, client: c, ops: map[string]*api.Operation{}, view: progressView{out: o.Out, size: o.Size}}
	err = f.run(bounded)
	if bounded.Err() != nil && err != nil {
		fmt.Fprintf(o.Err, "%s goes on without being watched: `%s watch %s` shows it again, `%[2]s pause` and `%[2]s cancel` stop it\n", f.subject(), o.program(), f.name())
		if ctx.Err() == nil {
			return fmt.Errorf("%s is not over after %s: %w", f.subject(), timeout, context.DeadlineExceeded)
		}
		return fmt.Errorf("interrupted: %w", ctx.Err())
	}
	return err
}

// follower follows the Operations of one cluster.
type follower struct {
	*options
	want      watched
	namespace string
	client    client.WithWatch

	cluster *api.KafkaCluster
	// ops as last seen, also those that are gone.
	ops  map[string]*api.Operation
	gone []string
	// current is the Operation that is shown, last the one before.
	current, last string
	view          progressView
}

func (f *follower) subject() string {
	if f.current != "" {
		return "operation " + f.current
	}
	return "cluster " + f.want.cluster
}

func (f *follower) name() string {
	if f.current != "" {
		return f.current
	}
	return f.want.cluster
}

// run looks whenever something has changed.
func (f *follower) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var informers sync.WaitGroup
	defer informers.Wait()
	defer cancel()
	seen := make(chan sighting)
	kinds := f.kinds()
	for _, kind := range kinds {
		if err := inform(ctx, f.client, f.namespace, kind, seen, &informers); err != nil {
			return err
		}
	}
	unread := len(kinds)
	tick, stop := f.view.clock()
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick:
			f.view.draw(time.Now())
			continue
		case s := <-seen:
			if s.read {
				unread--
			}
			if err := f.note(s); err != nil {
				return err
			}
		}
		if unread > 0 {
			continue
		}
		if over, err := f.look(ctx); over || err != nil {
			return err
		}
	}
}

func (f *follower) kinds() []informed {
	if f.want.operation != "" {
		return []informed{{list: &api.OperationList{}, object: &api.Operation{}, name: f.want.operation}}
	}
	return []informed{
		{list: &api.OperationList{}, object: &api.Operation{}},
		{list: &api.KafkaClusterList{}, object: &api.KafkaCluster{}, name: f.want.cluster},
	}
}

// note takes in what was seen.
func (f *follower) note(s sighting) error {
	if s.err != nil {
		if apierrors.IsForbidden(s.err) || apierrors.IsUnauthorized(s.err) {
			return fmt.Errorf("watch the operations of namespace %s: %w", f.namespace, s.err)
		}
		why := s.err
		if call, ok := errors.AsType[*url.Error](why); ok {
			why = call.Err // without the address, which is another one each time
		}
		f.view.trouble("the API server cannot be asked now, trying again: "+why.Error(), time.Now())
		return nil
	}
	if s.back {
		f.view.back(time.Now())
		return nil
	}
	switch object := s.object.(type) {
	case *api.Operation:
		if object.Spec.ClusterRef.Name != f.want.cluster {
			return nil
		}
		f.ops[object.Name] = object
		f.gone = slices.DeleteFunc(f.gone, func(name string) bool { return name == object.Name })
		if s.gone {
			f.gone = append(f.gone, object.Name)
		}
	case *api.KafkaCluster:
		if f.cluster = object; s.gone {
			return &NotFoundError{Message: fmt.Sprintf("cluster %s was deleted", f.want.cluster)}
		}
	}
	return nil
}

// look shows how it is, and says whether it is over.
func (f *follower) look(ctx context.Context) (over bool, err error) {
	if f.want.operation != "" {
		f.current = f.want.operation
		op := f.ops[f.current]
		if op == nil {
			return true, &NotFoundError{Message: fmt.Sprintf("operation %s was deleted before it was over", f.current)}
		}
		f.view.show(op, time.Now())
		return f.ended(op), f.ending(op)
	}
	for {
		if op := f.ops[f.current]; op != nil {
			f.view.show(op, time.Now())
			if !f.ended(op) {
				return false, nil
			}
			f.current, f.last = "", op.Name
		}
		next := f.next()
		if next == nil {
			return f.nothing(ctx)
		}
		f.current = next.Name
		f.view.begin()
	}
}

func (f *follower) ended(op *api.Operation) bool {
	return op.Status.Phase.Final() || slices.Contains(f.gone, op.Name)
}

// next is the oldest Operation that is not over.
func (f *follower) next() *api.Operation {
	var next *api.Operation
	for _, op := range f.ops {
		if !f.ended(op) && (next == nil || byAge(*op, *next) < 0) {
			next = op
		}
	}
	return next
}

// nothing is active: it is over, unless an Operation is still to come for a spec that was
// just applied.
func (f *follower) nothing(ctx context.Context) (over bool, err error) {
	if kc := f.cluster; kc != nil && kc.Status.ObservedGeneration < kc.Generation {
		f.view.wait(fmt.Sprintf("waiting for the operator to look at generation %d of cluster %s", kc.Generation, kc.Name), time.Now())
		return false, nil
	}
	// Objects of two kinds are seen in no certain order: what the operator has made by now is asked for.
	active, err := activeOf(ctx, f.client, f.namespace, f.want.cluster)
	if err != nil {
		return true, err
	}
	if slices.ContainsFunc(active, func(op api.Operation) bool { return f.ops[op.Name] == nil }) {
		return false, nil // it will be seen
	}
	if f.last != "" {
		return true, f.ending(f.ops[f.last])
	}
	f.view.wait("nothing is being done to cluster "+f.want.cluster, time.Now())
	last := f.newest()
	if last == nil {
		return true, nil
	}
	f.view.show(last, time.Now())
	return true, f.ending(last)
}

func (f *follower) newest() *api.Operation {
	var newest *api.Operation
	for _, op := range f.ops {
		if newest == nil || byAge(*op, *newest) > 0 {
			newest = op
		}
	}
	return newest
}

// ending is the error that an Operation ended with.
func (f *follower) ending(op *api.Operation) error {
	switch {
	case op.Status.Phase == api.OperationSucceeded:
		return nil
	case op.Status.Phase.Final():
		return fmt.Errorf("operation %s is %s%s; %s", op.Name, op.Status.Phase, messageOf(op), f.afterwards(op))
	case slices.Contains(f.gone, op.Name):
		return &NotFoundError{Message: fmt.Sprintf("operation %s was deleted before it was over", op.Name)}
	default:
		return nil
	}
}

func watchClient(config *rest.Config) (client.WithWatch, error) { //nolint:ireturn // controller-runtime gives only the interface
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, errors.Join(errors.New("connect to the API server"), err)
	}
	return c, nil
}
