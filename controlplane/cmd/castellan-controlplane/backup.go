package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/component-base/version"

	"castellan.dev/castellan/controlplane/internal/datadir"
	"castellan.dev/castellan/controlplane/internal/snapshot"
)

func backupCommand() *cobra.Command {
	var data, out string
	cmd := &cobra.Command{
		Use:   "backup --data DIR --out FILE.tar.zst",
		Short: "Save the running control plane of a data directory into one file",
		Long: `Save the running control plane of a data directory into one file: all objects, certificates and keys, with checksums.
The file gives full control to whoever reads it; it is created with mode 0600 and never overwrites another.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if data == "" || out == "" {
				return errors.New("both --data DIR and --out FILE.tar.zst are needed")
			}
			dir, err := datadir.Existing(data)
			if err != nil {
				return err
			}
			m, err := snapshot.Backup(cmd.Context(), dir, out, version.Get().GitVersion, time.Now())
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), m)
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory of the running control plane (required)")
	cmd.Flags().StringVar(&out, "out", "", "new file, .tar.zst or .tar.gz (required)")
	return cmd
}

func restoreCommand() *cobra.Command {
	var data, from string
	cmd := &cobra.Command{
		Use:   "restore --from FILE.tar.zst --data NEWDIR",
		Short: "Make a new data directory from a backup",
		Long: `Make a new data directory from a backup. Nothing needs to run and nothing is overwritten: NEWDIR must not exist or be
empty. The restored control plane keeps certificates, keys and port, so clients of the lost one continue with it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if data == "" || from == "" {
				return errors.New("both --from FILE.tar.zst and --data NEWDIR are needed")
			}
			m, err := snapshot.Restore(from, data)
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), m)
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory to create (required)")
	cmd.Flags().StringVar(&from, "from", "", "file written by backup (required)")
	return cmd
}

func printJSON(to io.Writer, value any) error {
	if err := json.NewEncoder(to).Encode(value); err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	return nil
}
