package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
)

func newTokenStats() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Print what was copied and refused since the server started, and why",
		Long: "Print counters of the server since it started: third-party copy commands of initiators, the\n" +
			"refused ones by sense code or status, and tokens by how they ended. The last 32 refused commands\n" +
			"follow with their reasons. odx doctor examines why copies between two LUNs are refused.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return query(cmd, &o, admin.Administrator.CopyStats, api.CopyStatsV1, func(w io.Writer, s admin.CopyStats) error { return printCopyStats(w, &s) })
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printCopyStats(w io.Writer, s *admin.CopyStats) error {
	c, t := &s.Commands, &s.Tokens
	fmt.Fprintf(w, "since %s\n", c.Since.Local().Format(time.DateTime))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "POPULATE TOKEN\t%d\t%s represented, %s of them moved\n", c.Populated, bytesText(int64(c.PopulatedBytes)), bytesText(int64(c.PopulatedMovedBytes)))
	fmt.Fprintf(table, "WRITE USING TOKEN\t%d\t%s mapped, %s moved\n", c.Written, bytesText(int64(c.WrittenBytes-c.WrittenMovedBytes)), bytesText(int64(c.WrittenMovedBytes)))
	fmt.Fprintf(table, "EXTENDED COPY\t%d\t%s mapped, %s moved\n", c.Extended, bytesText(int64(c.ExtendedBytes-c.ExtendedMovedBytes)), bytesText(int64(c.ExtendedMovedBytes)))
	fmt.Fprintf(table, "ended early\t%d\tcopy commands that did only a part\n", c.Partial)
	fmt.Fprintf(table, "aborted\t%d\tcopy commands\n", c.Aborted)
	fmt.Fprintf(table, "refused\t%d\tcopy commands\n", c.Refused)
	for _, by := range slices.Sorted(maps.Keys(c.RefusedBy)) {
		fmt.Fprintf(table, "  %s\t%d\t\n", by, c.RefusedBy[by])
	}
	fmt.Fprintf(table, "tokens created\t%d\t%d live, represent %s, hold %s, take %s of memory\n", t.Created, t.Live,
		bytesText(t.PinnedBytes), bytesText(t.HeldBytes), bytesText(t.MemoryBytes))
	fmt.Fprintf(table, "uses\t%d\tof tokens\n", t.Uses)
	fmt.Fprintf(table, "ended\t%d\t%d expired, %d cancelled, %d revoked, %d deleted\n", t.Expired+t.Cancelled+t.Revoked+t.Deleted,
		t.Expired, t.Cancelled, t.Revoked, t.Deleted)
	for _, cause := range slices.Sorted(maps.Keys(t.CancelledFor)) {
		fmt.Fprintf(table, "  %v\t%d\tcancelled\n", cause, t.CancelledFor[cause])
	}
	for _, why := range slices.Sorted(maps.Keys(t.Refused)) {
		fmt.Fprintf(table, "  %s\t%d\toperations refused\n", why, t.Refused[why])
	}
	if err := table.Flush(); err != nil || len(c.Recent) == 0 {
		return err
	}
	fmt.Fprintln(w, "\nrefused last:")
	table = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TIME\tCOMMAND\tINITIATOR\tVOLUME\tANSWER\tREASON")
	for _, r := range c.Recent {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Time.Local().Format(time.DateTime), r.Command, r.Initiator, r.Volume, r.Sense, r.Reason)
	}
	return table.Flush()
}
