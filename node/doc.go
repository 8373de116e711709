// Package node is the supervisor behind `castellan node`: it runs one Kafka process. It
// renders Kafka's files, asks what to do with empty disks and formats them as answered,
// starts the Java virtual machine, says how the node is, and hands on how it ended.
//
// It decides nothing about a cluster: it formats nothing unasked, never restarts what it
// runs (who started it does), and speaks to no API server, so a node comes back while
// every other part of Castellan is down.
package node
