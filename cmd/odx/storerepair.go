package main

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/backstore"
	"odx/conf"
)

func newStoreRepair() *cobra.Command {
	var o storeOptions
	var how backstore.RepairOptions
	inPlace := false
	cmd := &cobra.Command{
		Use:   "repair {--to DIR | --in-place}",
		Short: "Rebuild a damaged store from what can be proved right",
		Long: "Rebuild a store whose damage is in both copies of its metadata. The store may not be in use.\n" +
			"Maps, counts and tables are rebuilt from what can be read. What is lost is printed by volume,\n" +
			"file and range, and is a read error until it is rewritten. Damaged metadata loses only its own\n" +
			"data. Changes after a damaged place of the journal are not applied; those that can be read are\n" +
			"printed by record, volume, file and range.\n\n" +
			"--to creates the repaired store in DIR, which needs space for all data, and does not change the\n" +
			"damaged one. --in-place replaces the metadata of the store and keeps the old one in its\n" +
			"directory before-repair; unreferenced segments are deleted when it is served next. Make a copy\n" +
			"first if possible.\n\n" +
			"All data is read and verified, which takes as long as odx store scrub; --skip-data skips that.\n\n" +
			"The exit status is 0 if a store was created, whatever was lost.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd, func(ctx context.Context, cfg *conf.Config, log *logrus.Entry) error {
				bar := newBar(cmd.ErrOrStderr(), "copy segments")
				how.Progress = bar.show
				r, err := admin.Repair(ctx, cfg, log, how)
				bar.end()
				if err != nil {
					return err
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), api.RepairedV1(r))
				}
				return printRepaired(cmd.OutOrStdout(), cmp.Or(how.To, cfg.DataDir), r)
			})
		},
	}
	o.addFlags(cmd)
	cmd.Flags().StringVar(&how.To, "to", "", "create the repaired store in `DIR`")
	cmd.Flags().BoolVar(&inPlace, "in-place", false, "repair the store where it is")
	cmd.Flags().BoolVar(&how.SkipData, "skip-data", false, "do not read the data: its damage is found when it is read")
	cmd.MarkFlagsOneRequired("to", "in-place")
	cmd.MarkFlagsMutuallyExclusive("to", "in-place")
	return cmd
}

func printRepaired(w io.Writer, dir string, r backstore.Repaired) error {
	for _, l := range r.Lost {
		where := ""
		if l.Length > 0 {
			where = fmt.Sprintf(", %d bytes at %d", l.Length, l.Offset)
		}
		if _, err := fmt.Fprintf(w, "lost: %s%s: %s\n", l.What, where, l.Reason); err != nil {
			return err
		}
	}
	if r.More > 0 {
		if _, err := fmt.Fprintf(w, "lost: %d more\n", r.More); err != nil {
			return err
		}
	}
	for _, u := range r.Unused {
		if _, err := fmt.Fprintf(w, "not used: %v\n", u); err != nil {
			return err
		}
	}
	if r.MoreUnused > 0 {
		if _, err := fmt.Fprintf(w, "not used: %d more changes\n", r.MoreUnused); err != nil {
			return err
		}
	}
	lost := "all of their data was read and verified"
	switch {
	case r.LostBytes > 0:
		lost = bytesText(r.LostBytes) + " of them read as errors"
	case !r.DataRead:
		lost = "no lost range was found; the data was not read, odx store scrub reads it"
	}
	_, err := fmt.Fprintf(w, "the store in %s has %d volumes and files, %d snapshots, %d records: %s\n", dir, r.Volumes, r.Snapshots, r.Records, lost)
	return err
}
