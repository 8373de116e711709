// Package cli is the command line of Castellan for everything that goes through an API: the
// objects of a Kubernetes API server and the records of a Kafka cluster. It reads and
// writes what a user asks for and prints what came back, in the server's own words.
//
// It decides nothing: specs are judged by the API server, plans are made by the function
// it is given. It keeps no state and never reads a password from its arguments.
package cli
