package csi

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"castellan.dev/castellan/test/kube/internal/csi/driver"
)

const selectedNode = "volume.kubernetes.io/selected-node"

// provisioner makes and removes the volumes of one node.
type provisioner struct {
	node string
	disk disk
}

// ShouldProvision takes the claims that the scheduler gave to this node.
func (p *provisioner) ShouldProvision(_ context.Context, claim *corev1.PersistentVolumeClaim) bool {
	return claim.Annotations[selectedNode] == p.node
}

// ShouldDelete takes the volumes of this node.
func (p *provisioner) ShouldDelete(_ context.Context, pv *corev1.PersistentVolume) bool {
	return belongsTo(pv, p.node)
}

func (p *provisioner) Provision(ctx context.Context, o controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	if mode := o.PVC.Spec.VolumeMode; mode != nil && *mode != corev1.PersistentVolumeFilesystem {
		return nil, controller.ProvisioningFinished, fmt.Errorf("volumeMode %s is not offered: use Filesystem", *mode)
	}
	request := o.PVC.Spec.Resources.Requests[corev1.ResourceStorage]
	bytes := rounded(request.Value())
	if err := p.disk.create(ctx, o.PVName, bytes); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: o.PVName},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:               corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(bytes, resource.BinarySI)},
			AccessModes:            o.PVC.Spec.AccessModes,
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver.Name, VolumeHandle: o.PVName, FSType: "xfs"}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: topologyKey, Operator: corev1.NodeSelectorOpIn, Values: []string{p.node}}},
			}}}},
		},
	}
	if o.StorageClass.ReclaimPolicy != nil {
		pv.Spec.PersistentVolumeReclaimPolicy = *o.StorageClass.ReclaimPolicy
	}
	return pv, controller.ProvisioningFinished, nil
}

func (p *provisioner) Delete(_ context.Context, pv *corev1.PersistentVolume) error {
	return p.disk.remove(pv.Spec.CSI.VolumeHandle)
}

// belongsTo reports whether pv is a volume of this driver on the node.
func belongsTo(pv *corev1.PersistentVolume, node string) bool {
	if pv.Spec.CSI == nil || pv.Spec.CSI.Driver != driver.Name || pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return false
	}
	for _, term := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, e := range term.MatchExpressions {
			if e.Key == topologyKey && len(e.Values) == 1 && e.Values[0] == node {
				return true
			}
		}
	}
	return false
}

func provision(ctx context.Context, client kubernetes.Interface, p *provisioner) {
	// Two failures are retried fast: tests wait for them. The finalizer is what external-provisioner sets too.
	controller.NewProvisionController(ctx, client, driver.Name, p,
		controller.LeaderElection(false), controller.AddFinalizer(true), controller.RateLimiter(retries()),
		controller.FailedProvisionThreshold(0), controller.FailedDeleteThreshold(0),
	).Run(ctx)
}
