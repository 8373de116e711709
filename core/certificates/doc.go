// Package certificates decides the next steps of a cluster's certificates: when a leaf is issued anew, and how a CA is
// replaced while everybody goes on trusting everybody.
//
// A CA is replaced as trust both → sign with the new one → reissue → trust the new one only. Where that stands is what the
// CA's Secret says (which CAs are in it, which one signs, which ones are still trusted) and what every party's Secret
// holds; nothing is remembered elsewhere, so whoever comes next goes on at the same place. What would make one party
// refuse another needs that every live endpoint was seen, in the pass that decides, to be ready for it. Unknown is not
// done: who does not answer blocks that step, and the plan says who and why.
//
// It never sees a key, never dials, and never believes what a status says.
package certificates
