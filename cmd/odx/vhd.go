package main

import (
	"context"
	"fmt"
	"io"
	"slices"
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
		Short: "Create, convert, merge, compact and defragment virtual disks",
		Long: "Work on the virtual disks in the files of a store. The name of a file decides its format: .vhd and\n" +
			".avhd are VHD, .vhdx and .avhdx are VHDX, all others are raw. Payload in the store is mapped\n" +
			"to its new place; it is moved only where it is not at multiples of 4 KiB. After an error, Ctrl-C\n" +
			"or a power cut there is the old disk or the new one.",
	}
	cmd.AddCommand(newVHDInfo(), newVHDCheck(), newVHDImport(), newVHDExport())
	for _, c := range slices.Concat(diskMakers(), diskChanges()) {
		cmd.AddCommand(newVHDChange(c))
	}
	return cmd
}

// diskMakers returns the commands that create a disk or a volume.
func diskMakers() []diskCommand {
	return []diskCommand{
		{
			use: "create FILE SIZE", short: "Create an empty virtual disk",
			long: "Create an empty virtual disk in the format of the name FILE. SIZE is in bytes, or has a unit (KiB,\n" +
				"MiB, GiB, TiB). The zeros of a fixed disk are holes, which take no space.",
			operation: vhd.Create, least: 2, read: func(r *admin.DiskRequest, args []string) (err error) {
				r.Destination = args[0]
				r.Size, err = parseSize(args[1])
				return err
			},
			flags: shape | overwrite | raw,
		},
		{
			use: "convert FILE NEW", short: "Create a disk without parents with the contents of another one, in the format of its name",
			long: "Create a disk without parents, with the contents of FILE and its parents, in the format of the\n" +
				"name NEW. If NEW is FILE, it is replaced.",
			operation: vhd.Convert, least: 2, read: twoNames, flags: shape | overwrite | raw,
		},
		{
			use: "from-volume VOLUME NEW", short: "Create a virtual disk from a volume as it is now",
			operation: vhd.FromVolume, least: 2, read: twoNames, flags: shape | overwrite | raw,
		},
		{
			use: "to-volume FILE VOLUME", short: "Make a volume equal to a virtual disk",
			long: "Make a volume equal to a virtual disk. An existing volume is changed only with --overwrite, and\n" +
				"with --force if initiators have it open; its bytes past the end of the disk become zeros.",
			operation: vhd.ToVolume, least: 2, read: twoNames, flags: overwrite | raw,
		},
		{
			use: "snapshot FILE NEW", short: "Create an empty differencing disk over another one",
			long: "Create NEW, a differencing disk over FILE: it reads as FILE and holds what is written to it. FILE\n" +
				"must not change any more.",
			operation: vhd.Snapshot, least: 2, read: twoNames, flags: overwrite,
		},
	}
}

// diskChanges returns the commands that change a disk.
func diskChanges() []diskCommand {
	return []diskCommand{
		{
			use: "merge FILE [PARENT]", short: "Merge a differencing disk into its parent, and delete it",
			long: "Merge a differencing disk into its parent and delete it, in one step. With PARENT, a parent of its\n" +
				"parent or one further away, the disks between are merged into PARENT and deleted, too. To keep\n" +
				"all disks, convert FILE to a disk without parents.",
			operation: vhd.Merge, least: 1, optional: 1, read: twoNames,
		},
		{
			use: "compact FILE", short: "Remove unused blocks and blocks of zeros, and shorten the file",
			operation: vhd.Compact, least: 1, read: twoNames,
		},
		{
			use: "defrag FILE", short: "Sort the blocks by their addresses on the disk, and compact",
			operation: vhd.Defragment, least: 1, read: twoNames,
		},
		{
			use: "resize FILE SIZE", short: "Change the capacity of a disk",
			long: "Change the capacity of a disk. It shrinks only if it has only zeros at its end. SIZE is in bytes,\n" +
				"or has a unit (KiB, MiB, GiB, TiB).",
			operation: vhd.Resize, least: 2, read: func(r *admin.DiskRequest, args []string) (err error) {
				r.Source = args[0]
				r.Size, err = parseSize(args[1])
				return err
			},
		},
	}
}

// diskCommand describes a command that changes a virtual disk.
type diskCommand struct {
	use, short, long string
	operation        vhd.Operation
	least, optional  int // arguments
	read             func(r *admin.DiskRequest, args []string) error
	flags            diskFlags
}

// diskFlags are groups of flags of a command.
type diskFlags uint

const (
	shape     diskFlags = 1 << iota // of the disk that it creates
	overwrite                       // what is there
	raw                             // treat the contents as a raw disk
)

// twoNames parses a source, and a destination if there is one.
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
		cmd.Flags().BoolVar(&o.force, "force", false, "write to VOLUME even if initiators have it open")
	}
	return cmd
}

func addShapeFlags(cmd *cobra.Command, o *diskOptions) {
	cmd.Flags().BoolVar(&o.request.Fixed, "fixed", false, "allocate all blocks at once; otherwise the file grows")
	cmd.Flags().StringVar(&o.block, "block-size", "", "`SIZE` of a payload block, for example 2MiB; the default is the format's")
	cmd.Flags().Int64Var(&o.request.SectorLength, "sector-size", 0, "`BYTES` of a logical sector of a VHDX, 512 or 4096")
}

func addOverwriteFlag(cmd *cobra.Command, o *diskOptions) {
	cmd.Flags().BoolVar(&o.request.Overwrite, "overwrite", false, "replace an existing object of the name")
}

func addRawFlag(cmd *cobra.Command, insist *bool) {
	cmd.Flags().BoolVar(insist, "raw", false, "use a file as a raw disk even if its contents or its name are those of another format")
}

// changeDisk runs the operation of o.
func changeDisk(cmd *cobra.Command, o *diskOptions) error {
	if o.block != "" {
		var err error
		if o.request.BlockLength, err = parseSize(o.block); err != nil {
			return fmt.Errorf("--block-size: %w", err)
		}
	}
	std := streamsOf(cmd)
	return administer(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
		if o.request.Operation == vhd.ToVolume && !o.force {
			if err := checkNotOpen(ctx, a, o.request.Destination); err != nil {
				return err
			}
		}
		r, err := runDiskOperation(ctx, a, o.request, std.err)
		if err != nil {
			return hintOverwrite(err)
		}
		return printDiskResult(&o.adminOptions, r, std)
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
	printWarnings(stderr, result.Warnings)
	return result, err
}

func printWarnings(w io.Writer, warnings []string) {
	for _, warning := range warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
}

// printDiskResult prints what a command did. Its text has the time since the command
// started, which is longer than that of the operation.
func printDiskResult(o *adminOptions, r admin.DiskResult, std streams) error {
	if o.json {
		return printJSON(std.out, api.DiskResultV1(r))
	}
	length := bytesText(r.FileBytes)
	if r.FileBytesBefore != 0 {
		length = fmt.Sprintf("%s, before %s", length, bytesText(r.FileBytesBefore))
	}
	_, err := fmt.Fprintf(std.out, "%s: %s; %s mapped, %s moved, in %s\n", r.Name, length, bytesText(r.MappedBytes), bytesText(r.MovedBytes), durationText(time.Since(std.began)))
	return err
}
