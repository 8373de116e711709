package certificates

import "time"

// Role is what a CA is for.
type Role string

// The CAs of a cluster.
const (
	// Cluster signs what nodes and the operator show; nodes, operator and clients trust it.
	Cluster Role = "cluster"
	// Clients signs what clients show; nodes trust it on listeners with MutualTLS.
	Clients Role = "clients"
)

// Input is everything that a decision depends on.
type Input struct {
	Authorities []Authority
	Parties     []Party
	Now         time.Time
	// Since is when this pass began: what was seen earlier counts for nothing.
	Since time.Time
	// ClientGrace is how long clients may take to use what their Secret holds; nobody can look at them.
	ClientGrace time.Duration
	// LeafLifetime of a certificate that is issued now, unless its CA ends earlier.
	LeafLifetime time.Duration
}

// Authority is one of the cluster's CAs with those that follow or precede it, as its Secret has them.
type Authority struct {
	Role Role
	// Secret is the name of the Secret, for reasons.
	Secret string
	// Unknown says why the Secret could not be read or used; then nothing is decided for it.
	Unknown string
	// CAs of the Secret; none when it is missing.
	CAs []CA
	// Signs is the ID of the one that issues.
	Signs string
	// Found are CAs that parties were given and that the Secret does not know: it was deleted, or put back from a backup.
	Found []CA
	Wish  Wish
}

// CA is a certificate that signs others, with the chain above it.
type CA struct {
	// ID is the digest of its own certificate, Anchor that of the last one of its chain: what others trust.
	ID, Anchor string
	Subject    string
	NotBefore  time.Time
	// NotAfter is the earliest end in its chain.
	NotAfter time.Time
	// HasKey says that its key is at hand.
	HasKey bool
	// Own names the user's Secret that it was taken from; empty is built-in.
	Own string
	// Generation of the wish that it was made for.
	Generation int64
	// Trusted says that parties are to trust it; one that is not was retired and waits to be forgotten.
	Trusted bool
}

// Wish is what the spec asks for.
type Wish struct {
	// Own is the user's own CA; nil is a built-in one.
	Own *Given
	// Generation asks, when raised, for a new key of the built-in CA. Lowering it again while the replacement is under
	// way turns that round; afterwards it means nothing.
	Generation int64
}

// Given is the user's own CA as it was found.
type Given struct {
	Secret string
	CA     CA
	// Faults are why it cannot be used; CA is empty then.
	Faults []Fault
}

// Fault is what is wrong with a Secret that a user provides.
type Fault struct {
	// Secret and the key in it that is at fault.
	Secret, Key string
	// Reason is what is wrong, Remedy what to do.
	Reason, Remedy string
}

// String names the Secret, the key and the fault.
func (f Fault) String() string {
	return "Secret " + f.Secret + ", key " + f.Key + ": " + f.Reason + "; " + f.Remedy
}

// Kind is what sort of party somebody is.
type Kind string

// The parties of a cluster.
const (
	Node     Kind = "node"
	Operator Kind = "operator"
	// Client is whoever uses a Secret that is made for clients; nobody can look at it.
	Client Kind = "client"
)

// Party is somebody who presents a certificate, trusts some, or both.
type Party struct {
	// Name is what a person calls it: "node 3", "user orders".
	Name string
	Kind Kind
	// New says that it never had a certificate: it holds nothing that could be old. One whose Secret was deleted is not.
	New bool
	// Presents is the CA that its certificate must be of; empty when it presents none.
	Presents Role
	// Leaf is what it was given; nil is nothing. LeafAt is when.
	Leaf   *Leaf
	LeafAt time.Time
	// Trust is the bundle that it was given, for each role that it must trust.
	Trust map[Role]Trust
	// Seen is what its live endpoints were seen to do; of a client nothing.
	Seen Seen
}

// Trust is a bundle.
type Trust struct {
	// Anchors by digest; none when it was never given any.
	Anchors []string
	At      time.Time
}

// Leaf is a certificate that a party was given.
type Leaf struct {
	Digest string
	// Issuer is the ID of the CA; empty when it is not known.
	Issuer    string
	NotBefore time.Time
	NotAfter  time.Time
	// Names says that it names everything that it must.
	Names bool
}

// Seen is one look at a party.
type Seen struct {
	At time.Time
	// By is who looked.
	By string
	// Fault is why the look failed, wholly or in part.
	Fault string
	// Presents is what each endpoint presented.
	Presents []Presented
	// Trusts says for anchors whether certificates of theirs were accepted by every endpoint that asks for one; an
	// anchor that is missing was not tried, or the endpoints disagreed.
	Trusts map[Role]map[string]bool
}

// Presented is the certificate of one endpoint.
type Presented struct {
	Endpoint string
	Digest   string
	// Issuer is the ID of the CA; empty when none of those known signed it.
	Issuer   string
	NotAfter time.Time
}
