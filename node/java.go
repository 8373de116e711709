package node

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"castellan.dev/castellan/core/layout"
)

const javaVersionTimeout = 20 * time.Second

// findJava returns the Java to run a Kafka version with: $JAVA_HOME's, else the PATH's.
func findJava(ctx context.Context, env []string, kafkaVersion string) (string, error) {
	wanted := layout.MinJava(kafkaVersion)
	java, where, err := lookJava(env)
	if err != nil {
		return "", fail(ExitJava, ReasonJavaMissing,
			"Kafka %s needs Java %d or newer and none was found (%s): install a JRE (Debian: openjdk-17-jre-headless) or set JAVA_HOME for the agent", kafkaVersion, wanted, where)
	}
	ctx, cancel := context.WithTimeout(ctx, javaVersionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, java, "-version") //nolint:gosec // the Java that the host names
	cmd.Env = javaEnv(env)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fail(ExitJava, ReasonJavaMissing, "%s (%s) does not run: %v: %s; install a working JRE %d or newer", java, where, err, firstLine(string(out)), wanted)
	}
	found, ok := javaMajor(string(out))
	if !ok {
		return "", fail(ExitJava, ReasonJavaMissing, "%s (%s) does not say its version (%q): install a JRE %d or newer", java, where, firstLine(string(out)), wanted)
	}
	if found < wanted {
		return "", fail(ExitJava, ReasonJavaTooOld,
			"Kafka %s needs Java %d or newer, %s (%s) is Java %d: install a newer JRE (Debian: openjdk-17-jre-headless) or point JAVA_HOME at one", kafkaVersion, wanted, java, where, found)
	}
	return java, nil
}

// lookJava says where it looked, also when it found nothing.
func lookJava(env []string) (java, where string, err error) {
	if home := lookupEnv(env, "JAVA_HOME"); home != "" {
		java = filepath.Join(home, "bin", "java")
		where = "from JAVA_HOME"
		if _, err := exec.LookPath(java); err != nil {
			return "", "JAVA_HOME is " + home + ", which has no bin/java", err
		}
		return java, where, nil
	}
	path := lookupEnv(env, "PATH")
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		if java, err := exec.LookPath(filepath.Join(dir, "java")); err == nil {
			return java, "from PATH", nil
		}
	}
	return "", "JAVA_HOME is not set, PATH is " + path, exec.ErrNotFound
}

// javaMajor reads `java -version`: version "17.0.15", and "1.8.0_392" for Java 8.
func javaMajor(output string) (int, bool) {
	match := regexp.MustCompile(`version "(?:1\.)?(\d+)`).FindStringSubmatch(output)
	if match == nil {
		return 0, false
	}
	n, err := strconv.Atoi(match[1])
	return n, err == nil
}

// javaEnv leaves out the variables from which a virtual machine takes further options.
func javaEnv(env []string) []string {
	kept := make([]string, 0, len(env))
	for _, entry := range env {
		switch name, _, _ := strings.Cut(entry, "="); name {
		case "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH":
		default:
			kept = append(kept, entry)
		}
	}
	return kept
}

func lookupEnv(env []string, name string) string {
	value := ""
	for _, entry := range env {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			value = v
		}
	}
	return value
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// classPath of everything that reads the node's properties.
func (s *supervisor) classPath() (string, error) {
	libs := filepath.Join(s.archive, "libs")
	jars, err := filepath.Glob(filepath.Join(libs, "kafka-clients-*.jar"))
	if err != nil || len(jars) == 0 {
		return "", fail(ExitConfig, ReasonPackageBroken, "the package %q holds no Kafka (no libs/kafka-clients-*.jar): check the Package of version %s", s.archive, s.static.Process.Version)
	}
	for _, part := range []string{libs, s.dir} {
		if strings.ContainsAny(part, ":*") {
			return "", fail(ExitConfig, ReasonBadConfig, "the path %q holds a colon or an asterisk, which Java's class path cannot: use another folder", part)
		}
	}
	return fmt.Sprintf("%s/*:%s", libs, s.path(engineJar)), nil
}
