package entities

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"

	api "castellan.dev/castellan/api/v1alpha1"
)

// CertificateKey of a user's Secret has the chain of its certificate.
const CertificateKey = keyUserCert

// SecretName of a user, in its namespace.
func SecretName(u *api.KafkaUser) string { return secretName(u) }

// Keeps says whether a user's Secret follows what its cluster has, as far as the status tells.
func Keeps(u *api.KafkaUser) bool {
	if u.Spec.Authentication.Type == api.UserExternal || u.DeletionTimestamp != nil {
		return false
	}
	ready := meta.FindStatusCondition(u.Status.Conditions, api.ConditionReady)
	return ready == nil || !slices.Contains(unkept(), ready.Reason)
}

// unkept are reasons for which an object is not in force at all.
func unkept() []string {
	return []string{"Conflict", "NamespaceNotAllowed", "InvalidSpec", "ReservedPrincipal", "PrincipalExists"}
}
