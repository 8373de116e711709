package csi

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"castellan.dev/castellan/test/kube/internal/csi/driver"
)

func TestRequestsAreRoundedUpToWhatXFSTakes(t *testing.T) {
	for bytes, want := range map[int64]int64{
		0:                   300 << 20,
		1 << 20:             300 << 20,
		300 << 20:           300 << 20,
		300<<20 + 1:         301 << 20,
		1 << 30:             1 << 30,
		1_000_000_000:       954 << 20,
		1<<40 - 1<<20 + 512: 1 << 40,
	} {
		if got := rounded(bytes); got != want {
			t.Errorf("%d bytes became %d, not %d", bytes, got, want)
		}
	}
}

func TestAVolumeIDIsNoPath(t *testing.T) {
	d := disk{dir: "/volumes"}
	for _, id := range []string{"", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden"} {
		if path, err := d.file(id); err == nil {
			t.Errorf("%q became %s", id, path)
		}
	}
	if path, err := d.file("pvc-1"); err != nil || path != "/volumes/pvc-1" {
		t.Errorf("got %s, %v", path, err)
	}
}

func TestAVolumeBelongsToTheNodeThatHasIt(t *testing.T) {
	pv := &corev1.PersistentVolume{}
	if belongsTo(pv, "node1") {
		t.Error("a volume of no driver was taken")
	}
	pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: driver.Name}
	pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: topologyKey, Operator: corev1.NodeSelectorOpIn, Values: []string{"node1"}}},
	}}}}
	if !belongsTo(pv, "node1") || belongsTo(pv, "node2") {
		t.Error("a volume went to the wrong node")
	}
	pv.Spec.CSI.Driver = "another"
	if belongsTo(pv, "node1") {
		t.Error("a volume of another driver was taken")
	}
}
