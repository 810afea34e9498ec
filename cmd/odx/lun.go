package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	v1 "odx/api/v1"
	"odx/conf"
)

func newLUN() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lun",
		Short: "List, add and remove LUNs, and watch what is done with them",
		Long:  "List, add and remove the LUNs of targets, and watch what is done with them. " + editsHelp,
	}
	cmd.AddCommand(newLUNList(), newLUNAdd(), newLUNRemove(), newLUNTop())
	return cmd
}

func newLUNList() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "list [TARGET]",
		Short: "List the LUNs of the configuration",
		Long: "List the LUNs of the configuration. While there is a server, SIZE is what they have, and ACCESS is\n" +
			"read-only for those on replicas and snapshots, too; otherwise both are what the configuration says.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withConfig(cmd, &o, func(ctx context.Context, cfg *conf.Config, live admin.Live) error {
				w := cmd.OutOrStdout()
				if err := showServed(ctx, cfg, live); err != nil {
					return err
				}
				if len(args) > 0 {
					t, err := targetOf(cfg, args[0])
					if err != nil {
						return err
					}
					cfg.Targets = []conf.Target{*t}
				}
				if o.json {
					return printJSON(w, lunsV1(cfg))
				}
				return printLUNs(w, cfg)
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

// showServed sets in a configuration what LUNs have as they are served: the size, which the
// configuration need not say, and whether they are read-only, as those on snapshots and on
// replicas are. live may be nil.
func showServed(ctx context.Context, cfg *conf.Config, live admin.Live) error {
	if live == nil {
		return nil
	}
	status, err := live.(*api.Client).Status(ctx)
	if err != nil {
		return err
	}
	for i := range cfg.Targets {
		for k := range cfg.Targets[i].LUNs {
			l := &cfg.Targets[i].LUNs[k]
			for _, served := range status.LUNs {
				if served.Target == cfg.Targets[i].Name && served.Number == l.Number {
					l.ReadOnly = served.ReadOnly
					if served.SizeBytes > 0 {
						l.Size = served.SizeBytes
					}
				}
			}
		}
	}
	return nil
}

// lunsV1 returns the LUNs by target.
func lunsV1(cfg *conf.Config) map[string][]v1.LUN {
	luns := map[string][]v1.LUN{}
	for _, t := range api.TargetsV1(cfg) {
		luns[t.Name] = t.LUNs
	}
	return luns
}

func printLUNs(w io.Writer, cfg *conf.Config) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TARGET\tLUN\tMEDIUM\tSIZE\tBLOCK\tACCESS\tLIMIT")
	for _, t := range cfg.Targets {
		for i := range t.LUNs {
			l := &t.LUNs[i]
			size, access := "-", "read-write"
			if l.Size > 0 {
				size = conf.FormatSize(l.Size)
			}
			if l.ReadOnly {
				access = "read-only"
			}
			fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%d\t%s\t%s\n", t.Name, l.Number, l.Medium(), size, l.BlockSize, access, orDash(limitText(l.Rate)))
		}
	}
	return table.Flush()
}

// limitText returns a limit in words; "" without one.
func limitText(r conf.Rate) string {
	var parts []string
	if r.IOPS > 0 {
		parts = append(parts, fmt.Sprintf("%d/s", r.IOPS))
	}
	if r.BytesPerSecond > 0 {
		parts = append(parts, conf.FormatSize(r.BytesPerSecond)+"/s")
	}
	return strings.Join(parts, ", ")
}

// lunOptions are the flags that describe a new LUN.
type lunOptions struct {
	number      uint16
	size        string
	blockSize   int
	readOnly    bool
	noDedup     bool
	iops        int64
	bytesPerSec string
	login       loginOptions
}

// mediumHelp describes the argument MEDIUM.
const mediumHelp = "MEDIUM is a volume, which is created if --size is given\n" +
	"and it does not exist; a file of the store, file:NAME; a view of the configuration, view:NAME; or a\n" +
	"file outside the store, backing:PATH, or a LUN of another target, iscsi://HOST[:PORT]/TARGET/LUN."

func (l *lunOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().Uint16Var(&l.number, "lun", 0, "`NUMBER` of the LUN")
	cmd.Flags().StringVar(&l.size, "size", "", "`SIZE` of a medium that is created, in bytes or with KiB, MiB, GiB, TiB")
	cmd.Flags().IntVar(&l.blockSize, "block-size", 512, "logical block length in `BYTES`, 512 or 4096")
	cmd.Flags().BoolVar(&l.readOnly, "read-only", false, "initiators cannot write")
	cmd.Flags().BoolVar(&l.noDedup, "no-dedup", false, "do not deduplicate what is written")
	cmd.Flags().Int64Var(&l.iops, "iops", 0, "limit of commands per second (0: none)")
	cmd.Flags().StringVar(&l.bytesPerSec, "bytes-per-s", "", "limit of bytes per second, for example 100MiB")
	l.login.addFlags(cmd)
}

// lun returns the LUN on a medium.
func (l *lunOptions) lun(medium string, o *adminOptions) (conf.LUN, error) {
	out := conf.LUN{Number: l.number, BlockSize: l.blockSize, ReadOnly: l.readOnly, StoreDuplicates: l.noDedup}
	kind, name, prefixed := strings.Cut(medium, ":")
	var err error
	switch {
	case !prefixed:
		out.Volume = medium
	case kind == "file":
		out.File = name
	case kind == "view":
		out.View = name
	case kind == "backing":
		if out.Backing, err = filepath.Abs(name); err != nil {
			return out, err
		}
	case conf.IsISCSI(medium):
		if out.ISCSI, err = conf.ParseISCSI(medium); err != nil {
			return out, usagef("%v", err)
		}
	default:
		return out, usagef("%q: use the name of a volume, file:NAME, view:NAME, backing:PATH or iscsi://HOST[:PORT]/TARGET/LUN", medium)
	}
	if out.Login, err = l.login.login(medium, o); err != nil {
		return out, err
	}
	if l.blockSize != 512 && l.blockSize != 4096 {
		return out, usagef("--block-size %d: use 512 or 4096", l.blockSize)
	}
	if l.size != "" {
		if out.Size, err = parseSize(l.size); err != nil {
			return out, err
		}
	}
	if out.Rate.IOPS = l.iops; l.iops < 0 {
		return out, usagef("--iops %d is negative; use 0 for no limit", l.iops)
	}
	if l.bytesPerSec != "" {
		out.Rate.BytesPerSecond, err = parseSize(l.bytesPerSec)
	}
	return out, err
}

func newLUNAdd() *cobra.Command {
	var o adminOptions
	var l lunOptions
	cmd := &cobra.Command{
		Use:   "add TARGET MEDIUM",
		Short: "Add a LUN to a target",
		Long: "Add a LUN to a target. Initiators that are logged in are notified (REPORTED LUNS DATA HAS CHANGED).\n" +
			mediumHelp + " " + loginHelp + "\n" +
			"Without --lun, the number is the first free one. " + editsHelp,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			lun, err := l.lun(args[1], &o)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("lun") {
				if lun.Number, err = freeNumber(cmd, &o, args[0]); err != nil {
					return err
				}
			}
			return editConfig(cmd, &o, fmt.Sprintf("LUN %d of target %s: added, on %s", lun.Number, args[0], lun.Medium()), conf.AddLUN{Target: args[0], LUN: lun})
		},
	}
	addAdminFlags(cmd, &o)
	l.addFlags(cmd)
	return cmd
}

// freeNumber returns the first number that no LUN of a target has.
func freeNumber(cmd *cobra.Command, o *adminOptions, target string) (free uint16, err error) {
	err = readConfig(cmd, o, func(_ io.Writer, cfg *conf.Config) error {
		t, err := targetOf(cfg, target)
		if err != nil {
			return err
		}
		used := map[uint16]bool{}
		for _, l := range t.LUNs {
			used[l.Number] = true
		}
		for used[free] {
			free++
		}
		return nil
	})
	return free, err
}

func newLUNRemove() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "remove TARGET LUN",
		Short: "Remove a LUN of a target; its volume remains",
		Long: "Remove a LUN of a target, when its commands have ended. Its volume remains. Initiators that are\n" +
			"logged in are notified (REPORTED LUNS DATA HAS CHANGED). " + editsHelp,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			number, err := parseLUN(args[1])
			if err != nil {
				return err
			}
			return editConfig(cmd, &o, fmt.Sprintf("LUN %d of target %s: removed", number, args[0]), conf.RemoveLUN{Target: args[0], Number: number})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

// parseLUN parses the number of a LUN.
func parseLUN(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n > conf.MaxLUN {
		return 0, usagef("invalid LUN %q; use a number from 0 to %d", text, conf.MaxLUN)
	}
	return uint16(n), nil
}
