package cli

import (
	"encoding/json"
	"os"
	"path/filepath"

	"castellan.dev/castellan/core/layout"
)

// Where an agent keeps a process: its output and its working directory.
const (
	processOutput = "output.log"
	processRun    = "run"
	kafkaLog      = "server.log"
)

// readNode reads which node a process's folder is for; false when it is something else.
func readNode(folder string) (nodeOnDisk, bool) {
	data, err := os.ReadFile(filepath.Join(folder, processRun, layout.StaticFile)) //nolint:gosec // below the user's own --dir
	if err != nil {
		return nodeOnDisk{}, false
	}
	var n nodeOnDisk
	return n, json.Unmarshal(data, &n) == nil && n.Cluster != ""
}

func logFile(folder string, supervisor bool) string {
	if supervisor {
		return filepath.Join(folder, processOutput)
	}
	return filepath.Join(folder, processRun, layout.LogDir, kafkaLog)
}
