package layout

import "strings"

// RefuseJVMOption says why an option must not reach the Java virtual machine, or is empty.
// Options that run commands, load code or read further options from files would let
// whoever may edit a KafkaCluster run programs on its hosts.
func RefuseJVMOption(option string) string {
	switch {
	case strings.ContainsAny(option, "\n\r\x00"):
		return "an option is one line"
	case strings.HasPrefix(option, "@"):
		return "it reads further options from a file"
	case !strings.HasPrefix(option, "-"):
		return "it is no option of the Java virtual machine"
	}
	for _, r := range refusedOptions() {
		if strings.HasPrefix(option, r.prefix) {
			return r.why
		}
	}
	return ""
}

type refusedOption struct{ prefix, why string }

func refusedOptions() []refusedOption {
	const runs, loads, heap, files = "it runs a command", "it loads code into the process", "the heap is set by jvm.heap", "it reads further options from a file"
	return []refusedOption{
		{"-XX:OnOutOfMemoryError", runs},
		{"-XX:OnError", runs},
		{"-javaagent", loads},
		{"-agentlib", loads},
		{"-agentpath", loads},
		{"-Xrun", loads},
		{"-Xbootclasspath", loads},
		{"--patch-module", loads},
		{"--module-path", loads},
		{"--upgrade-module-path", loads},
		{"-Djava.library.path", loads},
		{"-XX:SharedArchiveFile", loads},
		{"-p", loads},
		{"-cp", loads},
		{"-classpath", loads},
		{"--class-path", loads},
		{"-jar", loads},
		{"-Djava.class.path", loads},
		{"-Djava.system.class.loader", loads},
		{"-Djava.security.manager", loads},
		{"-XX:Flags", files},
		{"-XX:VMOptionsFile", files},
		{"-XX:CompileCommandFile", files},
		{"-Xmx", heap},
		{"-Xms", heap},
		{"-XX:MaxHeapSize", heap},
		{"-XX:InitialHeapSize", heap},
		{"-Dcom.sun.management.jmxremote", "it would open a management port without authentication"},
	}
}
