package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Options of [Clients]. The zero value is good.
type Options struct {
	// Max clusters to hold connections to at once; 0 means 256.
	Max int
	// Idle is how long connections to a cluster outlive their last use; 0 means 15 minutes.
	Idle time.Duration
	// Timeout bounds one observation or one change; 0 means 10 seconds.
	Timeout time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log gets what connecting and closing is worth saying; nil discards it.
	Log *slog.Logger
	// Dial opens the connections; nil means the network.
	Dial DialFunc
}

// Clients holds the connections to clusters, one set for each, and closes what is no longer used.
// All methods are safe for concurrent use.
type Clients struct {
	opts Options

	mu      sync.Mutex
	closed  bool
	entries map[string]*entry
}

type entry struct {
	conn   *conn
	target Target
	users  int
	used   time.Time
	// stale entries are out of the map and close with their last user.
	stale bool
}

// NewClients returns an empty cache.
func NewClients(opts Options) *Clients {
	if opts.Max <= 0 {
		opts.Max = 256
	}
	if opts.Idle <= 0 {
		opts.Idle = 15 * time.Minute
	}
	if opts.Timeout <= 0 {
		opts.Timeout = 10 * time.Second
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Clients{opts: opts, entries: map[string]*entry{}}
}

// Cluster returns a handle on the cluster of that name (namespace/name) at t. It dials nothing yet. A
// handle needs no closing and should live for one pass: a later handle of the same name with
// another target replaces the connections.
func (c *Clients) Cluster(name string, t Target) *Cluster {
	return &Cluster{clients: c, name: name, target: t}
}

// Forget closes the connections to a cluster as soon as nobody uses them.
func (c *Clients) Forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(name)
}

// Close ends all connections, also those in use.
func (c *Clients) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for name, e := range c.entries {
		delete(c.entries, name)
		e.stale = true
		e.conn.close()
	}
}

// Open is how many clusters it holds connections to.
func (c *Clients) Open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

func (c *Clients) acquire(name string, t Target) (*conn, func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, errors.New("connections to Kafka are closed: the process is stopping")
	}
	now := c.opts.Now()
	c.sweep(name, now)
	e := c.entries[name]
	if e != nil && !e.target.equal(t) {
		c.opts.Log.Info("reconnect to a changed cluster", slog.String("cluster", name))
		c.drop(name)
		e = nil
	}
	if e == nil {
		conn, err := dial(t, c.opts.Dial, c.opts.Now)
		if err != nil {
			return nil, nil, fmt.Errorf("connect to the Kafka cluster %s: %w", name, err)
		}
		e = &entry{conn: conn, target: t}
		c.entries[name] = e
	}
	e.users++
	e.used = now
	return e.conn, func() { c.release(e) }, nil
}

func (c *Clients) release(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	e.used = c.opts.Now()
	if e.stale && e.users == 0 {
		e.conn.close()
	}
}

// sweep drops what is idle, and makes room for one more where the cache is full.
func (c *Clients) sweep(keep string, now time.Time) {
	oldest := ""
	for name, e := range c.entries {
		switch {
		case name == keep || e.users > 0:
		case now.Sub(e.used) > c.opts.Idle:
			c.drop(name)
		case oldest == "" || e.used.Before(c.entries[oldest].used):
			oldest = name
		}
	}
	if _, ok := c.entries[keep]; !ok && len(c.entries) >= c.opts.Max && oldest != "" {
		c.drop(oldest)
	}
}

func (c *Clients) drop(name string) {
	e := c.entries[name]
	if e == nil {
		return
	}
	delete(c.entries, name)
	e.stale = true
	if e.users == 0 {
		e.conn.close()
	}
}

// conn is the set of connections to one cluster. Either side is nil without addresses.
type conn struct {
	clusterID   string
	brokers     *endpoints
	controllers *endpoints
	now         func() time.Time
	dirs        logDirs
}

func dial(t Target, with DialFunc, now func() time.Time) (*conn, error) {
	if err := t.validate(); err != nil {
		return nil, err
	}
	brokers, err := newEndpoints("broker", t.Brokers, dialing(with, t.TLS))
	if err != nil {
		return nil, err
	}
	controllers, err := newEndpoints("controller", t.Controllers, dialing(with, t.TLS))
	if err != nil {
		brokers.close()
		return nil, err
	}
	return &conn{clusterID: t.ClusterID, brokers: brokers, controllers: controllers, now: now}, nil
}

func (c *conn) close() {
	c.brokers.close()
	c.controllers.close()
}

// Bounds of single attempts; a whole observation or change is bounded by Options.Timeout.
const (
	dialTimeout   = 2 * time.Second
	answerTimeout = 3 * time.Second
)

func newEndpoints(kind string, addrs []string, dialing []kgo.Opt) (*endpoints, error) {
	if len(addrs) == 0 {
		return nil, nil //nolint:nilnil // no addresses, no endpoints; every method takes nil
	}
	opts := append([]kgo.Opt{
		kgo.ClientID("castellan-operator"),
		kgo.SoftwareNameAndVersion("castellan", "1"),
		kgo.SeedBrokers(addrs...),
		kgo.RequestTimeoutOverhead(10 * time.Second),
		kgo.RequestRetries(2),
		kgo.DisableClientMetrics(),
		kgo.MetadataMaxAge(time.Hour),
	}, dialing...)
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("set up the client of %s listeners %v: %w", kind, addrs, err)
	}
	return &endpoints{kind: kind, addrs: addrs, client: client, seeds: client.SeedBrokers()}, nil
}

// Cluster is a handle on one cluster. Every call is bounded by Options.Timeout.
type Cluster struct {
	clients *Clients
	name    string
	target  Target
}

// use runs do with the cluster's connections under the call's bound.
func (c *Cluster) use(ctx context.Context, do func(context.Context, *conn) error) error {
	conn, release, err := c.clients.acquire(c.name, c.target)
	if err != nil {
		return err
	}
	defer release()
	bounded, cancel := context.WithTimeout(ctx, c.clients.opts.Timeout)
	defer cancel()
	return do(bounded, conn)
}
