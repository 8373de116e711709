package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// checkHost says what this machine lacks, all at once.
func checkHost() error {
	if os.Geteuid() != 0 {
		return errors.New("root is needed to make namespaces and control groups: run it with sudo")
	}
	var missing []string
	for _, program := range []string{"containerd", "ctr", "runc", "mkfs.xfs", "xfs_growfs", "losetup", "nft", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	for _, plugin := range []string{"ptp", "host-local", "portmap", "loopback"} {
		if _, err := os.Stat(filepath.Join("/usr/lib/cni", plugin)); err != nil {
			missing = append(missing, "the CNI plugin "+plugin)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("this machine lacks %s: run test/kube/install-tools", strings.Join(missing, ", "))
	}
	return nil
}

func absolute(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return abs
}
