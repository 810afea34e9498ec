package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/conf"
)

func newVolume() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "volume",
		Short: "Create, list, grow, rename, revert, copy, move and delete volumes",
		Long: "Create, list, grow, rename, revert, copy, move and delete the volumes of a store. Commands use the server of the store,\n" +
			"or open the store if there is none. Changes are durable when the command ends.",
	}
	cmd.AddCommand(newVolumeList(), newVolumeCreate(), newVolumeResize(), newVolumeRename(), newVolumeRevert(), newVolumeMigrate(), newVolumeDelete(), newVolumeDiff(),
		newVolumeCopy(copyCommand{
			use: "snapshot VOLUME NAME", short: "Create a read-only volume that equals another one now",
			long: "Create a read-only volume that equals another one now. They share all data, so that the snapshot\n" +
				"takes constant time, and space only for what is written to the volume later. Data that\n" +
				"initiators have not flushed may be missing, as after a power cut. A snapshot can be a LUN, and it\n" +
				"can be cloned.",
			do: admin.Administrator.SnapshotVolume,
		}),
		newVolumeCopy(copyCommand{
			use: "clone VOLUME NAME", short: "Create a volume that equals another one now",
			long: "Create a volume that equals another one now. They share all data, so that the clone takes\n" +
				"constant time, and space only for what is written to either later. The clone of a snapshot can be\n" +
				"written to.",
			do: admin.Administrator.CloneVolume,
		}))
	return cmd
}

func newVolumeList() *cobra.Command {
	o := adminOptions{looks: true}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the volumes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return query(cmd, &o, admin.Administrator.Volumes, api.VolumesV1, printVolumes)
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printVolumes(w io.Writer, volumes []admin.Volume) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tSIZE\tACCESS\tORIGIN\tMADE\tLUNS")
	for _, v := range volumes {
		access, origin, made, luns := "read-write", "-", "-", "-"
		if v.ReadOnly {
			access = "read-only"
		}
		if v.Origin != "" {
			origin = v.Origin
		}
		if !v.Created.IsZero() {
			made = v.Created.Local().Format(time.DateTime)
		}
		if len(v.LUNs) > 0 {
			luns = strings.Join(v.LUNs, " ")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", v.Name, conf.FormatSize(v.SizeBytes), access, origin, made, luns)
	}
	return table.Flush()
}

func newVolumeCreate() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "create NAME SIZE",
		Short: "Create a volume",
		Long: "Create a thin volume: it takes space for what is written to it. SIZE is in bytes, or has a unit\n" +
			"(KiB, MiB, GiB, TiB). To serve it, name it in the configuration.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			size, err := parseSize(args[1])
			if err != nil {
				return err
			}
			return administer(cmd, &o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				v, err := a.CreateVolume(ctx, args[0], size)
				if err != nil {
					return err
				}
				return printVolume(cmd.OutOrStdout(), &o, v, "made, "+conf.FormatSize(v.SizeBytes))
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

// printVolume prints a volume and what was done to it.
func printVolume(w io.Writer, o *adminOptions, v admin.Volume, what string) error {
	if o.json {
		return printJSON(w, api.VolumeV1(v))
	}
	_, err := fmt.Fprintf(w, "volume %s: %s\n", v.Name, what)
	return err
}

func newVolumeResize() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "resize NAME SIZE",
		Short: "Grow a volume, also while it is in use",
		Long: "Grow a volume, also while it is in use: initiators are notified that its capacity has\n" +
			"changed. The new part reads as zeros. SIZE is the new size in bytes, or has a unit (KiB, MiB,\n" +
			"GiB, TiB). A volume cannot shrink.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			size, err := parseSize(args[1])
			if err != nil {
				return err
			}
			return administer(cmd, &o, func(ctx context.Context, cfg *conf.Config, a admin.Administrator) error {
				v, err := a.ResizeVolume(ctx, args[0], size)
				if err != nil {
					return err
				}
				warnOfSizes(cmd.ErrOrStderr(), cfg, v)
				return printVolume(cmd.OutOrStdout(), &o, v, "has "+conf.FormatSize(v.SizeBytes)+" now")
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

// warnOfSizes prints where the configuration has another size than the volume; the next
// start warns of it, too.
func warnOfSizes(w io.Writer, cfg *conf.Config, v admin.Volume) {
	for _, t := range cfg.Targets {
		for _, l := range t.LUNs {
			if l.Volume == v.Name && l.Size != 0 && l.Size != v.SizeBytes {
				fmt.Fprintln(w, cfg.Problem(l.Key+".size", "LUN %d: write %s here, or leave size out; until then odx serve warns of %s",
					l.Number, conf.FormatSize(v.SizeBytes), conf.FormatSize(l.Size)))
				return // further LUNs take it from there
			}
		}
	}
}

func newVolumeDelete() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a volume that is not a LUN",
		Long: "Delete a volume that is not a LUN of the configuration. Its clones, its snapshots and the tokens\n" +
			"created from it remain. The space that nothing else uses is given back in the\n" +
			"background.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return administer(cmd, &o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				if err := a.DeleteVolume(ctx, args[0]); err != nil {
					return err
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), map[string]string{"deleted": args[0]})
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "volume %s: deleted\n", args[0])
				return err
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

// copyCommand describes the commands snapshot and clone.
type copyCommand struct {
	use, short, long string
	do               func(a admin.Administrator, ctx context.Context, src, name string) (admin.Volume, error)
}

func newVolumeCopy(c copyCommand) *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use: c.use, Short: c.short, Long: c.long,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return administer(cmd, &o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				v, err := c.do(a, ctx, args[0], args[1])
				if err != nil {
					return err
				}
				return printVolume(cmd.OutOrStdout(), &o, v, "made of "+args[0]+", "+conf.FormatSize(v.SizeBytes))
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}
