package install

import (
	"cmp"
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Running is a KafkaCluster that is up, proved by a record through each of its listeners.
type Running struct {
	Context string
	Cluster *api.KafkaCluster
	// CAs are the certificates to trust by name of the listener; plaintext ones have none.
	CAs map[string][]byte
	// Changed is how many objects this run has created or changed.
	Changed int
}

// Up brings up the operator and the clusters and returns when all are Ready and have taken
// a record. Anything that can be known to fail is checked before anything is created.
func Up(ctx context.Context, o Options) ([]Running, error) {
	o = o.complete()
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Timeout)
		defer cancel()
	}
	s, err := o.open()
	if err != nil {
		return nil, err
	}
	defer s.close()
	w, err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	changed, err := s.create(ctx, w)
	if err != nil {
		return nil, err
	}
	var running []Running
	for _, c := range w.clusters {
		r, err := s.bringUp(ctx, client.ObjectKeyFromObject(c))
		if err != nil {
			return nil, err
		}
		r.Changed = changed
		running = append(running, *r)
	}
	return running, nil
}

func (o Options) complete() Options {
	o.Namespace = cmp.Or(o.Namespace, DefaultNamespace)
	o.OperatorNamespace = cmp.Or(o.OperatorNamespace, DefaultOperatorNamespace)
	return o
}

// prepare finds out what to write and whether it can be.
func (s *session) prepare(ctx context.Context) (*wish, error) {
	if len(s.Objects) > 0 && s.Shape.asked() {
		return nil, &RefusedError{Message: "a file and flags that describe the cluster: set it all in the file of -f"}
	}
	s.Doing("checking the Kubernetes cluster %s", s.Context)
	machines, err := s.machines(ctx)
	if err != nil {
		return nil, err
	}
	w, err := s.wish(ctx, machines)
	if err != nil {
		return nil, err
	}
	if w.operator, err = s.operatorObjects(); err != nil {
		return nil, err
	}
	if err := s.preflight(ctx, w, machines); err != nil {
		return nil, err
	}
	s.Done("checked: the Kubernetes cluster %s has what is needed", s.Context)
	return w, nil
}

// create writes what is wished for and counts the changes.
func (s *session) create(ctx context.Context, w *wish) (int, error) {
	s.Doing("installing types and operator in namespace %s", s.OperatorNamespace)
	changed, err := s.applyAll(ctx, w.operator, w)
	if err != nil {
		return changed, err
	}
	if changed > 0 {
		s.Done("types and operator installed: %d of %d objects created or changed", changed, len(w.operator))
	}
	if err := s.awaitOperator(ctx); err != nil {
		return changed, err
	}
	s.Done("the operator runs in namespace %s", s.OperatorNamespace)
	for _, name := range w.namespaces("") {
		made, err := s.ensureNamespace(ctx, name)
		if err != nil {
			return changed, err
		}
		changed += made
	}
	var objects []*unstructured.Unstructured
	if !w.existing {
		objects = w.objects
	}
	more, err := s.applyAll(ctx, objects, w)
	return changed + more, err
}

// bringUp waits for a cluster and proves it.
func (s *session) bringUp(ctx context.Context, key client.ObjectKey) (*Running, error) {
	c, err := s.await(ctx, key)
	if err != nil {
		return nil, err
	}
	r := &Running{Context: s.Context, Cluster: c, CAs: map[string][]byte{}}
	if c.Spec.State == api.StateStopped {
		return r, nil
	}
	for _, l := range c.Status.Listeners {
		ca, err := s.roundTrip(ctx, c, l)
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				err = errors.Join(err, errors.New(s.trouble(context.WithoutCancel(ctx), c)))
			}
			return nil, err
		}
		r.CAs[l.Name] = ca
	}
	return r, nil
}
