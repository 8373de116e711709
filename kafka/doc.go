// Package kafka speaks to Kafka: it dials clusters, observes them into [plan.Kafka] and makes the
// changes that a plan asks for. It also carries the small client behind `castellan topics`,
// `castellan produce` and `castellan consume`.
//
// It is the only importer of franz-go. It decides nothing: what is unsafe or unnecessary is the
// plan's to say. What it cannot read completely it calls unknown, never empty.
package kafka
