package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/conf"
)

func newVolumeRename() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "rename OLD NEW",
		Short: "Rename a volume that is not a LUN",
		Long: "Rename a volume that is not a LUN of the configuration, nor part of a view. Its data, its\n" +
			"snapshots and the tokens created from it remain.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return administer(cmd, &o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				v, err := a.RenameVolume(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				return printVolume(cmd.OutOrStdout(), &o, v, "was "+args[0])
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func newVolumeRevert() *cobra.Command {
	var o adminOptions
	var r admin.RevertRequest
	cmd := &cobra.Command{
		Use:   "revert SNAPSHOT",
		Short: "Give a volume the content of a snapshot",
		Long: "Give a volume the content and the size of a snapshot: of the volume that it is a snapshot of, or of\n" +
			"--volume. What was written since is lost, unless another snapshot has it. The snapshot remains. A\n" +
			"volume that initiators are logged in to is refused without --force; they are notified, but what\n" +
			"they have cached, and file systems that are mounted, are wrong then.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Snapshot = args[0]
			return administer(cmd, &o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				v, err := a.RevertVolume(ctx, r)
				if errors.Is(err, admin.ErrLoggedIn) {
					return fmt.Errorf("%w; log out there first, or use --force", err)
				}
				if err != nil {
					return err
				}
				return printVolume(cmd.OutOrStdout(), &o, v, fmt.Sprintf("is as %s now, with %s", args[0], conf.FormatSize(v.SizeBytes)))
			})
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().StringVar(&r.Volume, "volume", "", "`NAME` of the volume (default: the one that SNAPSHOT is of)")
	cmd.Flags().BoolVar(&r.Force, "force", false, "even if initiators are logged in to it")
	return cmd
}
