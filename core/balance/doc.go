// Package balance decides where replicas and leaders should be, which reassignment to start
// next, and how to take one back. It computes from facts of the admin protocol alone; it
// touches nothing, remembers nothing, and gives the same answer to the same facts.
//
// Plan makes a Proposal; Next says which of its moves may start now; Revert takes back what
// is in flight. docs/design/0004-balance.md has the model.
package balance
