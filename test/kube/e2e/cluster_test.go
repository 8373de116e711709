// Package e2e starts a cluster of testkube as a user does and asks it for what the stories on Kubernetes need. It needs root
// and bin/testkube.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/util/cert"

	"castellan.dev/castellan/test/kube/internal/cluster"
)

func intstrOf(port int32) intstr.IntOrString { return intstr.FromInt32(port) }

func TestCluster(t *testing.T) {
	dir, err := os.MkdirTemp("", "tk") //nolint:usetesting // short: Unix sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	s := &stand{t: t}
	if s.dir, err = cluster.NewDir(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("state and logs stay in %s", dir)
			_, _ = s.try("down")
			return
		}
		_ = os.RemoveAll(dir)
	})
	s.up("--image", writeImage(t, probeImage))
	if out := s.testkube("up", "--name", name); !strings.Contains(out, "running already") {
		t.Errorf("a second start said %q", out)
	}
	for _, story := range []struct {
		name string
		tell func(*stand)
	}{
		{"pods find each other by name, across nodes", pair},
		{"a volume grows under its pod", grow},
		{"NodePort and LoadBalancer answer the world outside", expose},
		{"the API server reaches a webhook in a pod", webhook},
		{"a memory limit kills", eat},
		{"an image is loaded into running nodes", load},
		{"a node loses power and comes back with its volume", power},
		{"a node comes back with a fresh disk", freshDisk},
		{"down leaves nothing, and a kept cluster comes back", comeBack},
		{"a daemon that is killed leaves nothing that the next start does not remove", killed},
	} {
		ok := t.Run(story.name, func(t *testing.T) {
			story.tell(&stand{t: t, dir: s.dir, client: s.client})
		})
		if !ok {
			return
		}
	}
}

func pair(s *stand) {
	s.run(pod("one", onNode("node1")))
	s.run(pod("two", onNode("node2")))
	s.service("two", corev1.ServiceTypeClusterIP, probePort)
	eventually(s.t, "one finds two", func(ctx context.Context) error {
		got, err := s.ask(ctx, "one", "get", map[string]string{"url": "http://two:8080/name"})
		if err == nil && got != "two" {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
	if got := s.mustAsk("one", "get", map[string]string{"url": "http://two.default.svc.cluster.local:8080/name"}); got != "two" {
		s.t.Errorf("got %q", got)
	}
}

func grow(s *stand) {
	s.claim("data", "10Mi")
	s.run(pod("grows", withVolume("data")))
	before := s.size("grows")
	patch := []byte(`{"spec":{"resources":{"requests":{"storage":"600Mi"}}}}`)
	if _, err := s.client.CoreV1().PersistentVolumeClaims(namespace).Patch(s.t.Context(), "data", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the file system is larger", func(context.Context) error {
		if now := s.size("grows"); now < before+200 {
			return fmt.Errorf("%d MiB, %d before", now, before)
		}
		return nil
	})
}

func (s *stand) size(pod string) int {
	s.t.Helper()
	mebibytes, err := strconv.Atoi(s.mustAsk(pod, "size", nil))
	if err != nil {
		s.t.Fatal(err)
	}
	return mebibytes
}

func expose(s *stand) {
	s.testkube("loadbalancer", "off")
	s.run(pod("seen", nil))
	service := s.service("seen", corev1.ServiceTypeLoadBalancer, probePort)
	client := s.outside()
	url := fmt.Sprintf("http://10.88.0.13:%d/name", service.Spec.Ports[0].NodePort)
	eventually(s.t, url, func(ctx context.Context) error {
		_, err := get(ctx, client, url)
		return err
	})
	var address string
	look := func(ctx context.Context) error {
		now, err := s.client.CoreV1().Services(namespace).Get(ctx, "seen", metav1.GetOptions{})
		if err == nil && len(now.Status.LoadBalancer.Ingress) == 0 {
			err = errors.New("no address")
		}
		if err == nil {
			address = now.Status.LoadBalancer.Ingress[0].IP
		}
		return err
	}
	if look(s.t.Context()) == nil {
		s.t.Errorf("it got the address %s while the load balancer was off", address)
	}
	s.testkube("loadbalancer", "on")
	eventually(s.t, "an address", look)
	eventually(s.t, "an answer at "+address, func(ctx context.Context) error {
		_, err := get(ctx, client, "http://"+net.JoinHostPort(address, strconv.Itoa(probePort))+"/name")
		return err
	})
}

func webhook(s *stand) {
	const host = "hook.default.svc"
	chain, key, err := cert.GenerateSelfSignedCertKey(host, nil, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "hook"}, Data: map[string][]byte{"tls.crt": chain, "tls.key": key}}
	if _, err := s.client.CoreV1().Secrets(namespace).Create(s.t.Context(), secret, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.run(pod("hook", func(p *corev1.PodSpec) {
		p.Volumes = []corev1.Volume{{Name: "certs", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "hook"}}}}
		p.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "certs", MountPath: "/certs"}}
	}))
	s.service("hook", corev1.ServiceTypeClusterIP, hookPort)
	hooks := s.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	if _, err := hooks.Create(s.t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "hook"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "deny.testkube.local", AdmissionReviewVersions: []string{"v1"}, SideEffects: new(admissionregistrationv1.SideEffectClassNone),
			ClientConfig: admissionregistrationv1.WebhookClientConfig{CABundle: chain, Service: &admissionregistrationv1.ServiceReference{
				Namespace: namespace, Name: "hook", Path: new("/deny"), Port: new(int32(hookPort)),
			}},
			MatchConditions: []admissionregistrationv1.MatchCondition{{Name: "named", Expression: "object.metadata.name == 'denied'"}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
			}},
		}},
	}, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the webhook denies", func(ctx context.Context) error {
		denied := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "denied"}}
		_, err := s.client.CoreV1().ConfigMaps(namespace).Create(ctx, denied, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil || !strings.Contains(err.Error(), "asked in a pod") {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
}

func eat(s *stand) {
	s.run(pod("eats", func(p *corev1.PodSpec) {
		p.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("100Mi")}
	}))
	if _, err := s.ask(s.t.Context(), "eats", "eat", map[string]string{"mebibytes": "300"}); err == nil {
		s.t.Error("it ate more than its limit")
	}
	eventually(s.t, "OOMKilled", func(ctx context.Context) error {
		p, err := s.client.CoreV1().Pods(namespace).Get(ctx, "eats", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if c := p.Status.ContainerStatuses[0]; c.LastTerminationState.Terminated == nil || c.LastTerminationState.Terminated.Reason != "OOMKilled" {
			return fmt.Errorf("it is %+v", c)
		}
		return nil
	})
}

func load(s *stand) {
	s.testkube("load", writeImage(s.t, loadedImage))
	for _, node := range []string{"node1", "node2", "node3"} {
		s.run(pod("loaded-"+node, func(p *corev1.PodSpec) {
			onNode(node)(p)
			p.Containers[0].Image = loadedImage
		}))
	}
}

func power(s *stand) {
	s.claim("kept", "300Mi")
	s.run(pod("kept", func(p *corev1.PodSpec) { onNode("node2")(p); withVolume("kept")(p) }))
	s.mustAsk("kept", "write", map[string]string{"text": "before"})
	s.testkube("node", "kill", "node2")
	s.awaitNode("node2", corev1.ConditionUnknown)
	if out, err := s.try("exec", "node2", "--", "true"); err == nil {
		s.t.Errorf("a command ran on a node that is off: %s", out)
	}
	s.testkube("node", "start", "node2")
	s.awaitNode("node2", corev1.ConditionTrue)
	s.checkKept()
}

func (s *stand) checkKept() {
	s.t.Helper()
	eventually(s.t, "the volume is back", func(ctx context.Context) error {
		got, err := s.ask(ctx, "kept", "read", nil)
		if err == nil && got != "before" {
			return fmt.Errorf("got %q", got)
		}
		return err
	})
}

func (s *stand) awaitNode(name string, want corev1.ConditionStatus) {
	s.t.Helper()
	eventually(s.t, name+" "+string(want), func(ctx context.Context) error {
		n, err := s.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == want {
				return nil
			}
		}
		return errors.New("not yet")
	})
}

func freshDisk(s *stand) {
	s.claim("lost", "300Mi")
	s.run(pod("lost", func(p *corev1.PodSpec) { onNode("node1")(p); withVolume("lost")(p) }))
	s.testkube("node", "kill", "node1")
	s.testkube("node", "start", "--fresh-disk", "node1")
	eventually(s.t, "the pod says that its volume is lost", func(ctx context.Context) error {
		events, err := s.client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=lost,reason=FailedMount"})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if strings.Contains(e.Message, "its data is lost") {
				return nil
			}
		}
		return fmt.Errorf("%d events", len(events.Items))
	})
	// Its images are those of a new node, the one that was loaded later included.
	s.run(pod("fresh", func(p *corev1.PodSpec) { onNode("node1")(p); p.Containers[0].Image = loadedImage }))
}

func comeBack(s *stand) {
	s.testkube("down")
	s.checkNothingLeft()
	s.testkube("down")
	s.up("--keep")
	s.checkKept()
}

func killed(s *stand) {
	pid, err := os.ReadFile(string(s.dir) + "/lock")
	if err != nil {
		s.t.Fatal(err)
	}
	number, err := strconv.Atoi(string(pid))
	if err != nil {
		s.t.Fatal(err)
	}
	process, err := os.FindProcess(number)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	s.up()
	if pods, err := s.client.CoreV1().Pods(namespace).List(s.t.Context(), metav1.ListOptions{}); err != nil || len(pods.Items) > 0 {
		s.t.Errorf("a fresh cluster has %d pods: %v", len(pods.Items), err)
	}
	s.testkube("down")
	s.checkNothingLeft()
}
