package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/conf"
)

func newVolumeDiff() *cobra.Command {
	o := adminOptions{looks: true}
	var offset, length string
	cmd := &cobra.Command{
		Use:   "diff [BASE] VOLUME",
		Short: "List the ranges in which a volume differs from another one",
		Long: "List the ranges in which VOLUME may differ from BASE, or, without BASE, those that are allocated.\n" +
			"Both can be volumes, snapshots, clones, or file:NAME; what is written to them while the command\n" +
			"runs is not in its output. A range of the kind hole reads as zeros in VOLUME; the others are data.\n" +
			"Nothing else differs; data that is listed can be equal where it was written again. The list takes\n" +
			"time in proportion to what differs, not to the size, if one is a copy of the other. A volume\n" +
			"that is larger than the other one is compared as if holes followed there. Blocks of zeros that\n" +
			"were written are holes.",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			r := admin.DiffRequest{Name: args[len(args)-1]}
			if len(args) == 2 {
				r.Base = args[0]
			}
			for flag, n := range map[string]*int64{"offset": &r.Offset, "length": &r.Length} {
				text := cmd.Flag(flag).Value.String()
				if text == "" {
					continue
				}
				if *n, err = parseSize(text); err != nil {
					return fmt.Errorf("--%s: %w", flag, err)
				}
			}
			return administer(cmd, &o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				if o.json {
					return printDiffJSON(ctx, cmd.OutOrStdout(), a, r)
				}
				return printDiff(ctx, cmd.OutOrStdout(), a, r)
			})
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().StringVar(&offset, "offset", "", "compare from `BYTE` on")
	cmd.Flags().StringVar(&length, "length", "", "compare so many `BYTES`")
	return cmd
}

// printDiff prints a row for each range as it is found: there can be many.
func printDiff(ctx context.Context, w io.Writer, a admin.Administrator, r admin.DiffRequest) error {
	const row = "%20s  %20s  %s\n"
	begin := sync.OnceFunc(func() { fmt.Fprintf(w, row, "OFFSET", "LENGTH", "KIND") })
	d, err := a.Diff(ctx, r, func(ranges []admin.DiffRange) error {
		begin()
		for _, one := range api.DiffRangesV1(ranges) {
			if _, err := fmt.Fprintf(w, row, fmt.Sprint(one.Offset), fmt.Sprint(one.Length), one.Kind); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	begin()
	what := "differ"
	if r.Base == "" {
		what = "are allocated"
	}
	fmt.Fprintf(w, "%d ranges %s: %s of data, %s of holes", d.Ranges, what, bytesText(d.DataBytes), bytesText(d.HoleBytes))
	if r.Base != "" && d.SizeBytes != d.BaseBytes {
		fmt.Fprintf(w, "; %s has %s, %s %s", r.Base, bytesText(d.BaseBytes), r.Name, bytesText(d.SizeBytes))
	}
	_, err = fmt.Fprintln(w)
	return err
}

// printDiffJSON prints one document as the ranges are found: "ranges", then "result".
func printDiffJSON(ctx context.Context, w io.Writer, a admin.Administrator, r admin.DiffRequest) error {
	separator := "{\"ranges\": [\n  "
	put := func(v any) error {
		b, err := json.Marshal(v)
		if err == nil {
			_, err = fmt.Fprintf(w, "%s%s", separator, b)
		}
		return err
	}
	d, err := a.Diff(ctx, r, func(ranges []admin.DiffRange) error {
		for _, one := range api.DiffRangesV1(ranges) {
			if err := put(one); err != nil {
				return err
			}
			separator = ",\n  "
		}
		return nil
	})
	if err != nil {
		return err
	}
	if d.Ranges == 0 {
		separator = "{\"ranges\": [],\n \"result\": "
	} else {
		separator = "\n ],\n \"result\": "
	}
	if err := put(api.DiffV1(d)); err != nil {
		return err
	}
	_, err = io.WriteString(w, "}\n")
	return err
}
