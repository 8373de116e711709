// Package agent runs on a host what the HostProcesses of its own namespace ask for: it
// unpacks archives, writes files, starts, watches, restarts and stops processes, and says
// what it found. It restarts a process only when its Program changed or when it ended by
// itself.
//
// It decides nothing, knows nothing of Kafka, reads no other namespace, and writes nothing
// outside its own folder and its data roots. What it was last asked for lies on its disk:
// it goes on without the API server, and neither its own end nor its restart touches a
// running process.
package agent
