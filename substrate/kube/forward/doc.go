// Package forward opens connections to pods through the API server, as kubectl port-forward
// does but with no local port: a [Dialer] takes the names that Kafka advertises inside a
// Kubernetes cluster and needs the right to port-forward, not a route to the pod network.
//
// It decides nothing about Kafka, and it resolves names by the API, never by DNS.
package forward
