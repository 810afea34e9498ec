package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/conf"
	"odx/vhd"
)

func newFile() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "file",
		Short: "Manage files in the store",
		Long: "Manage files in the store, which have paths as names. Their data is deduplicated with all other\n" +
			"data, and copies of files share it. Other commands call a file file:PATH.",
	}
	cmd.AddCommand(newFileList(), newFilePut(), newFileGet(), newFileRemove(), newFileToken(),
		newFileTwo("mv FROM TO", "Rename a file, replacing an existing one", "renamed", renameFile),
		newFileTwo("cp FROM TO", "Copy a file without moving its bytes, replacing an existing one", "copied", copyFile))
	return cmd
}

// copyFile copies to a hidden file, which replaces an existing one in one step.
func copyFile(a admin.Administrator, ctx context.Context, from, to string) (admin.File, []string, error) {
	part, err := a.StartFile(ctx, admin.FileStart{Name: to, From: admin.FilePrefix + from})
	if err != nil {
		return admin.File{}, nil, err
	}
	f, err := a.FinishFile(ctx, admin.FileFinish{Name: to, Scratch: part.Name, Overwrite: true})
	if err != nil {
		err = errors.Join(err, a.DeleteFile(context.WithoutCancel(ctx), part.Name))
	}
	return f, nil, err
}

// renameFile renames a file. It warns of a virtual disk that is none under its new name,
// and of parents and children that are not found any more.
func renameFile(a admin.Administrator, ctx context.Context, from, to string) (admin.File, []string, error) {
	before, unreadable := a.Disk(ctx, from)
	f, err := a.RenameFile(ctx, from, to)
	if err != nil || unreadable != nil {
		return f, nil, err
	}
	after, err := a.Disk(ctx, to)
	if err != nil {
		return f, []string{err.Error()}, nil
	}
	var warnings []string
	if last := len(after.Parents) - 1; last >= 0 {
		// If a parent is missing, the last entry is the error.
		if _, err := a.Disk(ctx, after.Parents[last]); err != nil {
			warnings = append(warnings, after.Parents[last])
		}
	}
	for _, child := range before.Children {
		if !slices.Contains(after.Children, child) {
			warnings = append(warnings, fmt.Sprintf("%s finds its parent only as %s", child, from))
		}
	}
	return f, warnings, nil
}

func newFileList() *cobra.Command {
	o := adminOptions{looks: true}
	cmd := &cobra.Command{
		Use:   "list [PREFIX]",
		Short: "List the files",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix := strings.Join(args, "")
			return administer(cmd, &o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				all, err := a.Files(ctx)
				if err != nil {
					return err
				}
				list := []admin.File{}
				for _, f := range all {
					if strings.HasPrefix(f.Name, prefix) {
						list = append(list, f)
					}
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), api.FilesV1(list))
				}
				return printFiles(cmd.OutOrStdout(), list)
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printFiles(w io.Writer, list []admin.File) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "BYTES\tMADE\tNAME")
	for _, f := range list {
		fmt.Fprintf(table, "%d\t%s\t%s\n", f.SizeBytes, f.Created.Local().Format(time.DateTime), f.Name)
	}
	return table.Flush()
}

func newFilePut() *cobra.Command {
	var o copyOptions
	cmd := &cobra.Command{
		Use:   "put LOCAL FILE",
		Short: "Copy a file of this machine, or standard input (-), into the store",
		Long: "Copy a file of this machine into the store. It gets its name when it is complete. An existing file\n" +
			"is replaced only with --overwrite.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			std := streamsOf(cmd)
			return administer(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				return copyDisk(ctx, a, &o, localPath(args[0]), admin.FilePrefix+args[1], std)
			})
		},
	}
	addAdminFlags(cmd, &o.adminOptions)
	o.addOverwriteFlag(cmd)
	return cmd
}

func newFileGet() *cobra.Command {
	var o copyOptions
	cmd := &cobra.Command{
		Use:   "get FILE LOCAL",
		Short: "Copy a file of the store to this machine, or to standard output (-)",
		Long: "Copy a file of the store to this machine. It gets its name when it is complete. An existing file\n" +
			"is replaced only with --overwrite.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			std := streamsOf(cmd)
			return administer(cmd, &o.adminOptions, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				return copyDisk(ctx, a, &o, admin.FilePrefix+args[0], localPath(args[1]), std)
			})
		},
	}
	addAdminFlags(cmd, &o.adminOptions)
	o.addOverwriteFlag(cmd)
	return cmd
}

// localPath returns a name that cannot be taken for a volume or a URL.
func localPath(name string) string {
	if inStore(name) {
		return "./" + name
	}
	return name
}

func newFileRemove() *cobra.Command {
	var o adminOptions
	force := false
	cmd := &cobra.Command{
		Use:   "rm FILE...",
		Short: "Delete files",
		Long: "Delete files. A virtual disk that is the parent of others is deleted only together with all of\n" +
			"them, or with --force; then the others cannot be read any more.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			remove := admin.Administrator.DeleteFile
			if force {
				remove = admin.Administrator.DeleteParent
			}
			return administer(cmd, &o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				if err := removeFiles(args, func(name string) error { return remove(a, ctx, name) }); err != nil {
					return err
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), map[string][]string{"deleted": args})
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "deleted: %s\n", strings.Join(args, " "))
				return err
			})
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().BoolVar(&force, "force", false, "delete the parents of virtual disks, too")
	return cmd
}

// removeFiles removes files, parents of virtual disks after their children.
func removeFiles(names []string, remove func(name string) error) error {
	for len(names) > 0 {
		var parents []string
		var refused error // of the first parent
		for _, name := range names {
			err := remove(name)
			switch {
			case errors.Is(err, vhd.ErrHasChildren):
				parents, refused = append(parents, name), cmp.Or(refused, err)
			case err != nil:
				return err
			}
		}
		if len(parents) == len(names) {
			return fmt.Errorf("%w; --force deletes it nevertheless", refused)
		}
		names = parents
	}
	return nil
}

// newFileTwo returns a command with two names. do returns warnings, too.
func newFileTwo(use, short, done string, do func(a admin.Administrator, ctx context.Context, from, to string) (admin.File, []string, error)) *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return administer(cmd, &o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				f, warnings, err := do(a, ctx, args[0], args[1])
				if err != nil {
					return err
				}
				printWarnings(cmd.ErrOrStderr(), warnings)
				if o.json {
					return printJSON(cmd.OutOrStdout(), api.FileV1(f))
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "file %s: %s to %s\n", args[0], done, args[1])
				return err
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}
