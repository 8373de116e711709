// Package driver holds the driver's name alone, for those that must not bring its feature gates into the same executable as
// Kubernetes, which has gates of the same names.
package driver

// Name is the name of the driver, in CSIDriver, StorageClass and PersistentVolume.
const Name = "csi.testkube.local"
