package layout

// SecurityFile holds security properties of a pod's virtual machine.
const SecurityFile = "kafka/java.security"

// PodLogging is Logging for a pod: the server's log also goes to standard output, which is
// what `kubectl logs` shows.
func PodLogging(version string) LoggingFile { return logging(version, true) }

// PodSecurity is the content of SecurityFile. A pod has another address after each restart,
// and a name that did not exist a moment ago may exist now. The system properties
// sun.net.inetaddr.* do not do: Java's own java.security sets the negative time, which
// stands over them (measured on Java 17: 10 seconds whatever they say).
func PodSecurity() string {
	return "networkaddress.cache.ttl=5\nnetworkaddress.cache.negative.ttl=1\n"
}

// PodJVMOptions are JVMOptions for a pod. What the virtual machine itself has to say goes to
// standard error, so that it is not lost among the log on standard output.
func PodJVMOptions(s Static) ([]string, error) {
	options, err := JVMOptions(s)
	if err != nil {
		return nil, err
	}
	return append([]string{"-Djava.security.properties=" + SecurityFile, "-XX:+DisplayVMOutputToStderr"}, options...), nil
}
