// Package kube decides what a KafkaNode, and what the nodes of a cluster share, are as
// objects of Kubernetes, and what those objects tell of a node. It touches nothing.
package kube

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"castellan.dev/castellan/core/layout"
)

// NodeName is the name of a node's StatefulSet and KafkaNode.
func NodeName(cluster string, id int32) string { return fmt.Sprintf("%s-%d", cluster, id) }

// PodName is the name of a node's one pod.
func PodName(cluster string, id int32) string { return NodeName(cluster, id) + "-0" }

// NodesService is the headless Service that gives every pod its name.
func NodesService(cluster string) string { return cluster + "-nodes" }

// BootstrapService is the Service of the ready brokers, for clients inside the cluster.
func BootstrapService(cluster string) string { return cluster + "-bootstrap" }

// BootstrapExposure is the Service to begin with of an exposed listener.
func BootstrapExposure(cluster, listener string) string { return cluster + "-bootstrap-" + listener }

// ExposureService is the Service of one broker's exposed listener.
func ExposureService(cluster string, id int32, listener string) string {
	return NodeName(cluster, id) + "-" + listener
}

// Address is the DNS name of a node's pod. It stays whatever its IP address is.
func Address(namespace, cluster string, id int32) string {
	return PodName(cluster, id) + "." + NodesService(cluster) + "." + namespace + ".svc"
}

// BootstrapAddress is the DNS name of the bootstrap Service.
func BootstrapAddress(namespace, cluster string) string {
	return BootstrapService(cluster) + "." + namespace + ".svc"
}

// VolumePath is where a volume is mounted.
func VolumePath(volume string) string { return path.Join(layout.PodVolumeDir, volume) }

// ClaimName is the name of a volume's PersistentVolumeClaim. The attempt counts from 1; a
// higher one takes the place of a claim whose data was given up.
func ClaimName(volume, cluster string, id int32, attempt int) string {
	name := volume + "-" + NodeName(cluster, id)
	if attempt > 1 {
		name += "-r" + strconv.Itoa(attempt)
	}
	return name
}

// Attempt is the attempt that a claim's name tells.
func Attempt(claim string) int {
	at := strings.LastIndex(claim, "-r")
	if at < 0 {
		return 1
	}
	n, err := strconv.Atoi(claim[at+2:])
	if err != nil || n < 2 {
		return 1
	}
	return n
}
