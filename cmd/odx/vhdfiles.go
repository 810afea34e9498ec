package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/api/transfer"
	"odx/conf"
	"odx/vhd"
	"odx/vhd/disk"
)

// localDiskOptions are the flags of commands that read a file of the store or of this
// machine.
type localDiskOptions struct {
	adminOptions
	local bool
}

func addLocalFlag(cmd *cobra.Command, o *localDiskOptions) {
	addAdminFlags(cmd, &o.adminOptions)
	cmd.Flags().BoolVar(&o.local, "local", false, "FILE is a file of this machine")
}

func newVHDInfo() *cobra.Command {
	var o localDiskOptions
	cmd := &cobra.Command{
		Use:   "info FILE",
		Short: "Describe a virtual disk",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			show := func(d admin.Disk) error {
				if o.json {
					return printJSON(cmd.OutOrStdout(), api.DiskV1(d))
				}
				return printDisk(cmd.OutOrStdout(), d)
			}
			if o.local {
				return withHostFile(args[0], func(f *vhd.HostFile) error {
					d, err := vhd.Describe(cmd.Context(), filepath.Base(args[0]), f)
					if err != nil {
						return err
					}
					return show(d)
				})
			}
			return administer(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				d, err := a.Disk(ctx, args[0])
				if err != nil {
					return err
				}
				return show(d)
			})
		},
	}
	addLocalFlag(cmd, &o)
	return cmd
}

func withHostFile(path string, do func(f *vhd.HostFile) error) (err error) {
	f, err := vhd.OpenHostFile(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return do(f)
}

func printDisk(w io.Writer, d admin.Disk) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) { fmt.Fprintf(table, "%s\t%s\n", name, printable(value)) }
	row("name", d.Name)
	row("format", fmt.Sprintf("%s, %s", d.Format, d.Kind))
	if d.LooksLike != "" {
		row("contents", "look like "+d.LooksLike+", but are used as a raw disk because of the name")
	}
	row("capacity", conf.FormatSize(d.SizeBytes))
	row("file", bytesText(d.FileBytes))
	if d.Format != disk.Raw {
		row("blocks", fmt.Sprintf("%d of %d in the file, of %s; %d out of order", d.PlacedBlocks, d.Blocks, conf.FormatSize(d.BlockBytes), d.FragmentedBlocks))
		row("sectors", fmt.Sprintf("%d bytes, %d physically", d.SectorBytes, d.PhysicalSectorBytes))
		row("identifier", d.ID)
		row("creator", d.Creator)
	}
	if !d.Mappable {
		row("payload", "not at multiples of 4 KiB: copies move bytes; compact and defrag align it")
	}
	if len(d.Parents) > 0 {
		row("parents", strings.Join(d.Parents, ", "))
	}
	if len(d.Children) > 0 {
		row("children", strings.Join(d.Children, ", "))
	}
	return table.Flush()
}

func newVHDCheck() *cobra.Command {
	var o localDiskOptions
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a virtual disk",
		Long: "Check a virtual disk: structures, checksums, places of blocks, and, in the store, its parents. The\n" +
			"exit status is 3 if a finding endangers data.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.local {
				return withHostFile(args[0], func(f *vhd.HostFile) error {
					findings, err := vhd.Check(cmd.Context(), args[0], f)
					if err != nil {
						return err
					}
					return printDiskCheck(cmd.OutOrStdout(), &o.adminOptions, args[0], admin.NewDiskCheck(findings))
				})
			}
			return administer(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				check, err := a.CheckDisk(ctx, args[0])
				if err != nil {
					return err
				}
				return printDiskCheck(cmd.OutOrStdout(), &o.adminOptions, args[0], check)
			})
		},
	}
	addLocalFlag(cmd, &o)
	return cmd
}

func printDiskCheck(w io.Writer, o *adminOptions, name string, c admin.DiskCheck) error {
	if o.json {
		if err := printJSON(w, api.DiskCheckV1(c)); err != nil {
			return err
		}
	} else {
		for _, f := range c.Findings {
			grade := "damaged"
			if f.Harmless {
				grade = "harmless"
			}
			if _, err := fmt.Fprintf(w, "%s: %s: %s\n", name, grade, printable(f.Text)); err != nil {
				return err
			}
		}
	}
	if !c.Sound {
		return damagef("%s is damaged", name)
	}
	if o.json {
		return nil
	}
	_, err := fmt.Fprintf(w, "%s is sound\n", name)
	return err
}

func newVHDImport() *cobra.Command {
	o := diskOptions{}
	cmd := &cobra.Command{
		Use:   "import LOCAL FILE",
		Short: "Copy a virtual disk of this machine into the store",
		Long: "Copy a virtual disk of this machine into the store, with its payload aligned so that it can be\n" +
			"mapped. In the same format the disk keeps its identifiers, and a differencing disk its parent,\n" +
			"which has to be in the store at the same relative path; in another format it is converted.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			std := streamsOf(cmd)
			return administer(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				return importDisk(ctx, a, &o, args[0], args[1], std)
			})
		},
	}
	addAdminFlags(cmd, &o.adminOptions)
	addShapeFlags(cmd, &o)
	addOverwriteFlag(cmd, &o)
	addRawFlag(cmd, &o.request.Raw)
	return cmd
}

// importDisk copies the file to a hidden file of the store, which the store then
// converts.
func importDisk(ctx context.Context, a admin.Administrator, o *diskOptions, local, name string, std streams) (err error) {
	src, err := transfer.OpenFile(local)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	like, err := checkImport(ctx, o, src, local, name)
	if err != nil {
		return hintOverwrite(err)
	}
	if !o.request.Overwrite {
		if err := transfer.CheckName(ctx, a, name, transfer.Refuse); err != nil {
			return hintOverwrite(err)
		}
	}
	dst, part, err := transfer.StartStoreFile(ctx, a, like, src.Size())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.DeleteFile(context.WithoutCancel(ctx), part))
		}
	}()
	bar := newBar(std.err, "import")
	copied, err := transfer.Copy(ctx, dst, src, transfer.Options{Progress: func(p transfer.Progress) { bar.show(p.DoneBytes, p.TotalBytes) }})
	bar.end()
	if err != nil {
		return err
	}
	r := o.request
	r.Operation, r.Source, r.Destination = vhd.Import, part, name
	result, err := runDiskOperation(ctx, a, r, std.err)
	if err != nil {
		return hintOverwrite(err)
	}
	// All payload was read here or sent to the server.
	result.MovedBytes += copied.MovedBytes
	return printDiskResult(&o.adminOptions, result, std)
}

// checkImport returns a name with the format of a local file: that of its name, or raw
// for a file of another format with --raw.
func checkImport(ctx context.Context, o *diskOptions, src transfer.Disk, local, name string) (like string, err error) {
	err = vhd.CheckSource(ctx, local, src)
	if o.request.Raw && errors.Is(err, vhd.ErrForeign) {
		return "raw", nil
	}
	if err == nil && !o.request.Raw {
		err = vhd.CheckTarget(name)
	}
	return filepath.Base(local), err
}

func newVHDExport() *cobra.Command {
	var o copyOptions
	var fixed bool
	cmd := &cobra.Command{
		Use:   "export FILE LOCAL",
		Short: "Copy a virtual disk of the store to this machine",
		Long: "Copy a virtual disk of the store to this machine, in the format of the name LOCAL. In the same\n" +
			"format it is the same file, byte for byte, as it is now. LOCAL gets its name when it is\n" +
			"complete; an existing file is replaced only with --overwrite.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			std := streamsOf(cmd)
			return administer(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				return exportDisk(ctx, a, &o, args[0], args[1], fixed, std)
			})
		},
	}
	addAdminFlags(cmd, &o.adminOptions)
	o.addOverwriteFlag(cmd)
	addRawFlag(cmd, &o.raw)
	cmd.Flags().BoolVar(&fixed, "fixed", false, "make LOCAL a fixed disk without parents")
	return cmd
}

// exportDisk makes the store create a hidden disk in the format of the destination, or
// a hidden copy of the file, and copies that.
func exportDisk(ctx context.Context, a admin.Administrator, o *copyOptions, name, local string, fixed bool, std streams) (err error) {
	made, err := runDiskOperation(ctx, a, admin.DiskRequest{Operation: vhd.Export, Source: name, Destination: filepath.Base(local), Fixed: fixed, Raw: o.raw}, std.err)
	if err != nil {
		return hintOverwrite(err)
	}
	defer func() { err = errors.Join(err, a.DeleteFile(context.WithoutCancel(ctx), made.Name)) }()
	src := transfer.OpenStarted(a, made.Name, made.FileBytes)
	return copyFrom(ctx, a, o, src, name, localPath(local), std)
}
