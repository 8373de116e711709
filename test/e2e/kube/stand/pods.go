package stand

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"castellan.dev/castellan/core/kube"
)

// PodWatch remembers what happened to the pods of a cluster.
type PodWatch struct {
	mu      sync.Mutex
	pods    map[string]*podStory
	unready int // the most that were not ready at once
	at      string
	stop    chan struct{}
	factory informers.SharedInformerFactory
}

// podStory is that of one name.
type podStory struct {
	uids     []types.UID
	restarts int32 // of containers, since the watch began
	counted  int32 // of the restarts of the newest pod
	ready    bool
}

// WatchPods begins at the pods that there are.
func (c *Cluster) WatchPods() *PodWatch {
	c.tb.Helper()
	w := &PodWatch{pods: map[string]*podStory{}, stop: make(chan struct{})}
	w.factory = informers.NewSharedInformerFactoryWithOptions(c.Clientset(), 0, informers.WithNamespace(c.Namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = kube.LabelCluster + "=" + c.Name }))
	informer := w.factory.Core().V1().Pods().Informer()
	seen, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { w.see(o, false) },
		UpdateFunc: func(_, o any) { w.see(o, false) },
		DeleteFunc: func(o any) { w.see(o, true) },
	})
	if err != nil {
		c.tb.Fatalf("watch the pods of %s: %v", c.key(), err)
	}
	w.factory.Start(w.stop)
	c.tb.Cleanup(w.Stop)
	if !cache.WaitForCacheSync(c.tb.Context().Done(), seen.HasSynced) {
		c.tb.Fatalf("watch the pods of %s: none came", c.key())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unready = 0
	return w
}

// Stop ends the watch.
func (w *PodWatch) Stop() {
	w.mu.Lock()
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.mu.Unlock()
	w.factory.Shutdown()
}

func (w *PodWatch) see(object any, gone bool) {
	if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var count int32
	for _, c := range pod.Status.ContainerStatuses {
		count += c.RestartCount
	}
	s := w.pods[pod.Name]
	switch {
	case s == nil:
		s = &podStory{uids: []types.UID{pod.UID}, counted: count} // what was before does not count
		w.pods[pod.Name] = s
	case !slices.Contains(s.uids, pod.UID):
		s.uids = append(s.uids, pod.UID)
		s.counted = 0
	}
	s.restarts += count - s.counted
	s.counted = count
	s.ready = !gone && ready(pod)
	w.count()
}

func (w *PodWatch) count() {
	var names []string
	for name, s := range w.pods {
		if !s.ready {
			names = append(names, name)
		}
	}
	if len(names) > w.unready {
		w.unready = len(names)
		w.at = time.Now().Format(time.TimeOnly) + " " + strings.Join(slices.Sorted(slices.Values(names)), " ")
	}
}

// Restarts counts, by pod, how often a new pod came or a container began again.
func (w *PodWatch) Restarts() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]int{}
	for name, s := range w.pods {
		if n := len(s.uids) - 1 + int(s.restarts); n > 0 {
			out[name] = n
		}
	}
	return out
}

// Unready is how many pods were not ready at once, at most, and when which ones.
func (w *PodWatch) Unready() (most int, which string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unready, w.at
}

// Once is how often each pod restarted when each of them did once.
func (c *Cluster) Once(ids ...int32) map[string]int {
	out := map[string]int{}
	for _, id := range ids {
		out[PodName(c.Name, id)] = 1
	}
	return out
}

// ExpectRolled fails the test unless each of some nodes was restarted once, one at a time, and no other one.
func (c *Cluster) ExpectRolled(w *PodWatch, ids ...int32) {
	c.tb.Helper()
	if got, want := w.Restarts(), c.Once(ids...); !maps.Equal(got, want) {
		c.tb.Errorf("pods were restarted %v times, want %v", got, want)
	}
	if most, which := w.Unready(); most > 1 {
		c.tb.Errorf("%d pods were not ready at once: %s", most, which)
	}
}

// ExpectUntouched fails the test if any pod was restarted.
func (c *Cluster) ExpectUntouched(w *PodWatch) {
	c.tb.Helper()
	if got := w.Restarts(); len(got) > 0 {
		c.tb.Errorf("pods were restarted: %v", got)
	}
}
