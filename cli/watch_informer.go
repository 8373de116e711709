package cli

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// informed is a kind to watch, or one object of it.
type informed struct {
	list   client.ObjectList
	object client.Object
	name   string // "" is all
}

// sighting is what a watch brings: an object, that all there were at the beginning have come
// (read), what went wrong, or that the server answers again (back).
type sighting struct {
	object client.Object
	gone   bool
	read   bool
	err    error
	back   bool
}

// inform sends what it sees until ctx ends. The informer takes a broken watch up again where
// it was, and lists anew when the server has forgotten that place.
func inform(ctx context.Context, c client.WithWatch, namespace string, kind informed, seen chan<- sighting, running *sync.WaitGroup) error {
	send := func(s sighting) {
		select {
		case seen <- s:
		case <-ctx.Done():
		}
	}
	informer := cache.NewSharedIndexInformer(listWatch(c, namespace, kind, send), kind.object, 0, nil)
	// The calls themselves tell of failures: some of them the informer keeps to itself.
	if err := informer.SetWatchErrorHandlerWithContext(func(context.Context, *cache.Reflector, error) {}); err != nil {
		return fmt.Errorf("prepare the watch: %w", err)
	}
	sendObject := func(o any, gone bool) {
		if tombstone, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = tombstone.Obj
		}
		if object, ok := o.(client.Object); ok {
			send(sighting{object: object, gone: gone})
		}
	}
	registered, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { sendObject(o, false) },
		UpdateFunc: func(_, o any) { sendObject(o, false) },
		DeleteFunc: func(o any) { sendObject(o, true) },
	})
	if err != nil {
		return fmt.Errorf("prepare the watch: %w", err)
	}
	running.Go(func() { informer.RunWithContext(ctx) })
	running.Go(func() {
		select {
		case <-registered.HasSyncedChecker().Done():
			send(sighting{read: true})
		case <-ctx.Done():
		}
	})
	return nil
}

func listWatch(c client.WithWatch, namespace string, kind informed, send func(sighting)) cache.ListerWatcher { //nolint:ireturn // what an informer takes
	options := func(raw metav1.ListOptions) *client.ListOptions {
		if kind.name != "" {
			raw.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, kind.name).String()
		}
		return &client.ListOptions{Namespace: namespace, Raw: &raw}
	}
	empty := func() client.ObjectList { return kind.list.DeepCopyObject().(client.ObjectList) } //nolint:forcetypeassert // a copy of one
	var failing atomic.Bool
	tell := func(ctx context.Context, err error) {
		switch {
		case ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err): // the informer lists anew
		case err != nil:
			failing.Store(true)
			send(sighting{err: err})
		case failing.Swap(false):
			send(sighting{back: true})
		}
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, raw metav1.ListOptions) (runtime.Object, error) {
			list := empty()
			err := c.List(ctx, list, options(raw))
			tell(ctx, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, raw metav1.ListOptions) (watch.Interface, error) {
			w, err := c.Watch(ctx, empty(), options(raw))
			tell(ctx, err)
			return w, err
		},
	}
}
