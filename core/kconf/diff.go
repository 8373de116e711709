package kconf

import (
	"maps"
	"slices"
)

// Diff sorts the keys in which two configurations of a node differ by what it takes to bring the change about: a restart, or a
// live change in Kafka. Keys that no role of the node reads are left out, so a broker-only change leaves controllers alone. A key
// that is absent on one side differs from one that spells out the default: what is written is what is compared. A key that moves
// between Kafka and the file (Key.Live) needs a restart, and so do keys the table does not know, on every node.
func (t Table) Diff(roles Roles, from, to map[string]string) (restart, live []string) {
	names := map[string]bool{}
	for name := range from {
		names[name] = true
	}
	for name := range to {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		k := t.keyOrUnknown(name)
		a, had := from[name]
		b, has := to[name]
		if !k.Roles.Overlap(roles) || had == has && Equal(k.Type, a, b) {
			continue
		}
		if (!had || k.Live(a)) && (!has || k.Live(b)) {
			live = append(live, name)
		} else {
			restart = append(restart, name)
		}
	}
	return restart, live
}

// Split divides a node's configuration into what stands in its file and what lives in Kafka, leaving out keys that no role of the
// node reads.
func (t Table) Split(roles Roles, config map[string]string) (file, live map[string]string) {
	file, live = map[string]string{}, map[string]string{}
	for name, value := range config {
		k := t.keyOrUnknown(name)
		switch {
		case !k.Roles.Overlap(roles):
		case k.Live(value):
			live[name] = value
		default:
			file[name] = value
		}
	}
	return file, live
}

// keyOrUnknown treats a key that no table explains as one that everything reads at start.
func (t Table) keyOrUnknown(name string) Key {
	if k, ok := t.Key(name); ok {
		return k
	}
	return Key{Name: name, Type: String, Roles: Both}
}
