// Package local runs a whole Castellan on one machine below one folder: a server process
// that keeps control plane, operator and agent running, the steps of `castellan up` and
// `castellan down`, and what `castellan status` says.
//
// It only ever writes objects through the API, as any user could, and it signals no
// process but the server and its three children, each verified by pid, start time and
// boot. It never touches a Kafka process or Kafka's data: nodes belong to the agent, and
// they run on while everything here is dead.
package local
