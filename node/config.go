package node

import (
	"log/slog"
	"os"
	"time"
)

// Config of a supervisor.
type Config struct {
	// Dir is the process's folder, see package layout for what is in it.
	Dir string
	// Archive is the unpacked package of Kafka ($ARCHIVE): the folder that has libs.
	Archive string
	// StopGrace between SIGTERM and SIGKILL; 0 means 120 seconds.
	StopGrace time.Duration
	// Pod is set when the node is a pod, and nil on a host.
	Pod *Pod
	// Env is the environment; nil means that of this process.
	Env []string
	Log *slog.Logger
	// FreeBytes of a path's file system; nil asks the kernel.
	FreeBytes func(path string) (uint64, error)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

const defaultStopGrace = 120 * time.Second

func (c Config) now() time.Time { return c.Now() }

func (c Config) withDefaults() Config {
	if c.StopGrace <= 0 {
		c.StopGrace = defaultStopGrace
	}
	if c.Env == nil {
		c.Env = os.Environ()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.FreeBytes == nil {
		c.FreeBytes = freeBytes
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}
