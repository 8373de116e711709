package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
	"castellan.dev/castellan/core/layout"
)

const (
	metaProperties = "meta.properties"
	// formatting is the suffix of a folder that is being formatted. Kafka never runs on it,
	// so what a killed format leaves there is worth nothing.
	formatting = ".formatting"
)

// inspect says what is on each volume. It writes nothing.
func inspect(volumes []layout.Volume) []api.VolumeStatus {
	found := make([]api.VolumeStatus, 0, len(volumes))
	for _, v := range volumes {
		found = append(found, inspectVolume(v))
	}
	return found
}

func inspectVolume(v layout.Volume) api.VolumeStatus {
	status := api.VolumeStatus{Name: v.Name}
	names, err := entries(v.Path)
	if err != nil {
		status.State, status.Message = api.VolumeUnreadable, fmt.Sprintf("%v: check the disk and that %s is mounted and belongs to the user of the process", err, v.Path)
		return status
	}
	if err := unix.Access(v.Path, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
		status.State, status.Message = api.VolumeUnreadable, fmt.Sprintf("%s cannot be written (%v): check its mount and its owner", v.Path, err)
		return status
	}
	data := layout.DataDir(v)
	inside, err := entries(data)
	if err != nil {
		status.State, status.Message = api.VolumeUnreadable, fmt.Sprintf("%v: check the disk and the folder's owner", err)
		return status
	}
	if slices.Contains(inside, metaProperties) {
		return readMeta(status, filepath.Join(data, metaProperties))
	}
	if stray := slices.DeleteFunc(inside, worthless); len(stray) > 0 {
		status.State, status.Message = api.VolumeForeign, fmt.Sprintf("%s holds files (%s) but no %s: bring that file back, or move the files away", data, some(stray), metaProperties)
		return status
	}
	if stray := slices.DeleteFunc(names, expectedBeside); len(stray) > 0 {
		status.State, status.Message = api.VolumeForeign, fmt.Sprintf("%s holds files that are not Castellan's (%s): move them away, or give the volume another path", v.Path, some(stray))
		return status
	}
	status.State = api.VolumeEmpty
	return status
}

// entries of a folder; a missing one has none.
func entries(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(list))
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names, nil
}

// worthless files are all that is left when somebody empties a log directory with `rm *`.
func worthless(name string) bool { return name == ".lock" || name == ".kafka_cleanshutdown" }

// expectedBeside a log directory in an empty volume.
func expectedBeside(name string) bool {
	switch name {
	case "lost+found", layout.LogFolder, layout.LogFolder + formatting, placementFile, placementFile + ".new":
		return true
	default:
		return false
	}
}

func some(names []string) string {
	const few = 3
	if len(names) <= few {
		return fmt.Sprintf("%q", names)
	}
	return fmt.Sprintf("%q and %d more", names[:few], len(names)-few)
}

func readMeta(status api.VolumeStatus, file string) api.VolumeStatus {
	content, err := os.ReadFile(file) //nolint:gosec // a file of the node's own disk
	if err != nil {
		status.State, status.Message = api.VolumeUnreadable, fmt.Sprintf("%v: check the disk and the file's owner", err)
		return status
	}
	meta, err := kconf.Parse(content)
	id, notID := strconv.ParseInt(meta["node.id"], 10, 32)
	if err != nil || notID != nil || meta["version"] != "1" || meta["cluster.id"] == "" {
		status.State, status.Message = api.VolumeForeign, fmt.Sprintf("%s is not that of a KRaft node (it has version %q, node.id %q): restore it from another volume of the node, or move the folder away", file, meta["version"], meta["node.id"])
		return status
	}
	nodeID := int32(id)
	status.State, status.ClusterID, status.NodeID, status.DirectoryID = api.VolumeFormatted, meta["cluster.id"], &nodeID, meta["directory.id"]
	return status
}

// checkVolumes refuses disks that are not this node's or cannot be used; clusterID may be
// empty while nobody knows it. A broken disk beside the first one does not keep a node
// down: Kafka runs on the others and says so.
func checkVolumes(s layout.Static, found []api.VolumeStatus, clusterID string) error {
	for i, v := range found {
		path := s.Volumes[i].Path
		switch v.State {
		case api.VolumeEmpty:
		case api.VolumeForeign:
			return fail(ExitData, ReasonVolumeForeign, "volume %s: %s; nothing was touched", v.Name, v.Message)
		case api.VolumeUnreadable:
			if i == 0 {
				return fail(ExitStorage, ReasonVolumeUnreadable, "volume %s, which holds the metadata log: %s", v.Name, v.Message)
			}
		case api.VolumeFormatted:
			if clusterID == "" {
				clusterID = v.ClusterID
			}
			if v.ClusterID != clusterID {
				return fail(ExitData, ReasonClusterIDMismatch,
					"volume %s (%s) belongs to Kafka cluster %s, this node to %s: move the folder away or give the volume another path; nothing was touched", v.Name, path, v.ClusterID, clusterID)
			}
			if *v.NodeID != s.NodeID {
				return fail(ExitData, ReasonNodeIDMismatch,
					"volume %s (%s) was formatted for node %d, this is node %d: give each node its own path; nothing was touched", v.Name, path, *v.NodeID, s.NodeID)
			}
		}
	}
	return nil
}
