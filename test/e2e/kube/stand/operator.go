package stand

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Where the stand installs the operator.
const (
	OperatorNamespace = "castellan-system"
	OperatorRelease   = "castellan"
	OperatorAccount   = "castellan-operator"
	operatorName      = "castellan-operator"
	operatorSelector  = "app.kubernetes.io/name=castellan,app.kubernetes.io/component=operator"
)

// Chart is the folder of the Helm chart.
func (k *Kubernetes) Chart() string { return filepath.Join(k.root, "deploy", "helm", "castellan") }

// Root is the folder of the module.
func (k *Kubernetes) Root() string { return k.root }

// Operator installs the operator from the chart as bin/castellan is now, for all namespaces, and waits until it runs.
func (k *Kubernetes) Operator() {
	k.tb.Helper()
	tag := k.Tag("e2e")
	k.LoadCastellan(tag)
	began := time.Now()
	k.Upgrade(tag)
	k.tb.Logf("the operator is there %s after helm install", time.Since(began).Round(100*time.Millisecond))
}

// Upgrade installs or upgrades the operator with an image that is on the machines already. It serves some namespaces, or all
// if none is given.
func (k *Kubernetes) Upgrade(tag string, namespaces ...string) {
	k.tb.Helper()
	must(k.tb, k.upgrade(k.tb.Context(), tag, namespaces))
	k.Eventually("the operator runs", ReadyTimeout, k.Deployed(OperatorNamespace, operatorName))
}

// Uninstall removes what Upgrade has installed, but for the definitions, as Helm does.
func (k *Kubernetes) Uninstall() {
	k.tb.Helper()
	k.Helm("uninstall", OperatorRelease, "--namespace", OperatorNamespace, "--ignore-not-found", "--wait", "--timeout", "3m")
}

// UpgradeAnyway is Upgrade for the end of a test, whose context has ended.
func (k *Kubernetes) UpgradeAnyway(tag string) {
	k.tb.Helper()
	if out := k.upgrade(context.Background(), tag, nil); out.Code != 0 {
		k.tb.Error(out)
	}
}

func (k *Kubernetes) upgrade(ctx context.Context, tag string, namespaces []string) Output {
	args := []string{
		"upgrade", "--install", OperatorRelease, k.Chart(), "--namespace", OperatorNamespace, "--create-namespace", "--wait", "--timeout", "4m",
		"--set", "image.repository=castellan", "--set", "image.tag=" + tag,
	}
	if len(namespaces) > 0 {
		args = append(args, "--set", "watchNamespaces={"+strings.Join(namespaces, ",")+"}")
	}
	return k.helmed(ctx, args...)
}

// Tag names what bin/castellan is now.
func (k *Kubernetes) Tag(prefix string) string {
	k.tb.Helper()
	f, err := os.Open(k.castellan)
	if err != nil {
		k.tb.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it is only read
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		k.tb.Fatal(err)
	}
	return prefix + "-" + hex.EncodeToString(sum.Sum(nil))[:12]
}

// ScaleOperator sets how many replicas the operator has, and waits until it is so.
func (k *Kubernetes) ScaleOperator(replicas int) {
	k.tb.Helper()
	k.MustKubectl("scale", "deployment", operatorName, "-n", OperatorNamespace, "--replicas", fmt.Sprint(replicas))
	k.Eventually(fmt.Sprintf("the operator has %d replicas", replicas), ReadyTimeout, k.Deployed(OperatorNamespace, operatorName))
	if replicas > 0 {
		return
	}
	k.Eventually("no pod of the operator runs", ReadyTimeout, func(ctx context.Context) error {
		pods, err := k.operatorPods(ctx)
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d pods are still there", len(pods))
		}
		return err
	})
}

func (k *Kubernetes) operatorPods(ctx context.Context) ([]corev1.Pod, error) {
	k.tb.Helper()
	var pods corev1.PodList
	if err := k.Client().List(ctx, &pods, client.InNamespace(OperatorNamespace), client.MatchingLabels{"app.kubernetes.io/name": "castellan", "app.kubernetes.io/component": "operator"}); err != nil {
		return nil, fmt.Errorf("list the operator's pods: %w", err)
	}
	return pods.Items, nil
}

// Leader is the pod of the operator that leads.
func (k *Kubernetes) Leader() corev1.Pod {
	k.tb.Helper()
	var leader corev1.Pod
	k.Eventually("an operator leads", ReadyTimeout, func(ctx context.Context) error {
		var leases coordinationv1.LeaseList
		if err := k.Client().List(ctx, &leases, client.InNamespace(OperatorNamespace)); err != nil {
			return fmt.Errorf("list the Leases: %w", err)
		}
		pods, err := k.operatorPods(ctx)
		if err != nil {
			return err
		}
		for _, lease := range leases.Items {
			if lease.Spec.HolderIdentity == nil {
				continue
			}
			at := slices.IndexFunc(pods, func(p corev1.Pod) bool {
				return p.DeletionTimestamp == nil && strings.HasPrefix(*lease.Spec.HolderIdentity, p.Name)
			})
			if at >= 0 {
				leader = pods[at]
				return nil
			}
		}
		return fmt.Errorf("none of %d pods holds one of %d Leases", len(pods), len(leases.Items))
	})
	return leader
}

// KillLeader ends the operator that leads without a farewell, and returns its name.
func (k *Kubernetes) KillLeader() string {
	k.tb.Helper()
	leader := k.Leader()
	k.MustKubectl("delete", "pod", "-n", OperatorNamespace, leader.Name, "--grace-period=0", "--force")
	k.Eventually("the operator "+leader.Name+" is gone", time.Minute, func(ctx context.Context) error {
		p := &corev1.Pod{}
		err := k.Client().Get(ctx, types.NamespacedName{Namespace: OperatorNamespace, Name: leader.Name}, p)
		if client.IgnoreNotFound(err) != nil {
			return err
		}
		if err == nil && p.UID == leader.UID {
			return fmt.Errorf("the pod is still there")
		}
		return nil
	})
	return leader.Name
}
