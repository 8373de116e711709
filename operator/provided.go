package operator

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// providedFor is how long a Secret that a user provides is not read again. Who gives a
// cluster another CA waits that long at most.
const providedFor = 5 * time.Minute

// newClient reads from the cache, but looks for a Secret or ConfigMap that is not there
// also in the API server: what a user provides lacks the label that the cache goes by.
func (c Config) newClient(config *rest.Config, options client.Options) (client.Client, error) { //nolint:ireturn // what the manager wants
	cached, err := client.New(config, options)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	if c.serves(SubstrateHost) {
		return cached, nil
	}
	options.Cache = nil
	live, err := client.New(config, options)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	return newProvidedClient(cached, live), nil
}

// providedClient finds also what carries no label of ours. Such a Secret, a cluster's CA, is
// read by every pass and in no cache, so what was read is kept for a while: one request per
// cluster in that time. That there is none is never kept.
type providedClient struct {
	client.Client
	live client.Reader

	mu      sync.Mutex
	secrets map[client.ObjectKey]providedSecret
}

type providedSecret struct {
	secret *corev1.Secret
	until  time.Time
}

func newProvidedClient(cached client.Client, live client.Reader) *providedClient {
	return &providedClient{Client: cached, live: live, secrets: map[client.ObjectKey]providedSecret{}}
}

// ownOnly is a client for who reads only what carries our label: what is not in the cache
// is not asked for past it.
func ownOnly(c client.Client) client.Client { //nolint:ireturn // as it was given
	if p, ok := c.(*providedClient); ok {
		return p.Client
	}
	return c
}

// Get implements client.Reader.
func (p *providedClient) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	err := p.Client.Get(ctx, key, o, opts...)
	if !apierrors.IsNotFound(err) {
		return err
	}
	switch o := o.(type) {
	case *corev1.Secret:
		return p.secret(ctx, key, o, opts...)
	case *corev1.ConfigMap:
		return p.live.Get(ctx, key, o, opts...)
	default:
		return err
	}
}

// Update implements client.Writer: what was kept is another one from here on.
func (p *providedClient) Update(ctx context.Context, o client.Object, opts ...client.UpdateOption) error {
	err := p.Client.Update(ctx, o, opts...)
	if _, ok := o.(*corev1.Secret); ok {
		p.mu.Lock()
		delete(p.secrets, client.ObjectKeyFromObject(o))
		p.mu.Unlock()
	}
	return err
}

func (p *providedClient) secret(ctx context.Context, key client.ObjectKey, o *corev1.Secret, opts ...client.GetOption) error {
	p.mu.Lock()
	known := p.secrets[key]
	p.mu.Unlock()
	if time.Now().Before(known.until) {
		known.secret.DeepCopyInto(o)
		return nil
	}
	err := p.live.Get(ctx, key, o, opts...)
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, one := range p.secrets {
		if !time.Now().Before(one.until) {
			delete(p.secrets, name)
		}
	}
	if err == nil {
		p.secrets[key] = providedSecret{o.DeepCopy(), time.Now().Add(providedFor)}
	}
	return err
}
