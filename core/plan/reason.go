package plan

import (
	"fmt"
	"slices"
	"strings"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

// changeReason says what differs between two processes, in stable words.
func changeReason(old, now api.ProcessSpec) string {
	var why []string
	add := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	if program := changedProgram(old, now); program != "" {
		add("%s", program)
	}
	for _, key := range changedKeys(old.Config, now.Config) {
		add("config %s", key)
	}
	if old.HeapBytes != now.HeapBytes {
		add("heap")
	}
	if !slices.Equal(old.JVMOptions, now.JVMOptions) {
		add("JVM options")
	}
	why = append(why, changedListeners(old.Listeners, now.Listeners)...)
	if !slices.Equal(old.SuperUsers, now.SuperUsers) {
		add("super users")
	}
	if !slices.Equal(old.Volumes, now.Volumes) {
		add("volumes")
	}
	if old.Layout != now.Layout && layout.Of(old) == layout.Of(now) { // else it follows from the above
		add("layout %d to %d", old.Layout, now.Layout)
	}
	if old.Supervisor != now.Supervisor {
		add("supervisor %s to %s", old.Supervisor, now.Supervisor)
	}
	if !samePod(old.Pod, now.Pod) {
		add("placement")
	}
	switch {
	case len(why) > 0:
	case old.Restart != now.Restart:
		add("restart, as %s asks", now.Restart)
	default:
		add("resources")
	}
	return strings.Join(why, ", ")
}

func changedProgram(old, now api.ProcessSpec) string {
	switch {
	case old.Version != now.Version:
		return fmt.Sprintf("version %s to %s", old.Version, now.Version)
	case old.Package != now.Package:
		return "other package of the same version"
	case old.Image != now.Image:
		return fmt.Sprintf("image %s to %s", old.Image, now.Image)
	default:
		return ""
	}
}

// changedListeners names those that are new, gone or other than before, in order.
func changedListeners(old, now []api.NodeListener) []string {
	same := func(a, b api.NodeListener) bool {
		return layout.ProcessHash(api.ProcessSpec{Listeners: []api.NodeListener{a}}) == layout.ProcessHash(api.ProcessSpec{Listeners: []api.NodeListener{b}})
	}
	var names []string
	for _, pair := range [][2][]api.NodeListener{{old, now}, {now, old}} {
		for _, l := range pair[0] {
			if !slices.ContainsFunc(pair[1], func(o api.NodeListener) bool { return same(o, l) }) {
				names = append(names, "listener "+l.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func changedKeys(old, now map[string]string) []string {
	var keys []string
	for k, v := range now {
		if o, ok := old[k]; !ok || o != v {
			keys = append(keys, k)
		}
	}
	for k := range old {
		if _, ok := now[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}
