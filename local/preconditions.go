package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"castellan.dev/castellan/core/kconf"
)

// minJava is what Kafka 4 brokers need; 3.9 runs on it as well.
const minJava = 17

const (
	// outsideHeap is what a Kafka JVM uses besides its heap, roughly (measured: 350 MiB in all with a heap of 512 MiB that is hardly used).
	outsideHeap = 200 << 20
	// ownMemory is what control plane, operator and agent use.
	ownMemory = 600 << 20
)

// checkJava finds the Java that nodes will use and says what to do when there is none.
func checkJava(ctx context.Context) error {
	java := "java"
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java = filepath.Join(home, "bin", "java")
	}
	const remedy = "install a JDK or JRE %d or newer (Debian and Ubuntu: apt install openjdk-17-jre-headless), or set JAVA_HOME to one"
	out, err := exec.CommandContext(ctx, java, "-version").CombinedOutput() //nolint:gosec // the user's own JAVA_HOME
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("no Java: %s was not found; "+remedy, java, minJava)
	}
	if err != nil {
		return fmt.Errorf("no Java: %s -version failed (%w): %s; "+remedy, java, err, oneLine(string(out)), minJava)
	}
	major, ok := javaMajor(string(out))
	if !ok {
		return fmt.Errorf("%s -version does not name its version: %s; "+remedy, java, oneLine(string(out)), minJava)
	}
	if major < minJava {
		return fmt.Errorf("%s is Java %d, too old for Kafka; "+remedy, java, major, minJava)
	}
	return nil
}

// javaMajor reads `java -version`: version "17.0.9", and "1.8.0_392" of old.
func javaMajor(text string) (int, bool) {
	m := regexp.MustCompile(`version "(\d+)(?:\.(\d+))?`).FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	major, err := strconv.Atoi(m[1])
	if err == nil && major == 1 && m[2] != "" {
		major, err = strconv.Atoi(m[2])
	}
	return major, err == nil
}

// checkMemory compares what nodes with these heaps need with what this machine has. It
// fails only when they can never fit, and else returns a warning.
func checkMemory(meminfo string, heaps []int64) (warning string, err error) {
	need := int64(ownMemory)
	for _, h := range heaps {
		need += h + outsideHeap
	}
	total, available := memory(meminfo)
	const mib = 1 << 20
	if total > 0 && need > total {
		return "", fmt.Errorf("%d nodes need about %d MiB of memory and this machine has %d MiB: take fewer --nodes or a smaller jvm.heap",
			len(heaps), need/mib, total/mib)
	}
	if available > 0 && need > available {
		return fmt.Sprintf("%d nodes need about %d MiB of memory and %d MiB are free: the machine may swap or end processes", len(heaps), need/mib, available/mib), nil
	}
	return "", nil
}

// memory reads total and available bytes from /proc/meminfo; 0 when it does not say.
func memory(meminfo string) (total, available int64) {
	lines := bufio.NewScanner(strings.NewReader(meminfo))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "MemTotal:":
			total = kib << 10
		case "MemAvailable:":
			available = kib << 10
		}
	}
	return total, available
}

// checkMaven is asked only when the package must be assembled.
func checkMaven() error {
	if _, err := exec.LookPath("mvn"); err != nil {
		return errors.New("no Maven: mvn was not found, and Kafka is not in the package store yet; install it (Debian and Ubuntu: apt install maven), " +
			"or put Apache's kafka_2.13-VERSION.tgz and its .sha512 there as a Package source (docs: Package)")
	}
	return nil
}

// knows says whether Kafka of this version has a configuration key.
func knows(version, key string) bool {
	table, ok := kconf.For(version)
	if !ok {
		return false
	}
	_, ok = table.Key(key)
	return ok
}
