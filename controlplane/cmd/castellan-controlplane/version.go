package main

import (
	"encoding/json"
	"fmt"
	"runtime"

	etcdversion "go.etcd.io/etcd/api/v3/version"

	"github.com/spf13/cobra"
	"k8s.io/component-base/version"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of Kubernetes, etcd and Go inside as JSON",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := map[string]string{
				"kubernetes": version.Get().GitVersion,
				"etcd":       "v" + etcdversion.Version,
				"go":         runtime.Version(),
				"platform":   runtime.GOOS + "/" + runtime.GOARCH,
			}
			if err := json.NewEncoder(cmd.OutOrStdout()).Encode(out); err != nil {
				return fmt.Errorf("print versions: %w", err)
			}
			return nil
		},
	}
}
