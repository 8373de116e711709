package apiserver

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/informers"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

// tokenSubjects looks up what a service account token is bound to. Pods and nodes do not exist here, so a token bound to
// one is not valid.
type tokenSubjects struct {
	accounts listers.ServiceAccountLister
	secrets  listers.SecretLister
}

func newTokenSubjects(factory informers.SharedInformerFactory) serviceaccount.ServiceAccountTokenGetter { //nolint:ireturn // the option's type
	core := factory.Core().V1()
	return tokenSubjects{accounts: core.ServiceAccounts().Lister(), secrets: core.Secrets().Lister()}
}

// GetServiceAccount finds the account a token speaks for.
func (t tokenSubjects) GetServiceAccount(_ context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	return t.accounts.ServiceAccounts(namespace).Get(name)
}

// GetSecret finds the Secret a token is bound to.
func (t tokenSubjects) GetSecret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	return t.secrets.Secrets(namespace).Get(name)
}

// GetPod finds nothing: there are no pods.
func (t tokenSubjects) GetPod(_ context.Context, _, name string) (*corev1.Pod, error) {
	return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
}

// GetNode finds nothing: there are no nodes.
func (t tokenSubjects) GetNode(_ context.Context, name string) (*corev1.Node, error) {
	return nil, apierrors.NewNotFound(corev1.Resource("nodes"), name)
}
