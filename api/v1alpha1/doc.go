// Package v1alpha1 holds the API objects of the group castellan.dev: what a
// user wants of a Kafka cluster, what one Kafka process must be, and what a
// host must run. It holds types and their generated companions, no logic.
//
// +kubebuilder:object:generate=true
// +groupName=castellan.dev
package v1alpha1
