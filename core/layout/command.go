package layout

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Bounds of Kafka's logs under layout 1: all files of a node stay below 340 MiB.
const (
	logFileSize  = "16MB"
	logFileCount = 7
)

// Names of log files in LogDir.
const (
	ServerLog = "server.log"
	// ConsoleLog is what the virtual machine prints, see package node.
	ConsoleLog = "console.log"
)

// LoggingFile is Kafka's logging configuration.
type LoggingFile struct {
	// Name of the file, relative to the process's folder.
	Name    string
	Content string
	// Option makes the virtual machine use it.
	Option string
}

// Logging is the logging configuration of a Kafka version: log4j 2 from 4.0 on, before it
// the kept-alive log4j 1. Files rotate by size. All paths are relative to the process's
// folder: its own path may hold what would have to be escaped in as many ways.
func Logging(version string) LoggingFile { return logging(version, false) }

func logging(version string, console bool) LoggingFile {
	if Major(version) < 4 {
		const name = "kafka/log4j.properties"
		return LoggingFile{Name: name, Content: log4j1(console), Option: "-Dlog4j.configuration=file:" + name}
	}
	const name = "kafka/log4j2.xml"
	return LoggingFile{Name: name, Content: log4j2(console), Option: "-Dlog4j2.configurationFile=" + name}
}

const logPattern = "[%d{ISO8601}] %p %m (%c{1})%n"

func log4j1(console bool) string {
	var b strings.Builder
	b.WriteString("log4j.rootLogger=INFO, server")
	if console {
		b.WriteString(", console\nlog4j.appender.console=org.apache.log4j.ConsoleAppender\nlog4j.appender.console.Target=System.out\n")
		fmt.Fprintf(&b, "log4j.appender.console.layout=org.apache.log4j.PatternLayout\nlog4j.appender.console.layout.ConversionPattern=%s", logPattern)
	}
	b.WriteString("\n")
	for _, a := range [][2]string{{"server", ServerLog}, {"state", "state-change.log"}} {
		prefix := "log4j.appender." + a[0]
		fmt.Fprintf(&b, "%s=org.apache.log4j.RollingFileAppender\n", prefix)
		fmt.Fprintf(&b, "%s.File=%s\n", prefix, path.Join(LogDir, a[1]))
		fmt.Fprintf(&b, "%s.MaxFileSize=%s\n", prefix, logFileSize)
		fmt.Fprintf(&b, "%s.MaxBackupIndex=%d\n", prefix, logFileCount)
		fmt.Fprintf(&b, "%s.layout=org.apache.log4j.PatternLayout\n", prefix)
		fmt.Fprintf(&b, "%s.layout.ConversionPattern=%s\n", prefix, logPattern)
	}
	b.WriteString("log4j.logger.state.change.logger=INFO, state\nlog4j.additivity.state.change.logger=false\n")
	return b.String()
}

func log4j2(console bool) string {
	var b strings.Builder
	b.WriteString("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Configuration status=\"ERROR\" shutdownHook=\"disable\">\n  <Appenders>\n")
	for _, a := range [][2]string{{"server", ServerLog}, {"state", "state-change.log"}} {
		file := path.Join(LogDir, a[1])
		fmt.Fprintf(&b, "    <RollingFile name=%q fileName=\"%s\" filePattern=\"%s.%%i\">\n", a[0], file, file)
		fmt.Fprintf(&b, "      <PatternLayout pattern=\"%s\"/>\n", logPattern)
		fmt.Fprintf(&b, "      <SizeBasedTriggeringPolicy size=%q/>\n", logFileSize)
		// With "min" the newest old file is .1, as before 4.0.
		fmt.Fprintf(&b, "      <DefaultRolloverStrategy max=\"%d\" fileIndex=\"min\"/>\n    </RollingFile>\n", logFileCount)
	}
	root := "<AppenderRef ref=\"server\"/>"
	if console {
		fmt.Fprintf(&b, "    <Console name=\"console\" target=\"SYSTEM_OUT\"><PatternLayout pattern=\"%s\"/></Console>\n", logPattern)
		root += "<AppenderRef ref=\"console\"/>"
	}
	fmt.Fprintf(&b, "  </Appenders>\n  <Loggers>\n    <Root level=\"INFO\">%s</Root>\n", root)
	b.WriteString("    <Logger name=\"state.change.logger\" level=\"INFO\" additivity=\"false\"><AppenderRef ref=\"state\"/></Logger>\n")
	b.WriteString("  </Loggers>\n</Configuration>\n")
	return b.String()
}

// Major is the first number of a version, 0 if there is none.
func Major(version string) int {
	first, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(first)
	if err != nil {
		return 0
	}
	return n
}

// MinJava is the oldest Java that a Kafka version runs on.
func MinJava(version string) int {
	if Major(version) < 4 {
		return 11
	}
	return 17
}

// JVMOptions are the options of the node's virtual machine before the class path: the heap,
// Kafka's own defaults where the process does not choose otherwise, and the process's
// options. An option that RefuseJVMOption refuses is an error.
func JVMOptions(s Static) ([]string, error) {
	for _, option := range s.Process.JVMOptions {
		if why := RefuseJVMOption(option); why != "" {
			return nil, fmt.Errorf("option %q must not reach the Java virtual machine: %s; remove it from jvm.options", option, why)
		}
	}
	heap := s.Process.HeapBytes
	if heap <= 0 {
		return nil, fmt.Errorf("node %d has no heap: set jvm.heap of its pool", s.NodeID)
	}
	options := []string{
		"-server",
		"-Xms" + strconv.FormatInt(heap, 10),
		"-Xmx" + strconv.FormatInt(heap, 10),
	}
	if !slices.ContainsFunc(s.Process.JVMOptions, choosesCollector) {
		options = append(options,
			"-XX:+UseG1GC",
			"-XX:MaxGCPauseMillis=20",
			"-XX:InitiatingHeapOccupancyPercent=35",
			"-XX:+ExplicitGCInvokesConcurrent",
		)
	}
	options = append(options,
		"-XX:MaxInlineLevel=15",
		"-Djava.awt.headless=true",
		"-Xlog:gc*:file="+path.Join(LogDir, "gc.log")+":time,tags:filecount=4,filesize=16M",
		"-XX:ErrorFile="+path.Join(LogDir, "hs_err.log"),
		"-Dkafka.logs.dir="+LogDir,
	)
	options = append(options, s.Process.JVMOptions...)
	options = append(options, oauthOptions(s)...)
	// Last, so that nothing before it keeps a process alive that has lost its memory.
	return append(options, "-XX:+ExitOnOutOfMemoryError"), nil
}

func choosesCollector(option string) bool {
	return strings.HasPrefix(option, "-XX:+Use") && strings.HasSuffix(option, "GC")
}
