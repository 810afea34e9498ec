package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/conf"
	"odx/vhd"
)

func newVHD() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vhd",
		Short: "Make, convert, merge, compact and defragment virtual disks",
		Long: "Work on the virtual disks in the files of a store. A file is what its name says: .vhd and .avhd\n" +
			"are VHD, .vhdx and .avhdx are VHDX, all others are raw. Payload that is in the store is not\n" +
			"moved but mapped to its new place. Whatever happens, Ctrl-C and a power cut too, leaves the old\n" +
			"disk or the new one.",
	}
	cmd.AddCommand(
		newVHDChange(diskCommand{
			use: "create FILE SIZE", short: "Make an empty virtual disk",
			long: "Make an empty virtual disk in the format of the name FILE. SIZE is in bytes, or has a unit (KiB,\n" +
				"MiB, GiB, TiB). A fixed disk of zeros takes no space, and no time either.",
			operation: vhd.Create, least: 2, read: func(r *admin.DiskRequest, args []string) (err error) {
				r.Destination = args[0]
				r.Size, err = parseSize(args[1])
				return err
			},
			flags: shape | overwrite | raw,
		}),
		newVHDInfo(), newVHDCheck(), newVHDImport(), newVHDExport(),
		newVHDChange(diskCommand{
			use: "convert FILE NEW", short: "Make a disk of its own with the contents of another one, in the format of its name",
			long: "Make a disk of its own with the contents of FILE, and of its parents, if it has some. The\n" +
				"format is that of the name NEW. Where NEW is FILE, it is replaced.",
			operation: vhd.Convert, least: 2, read: twoNames, flags: shape | overwrite | raw,
		}),
		newVHDChange(diskCommand{
			use: "from-volume VOLUME NEW", short: "Make a virtual disk of a volume as it is now",
			operation: vhd.FromVolume, least: 2, read: twoNames, flags: shape | overwrite | raw,
		}),
		newVHDChange(diskCommand{
			use: "to-volume FILE VOLUME", short: "Make a volume equal to a virtual disk",
			long: "Make a volume equal to a virtual disk. A volume that is there is only changed with --overwrite,\n" +
				"and with --force if initiators have it open; what it has more than the disk becomes zeros.",
			operation: vhd.ToVolume, least: 2, read: twoNames, flags: overwrite | raw,
		}),
		newVHDChange(diskCommand{
			use: "snapshot FILE NEW", short: "Make an empty differencing disk over another one",
			long: "Make NEW a differencing disk over FILE: it shows what FILE has, and holds what is written to\n" +
				"it. FILE must not change any more.",
			operation: vhd.Snapshot, least: 2, read: twoNames, flags: overwrite,
		}),
		newVHDChange(diskCommand{
			use: "merge FILE [PARENT]", short: "Put what a differencing disk has into its parent, and delete it",
			long: "Put what a differencing disk has into its parent, in one step with its deletion. With PARENT, a\n" +
				"disk further down, all between are merged and deleted, too. To keep them, convert FILE.",
			operation: vhd.Merge, least: 1, optional: 1, read: twoNames,
		}),
		newVHDChange(diskCommand{
			use: "compact FILE", short: "Drop blocks that are not used or all zeros, and shorten the file",
			operation: vhd.Compact, least: 1, read: twoNames,
		}),
		newVHDChange(diskCommand{
			use: "defrag FILE", short: "Put the blocks into the order of the disk, and compact",
			operation: vhd.Defragment, least: 1, read: twoNames,
		}),
		newVHDChange(diskCommand{
			use: "resize FILE SIZE", short: "Give a disk another capacity",
			long: "Give a disk another capacity. It shrinks only where it has nothing but zeros at its end. SIZE is\n" +
				"in bytes, or has a unit (KiB, MiB, GiB, TiB).",
			operation: vhd.Resize, least: 2, read: func(r *admin.DiskRequest, args []string) (err error) {
				r.Source = args[0]
				r.Size, err = parseSize(args[1])
				return err
			},
		}))
	return cmd
}

// diskCommand is what differs between the commands that change a virtual disk.
type diskCommand struct {
	use, short, long string
	operation        vhd.Operation
	least, optional  int // arguments
	read             func(r *admin.DiskRequest, args []string) error
	flags            diskFlags
}

// diskFlags are groups of flags that a command has.
type diskFlags uint

const (
	shape     diskFlags = 1 << iota // of the disk that it makes
	overwrite                       // what is there
	raw                             // bytes of a raw disk, whatever they look like
)

// twoNames reads a source, and a destination if there is one.
func twoNames(r *admin.DiskRequest, args []string) error {
	r.Source = args[0]
	if len(args) > 1 {
		r.Destination = args[1]
	}
	return nil
}

type diskOptions struct {
	adminOptions
	request admin.DiskRequest
	block   string
	force   bool
}

func newVHDChange(c diskCommand) *cobra.Command {
	o := diskOptions{request: admin.DiskRequest{Operation: c.operation}}
	cmd := &cobra.Command{
		Use: c.use, Short: c.short, Long: c.long,
		Args: cobra.RangeArgs(c.least, c.least+c.optional),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.read(&o.request, args); err != nil {
				return err
			}
			return changeDisk(cmd, &o)
		},
	}
	addAdminFlags(cmd, &o.adminOptions)
	if c.flags&shape != 0 {
		addShapeFlags(cmd, &o)
	}
	if c.flags&overwrite != 0 {
		addOverwriteFlag(cmd, &o)
	}
	if c.flags&raw != 0 {
		addRawFlag(cmd, &o.request.Raw)
	}
	if c.operation == vhd.ToVolume {
		cmd.Flags().BoolVar(&o.force, "force", false, "write to VOLUME although initiators have it open")
	}
	return cmd
}

func addShapeFlags(cmd *cobra.Command, o *diskOptions) {
	cmd.Flags().BoolVar(&o.request.Fixed, "fixed", false, "all blocks are in the file from the start; otherwise it grows")
	cmd.Flags().StringVar(&o.block, "block-size", "", "`SIZE` of a payload block, for example 2MiB; the format's default where left out")
	cmd.Flags().Int64Var(&o.request.SectorLength, "sector-size", 0, "`BYTES` of a logical sector of a VHDX, 512 or 4096")
}

func addOverwriteFlag(cmd *cobra.Command, o *diskOptions) {
	cmd.Flags().BoolVar(&o.request.Overwrite, "overwrite", false, "replace what has the name already")
}

func addRawFlag(cmd *cobra.Command, insist *bool) {
	cmd.Flags().BoolVar(insist, "raw", false, "take a file as a raw disk although its contents, or its name, are those of another format")
}

// changeDisk runs the operation of o.
func changeDisk(cmd *cobra.Command, o *diskOptions) error {
	if o.block != "" {
		var err error
		if o.request.BlockLength, err = parseSize(o.block); err != nil {
			return fmt.Errorf("--block-size: %w", err)
		}
	}
	return administer(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
		if o.request.Operation == vhd.ToVolume && !o.force {
			if err := checkNotOpen(ctx, a, o.request.Destination); err != nil {
				return err
			}
		}
		r, err := runDiskOperation(ctx, a, o.request, cmd.ErrOrStderr())
		if err != nil {
			return hintOverwrite(err)
		}
		if o.json {
			return printJSON(cmd.OutOrStdout(), api.DiskResultV1(r))
		}
		return printDiskResult(cmd.OutOrStdout(), r)
	})
}

// runDiskOperation runs an operation with a progress bar.
func runDiskOperation(ctx context.Context, a admin.Administrator, r admin.DiskRequest, stderr io.Writer) (admin.DiskResult, error) {
	bar := newBar(stderr, string(r.Operation))
	result, err := a.ChangeDisk(ctx, r, func(p admin.DiskProgress) {
		bar.describe(fmt.Sprintf("%s: %s mapped, %s moved", r.Operation, bytesText(p.Mapped), bytesText(p.Moved)))
		bar.show(p.Done, p.Total)
	})
	bar.end()
	for _, w := range result.Warnings {
		fmt.Fprintf(stderr, "warning: %s\n", w)
	}
	return result, err
}

func printDiskResult(w io.Writer, r admin.DiskResult) error {
	length := bytesText(r.FileBytes)
	if r.FileBytesBefore != 0 {
		length = fmt.Sprintf("%s, before %s", length, bytesText(r.FileBytesBefore))
	}
	_, err := fmt.Fprintf(w, "%s: %s; %s mapped, %s moved, in %v\n", r.Name, length, bytesText(r.MappedBytes), bytesText(r.MovedBytes), r.Duration.Round(100*time.Microsecond))
	return err
}
