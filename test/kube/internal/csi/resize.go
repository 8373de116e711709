package csi

import (
	"context"
	"sync"
	"time"

	external "github.com/kubernetes-csi/external-resizer/v2/pkg/controller"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"

	"castellan.dev/castellan/test/kube/internal/csi/driver"
)

const (
	resync     = 10 * time.Minute
	firstRetry = time.Second
	lastRetry  = 20 * time.Second
)

// resizer is that of a driver which grows volumes on their node only: the control plane's part is to say that it may.
type resizer struct{ node string }

func (r resizer) Name() string                              { return driver.Name }
func (r resizer) DriverSupportsControlPlaneExpansion() bool { return false }

func (r resizer) CanSupport(pv *corev1.PersistentVolume, _ *corev1.PersistentVolumeClaim) bool {
	return belongsTo(pv, r.node)
}

func (r resizer) Resize(_ *corev1.PersistentVolume, size resource.Quantity) (resource.Quantity, bool, error) {
	return *resource.NewQuantity(rounded(size.Value()), resource.BinarySI), true, nil
}

func resize(ctx context.Context, client kubernetes.Interface, node string) {
	factory := informers.NewSharedInformerFactory(client, resync)
	c := external.NewResizeController(driver.Name, resizer{node: node}, client, resync, factory, retries(), false, lastRetry)
	factory.Start(ctx.Done())
	var workers sync.WaitGroup
	c.Run(1, ctx, &workers)
	workers.Wait()
}

func retries() workqueue.TypedRateLimiter[string] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry)
}
