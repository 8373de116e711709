// Package e2e tells stories on real Kafka: everything that a user does through bin/castellan, with the processes of one
// machine, and what must hold whatever is killed. A cluster costs half a minute, so one test tells all stories that can
// share one. Nothing here runs in parallel.
package e2e
