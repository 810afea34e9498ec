package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/backstore"
	"odx/conf"
)

type scrubOptions struct {
	adminOptions
	mibPerSecond int64
}

func newStoreScrub() *cobra.Command {
	var o scrubOptions
	cmd := &cobra.Command{
		Use:   "scrub",
		Short: "Read and verify all data and metadata of a store",
		Long: "Read both copies of the metadata, and every extent of a store, and compare them with their\n" +
			"checksums and fingerprints. What is damaged in one copy is restored from the other. The store\n" +
			"can be in use; --mib-per-s leaves it more of the disk. Ctrl-C stops the scrub and loses\n" +
			"nothing. On a terminal it shows its progress.\n\n" +
			"Every damaged extent is printed with the volumes and snapshots that contain it, and whatever\n" +
			"is wrong with files of the store and was not mended. The exit status is 3 if there is either.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.mibPerSecond < 0 {
				return usagef("--mib-per-s %d is negative; use 0 for no limit", o.mibPerSecond)
			}
			return administer(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				return scrub(ctx, a, &o, cmd.OutOrStdout(), cmd.ErrOrStderr())
			})
		},
	}
	addAdminFlags(cmd, &o.adminOptions)
	cmd.Flags().Int64Var(&o.mibPerSecond, "mib-per-s", 0, "read at most `N` MiB per second; 0 is no limit")
	return cmd
}

func scrub(ctx context.Context, a admin.Administrator, o *scrubOptions, stdout, stderr io.Writer) error {
	start := time.Now()
	var last backstore.ScrubProgress
	bar := newBar(stderr, "scrub")
	r, err := a.Scrub(ctx, admin.ScrubRequest{BytesPerSecond: o.mibPerSecond << 20}, func(p backstore.ScrubProgress) {
		last = p
		// Concurrent writes can add to what there was to read.
		bar.show(p.ReadBytes, p.TotalBytes)
	})
	bar.end()
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("stopped after %s of %s; %s so far", bytesText(last.ReadBytes), bytesText(last.TotalBytes), damagedText(last.Damaged))
		}
		return err
	}
	if o.json {
		err = printJSON(stdout, api.ScrubResultV1(r))
	} else {
		err = printScrub(stdout, r, time.Since(start))
	}
	if err != nil {
		return err
	}
	switch {
	case r.Damaged > 0:
		return damagef("%s; rewrite the ranges from a copy, or delete the volumes", foundText(r))
	case len(r.Metadata) > 0:
		return damagef("%s; see the lines above, and odx store repair", foundText(r))
	}
	return nil
}

// foundText says what of a store is damaged.
func foundText(r backstore.ScrubResult) string {
	switch {
	case len(r.Metadata) == 0:
		return damagedText(r.Damaged)
	case r.Damaged == 0:
		return "files of the store are damaged, and all data is right"
	}
	return damagedText(r.Damaged) + ", and files of the store are"
}

func damagedText(extents int) string {
	switch extents {
	case 0:
		return "nothing is damaged"
	case 1:
		return "1 extent is damaged"
	default:
		return fmt.Sprintf("%d extents are damaged", extents)
	}
}

func printScrub(w io.Writer, r backstore.ScrubResult, took time.Duration) error {
	rate := float64(r.ReadBytes) / max(took.Seconds(), 1e-3)
	found := foundText(r)
	if r.Damaged == 0 && len(r.Metadata) == 0 && len(r.Mended) > 0 {
		found += " any more"
	}
	if _, err := fmt.Fprintf(w, "%s read and verified in %v, %s/s: %s\n", bytesText(r.ReadBytes), took.Round(10*time.Millisecond), bytesText(int64(rate)), found); err != nil {
		return err
	}
	if r.MendedBytes > 0 {
		if _, err := fmt.Fprintf(w, "%s of metadata mended from their other copy\n", bytesText(r.MendedBytes)); err != nil {
			return err
		}
	}
	for _, m := range r.Mended {
		if _, err := fmt.Fprintf(w, "mended at %s from its other copy: %s: %s\n", m.When.Local().Format(time.DateTime), m.File, m.Why); err != nil {
			return err
		}
	}
	for _, lost := range r.Metadata {
		if _, err := fmt.Fprintf(w, "not mended: %s\n", lost); err != nil {
			return err
		}
	}
	for _, d := range r.Damages {
		if err := printDamage(w, d); err != nil {
			return err
		}
	}
	if more := r.Damaged - len(r.Damages); more > 0 {
		_, err := fmt.Fprintf(w, "and %d more\n", more)
		return err
	}
	return nil
}

func printDamage(w io.Writer, d backstore.Damage) error {
	if _, err := fmt.Fprintf(w, "extent %d, segment %s block %d (%d of 4 KiB): %s\n", d.Extent, d.Segment, d.Block, d.Blocks, d.Reason); err != nil {
		return err
	}
	for _, u := range d.Uses {
		who := "volume " + u.Volume
		if u.File != "" {
			who = "file " + u.File
		} else if u.Volume == "" {
			who = fmt.Sprintf("snapshot %d", u.Snapshot)
		}
		if _, err := fmt.Fprintf(w, "  %s: %d bytes at %d\n", who, u.Length, u.Offset); err != nil {
			return err
		}
	}
	if d.MoreUses > 0 {
		_, err := fmt.Fprintf(w, "  and %d more\n", d.MoreUses)
		return err
	}
	return nil
}
