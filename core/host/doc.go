// Package host is the second realizer of a KafkaNode: it says which HostProcess and which
// Secret a node needs on its Host, what a HostProcess tells about its node, which ports of
// a host a node gets and where its data lies. It decides nothing about whether or when a
// node may change (the plan did, by writing the KafkaNode), and it touches nothing.
package host
