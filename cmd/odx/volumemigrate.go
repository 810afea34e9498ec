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

func newVolumeMigrate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Move the LUNs on a volume to another place while they are in use",
		Long: "Move the LUNs on a volume to another volume, to a view of the configuration, to another server, or\n" +
			"to the LUN of another iSCSI target, while initiators read and write. The LUNs keep their identity,\n" +
			"reservations and, unless they move to another server, sessions. The volume that they leave stays\n" +
			"until the migration is finished. The commands need a server.",
	}
	cmd.AddCommand(newMigrateStart(), newMigrateList(), newMigrateAbort(), newMigrateFinish())
	return cmd
}

func newMigrateStart() *cobra.Command {
	var o adminOptions
	var r admin.MigrationRequest
	var rate, throttle string
	var login loginOptions
	cmd := &cobra.Command{
		Use:   "start VOLUME DEST",
		Short: "Begin to move the LUNs on a volume",
		Long: "Begin to move the LUNs on a volume to DEST: the name of a view of the configuration, or of a volume,\n" +
			"which is created, or PEER:VOLUME for a volume of another server, or the LUN of another iSCSI target,\n" +
			"iscsi://HOST[:PORT]/TARGET/LUN. It goes on in the server, also after a restart; odx volume migrate\n" +
			"list says how far it is. What is written by then is copied in rounds. Once a round is short,\n" +
			"commands are held, and the LUNs go on at DEST. At a peer they are added to the targets of the same\n" +
			"names; initiators log in there once, by --portal, or use the path that they have to it. On the LUN\n" +
			"of another target they stay LUNs of this server, which is a proxy to it. " + loginHelp + "\n" +
			"Rates are in bytes a second, or have a unit (KiB, MiB, GiB).",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			r.Volume, r.To = args[0], args[1]
			if r.Rate, err = parseRate(rate); err != nil {
				return fmt.Errorf("--rate: %w", err)
			}
			if r.Throttle, err = parseRate(throttle); err != nil {
				return fmt.Errorf("--throttle: %w", err)
			}
			if err := checkPortal(r.Portal, r.To); err != nil {
				return err
			}
			if r.Login, err = login.login(r.To, &o); err != nil {
				return err
			}
			if conf.IsISCSI(r.To) {
				if r.To, err = conf.ParseISCSI(r.To); err != nil {
					return usagef("%v", err)
				}
			}
			return actOnMigration(cmd, &o, "begun; odx volume migrate list says how far it is", func(ctx context.Context, live admin.Live) (admin.Migration, error) {
				return live.StartMigration(ctx, r)
			})
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().BoolVar(&r.Overwrite, "overwrite", false, "move to a view, to a volume that is there, or to a LUN that has data: what it has is lost")
	cmd.Flags().StringVar(&r.Portal, "portal", "", "`HOST:PORT` of the peer, to which initiators are redirected after the move")
	login.addFlags(cmd)
	cmd.Flags().StringVar(&rate, "rate", "", "bound on the copying, in `BYTES` a second")
	cmd.Flags().StringVar(&throttle, "throttle", "", "bound on what initiators do once rounds do not become shorter, in `BYTES` a second")
	return cmd
}

// parseRate reads a rate; "" is none.
func parseRate(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	return parseSize(text)
}

// checkPortal returns what is wrong with the portal of a migration; "" is none.
func checkPortal(portal, to string) error {
	if portal == "" {
		return nil
	}
	if !strings.Contains(to, ":") || conf.IsISCSI(to) {
		return usagef("--portal is for another server, and %s is none; write PEER:VOLUME", to)
	}
	if _, err := conf.ParseRemotePortal(portal); err != nil {
		return usagef("--portal %w", err)
	}
	return nil
}

// actOnMigration calls do, and prints the migration with what was done.
func actOnMigration(cmd *cobra.Command, o *adminOptions, what string, do func(ctx context.Context, live admin.Live) (admin.Migration, error)) error {
	return withServing(cmd, o, func(ctx context.Context, _ *conf.Config, live admin.Live) error {
		m, err := do(ctx, live)
		if err != nil {
			return err
		}
		if o.json {
			return printJSON(cmd.OutOrStdout(), api.MigrationV1(m))
		}
		if m.State == admin.MigrationAborting {
			what = "the LUNs stay where they are; what was made for it is removed later"
			if m.Problem != "" {
				what += ": " + printable(m.Problem)
			}
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "migration of volume %s to %s: %s\n", m.Volume, m.To, what)
		return err
	})
}

func newMigrateList() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"status"},
		Short:   "List the migrations",
		Long: "List the migrations, those that have ended too until they are finished. LEFT is what the current\n" +
			"round has to copy yet, and TIME the estimate for it, as far as they are known. CUT is how long\n" +
			"commands were held when the LUNs moved.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServing(cmd, &o, func(ctx context.Context, _ *conf.Config, live admin.Live) error {
				list, err := live.Migrations(ctx)
				switch {
				case err != nil:
					return err
				case o.json:
					return printJSON(cmd.OutOrStdout(), each(list, api.MigrationV1))
				}
				return printMigrations(cmd.OutOrStdout(), list)
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printMigrations(w io.Writer, list []admin.Migration) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "VOLUME\tTO\tSTATE\tSIZE\tROUNDS\tCOPIED\tLEFT\tMiB/s\tTIME\tCUT\tPROBLEM")
	for _, m := range list {
		state, left, remaining, cut := string(m.State), "-", "-", "-"
		if m.State == admin.MigrationCopying {
			if m.RoundBytes > 0 { // known: of a peer, from its first answer on
				left = conf.FormatSize(max(m.RoundBytes-m.RoundCopied, 0))
			}
			if m.Remaining > 0 { // it is not known before the first bytes are there
				remaining = m.Remaining.Round(time.Second).String()
			}
			if m.Diverges {
				state += ", diverges"
			}
			if m.Throttled {
				state += ", throttled"
			}
		}
		if m.Cut > 0 {
			cut = latencyText(m.Cut)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%.1f\t%s\t%s\t%s\n", m.Volume, m.To, state, conf.FormatSize(m.SizeBytes), m.Rounds,
			conf.FormatSize(m.CopiedBytes+m.RoundCopied), left, float64(m.BytesPerSecond)/(1<<20), remaining, cut, orDash(printable(m.Problem)))
	}
	return table.Flush()
}

func newMigrateAbort() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "abort VOLUME",
		Short: "Abort a migration: the LUNs stay where they are",
		Long: "Abort the migration of a volume. Its LUNs stay where they are, and a destination that was created\n" +
			"for the migration is deleted. A migration that has moved its LUNs cannot be aborted.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return actOnMigration(cmd, &o, "aborted", func(ctx context.Context, live admin.Live) (admin.Migration, error) {
				return live.AbortMigration(ctx, args[0])
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func newMigrateFinish() *cobra.Command {
	var o adminOptions
	var keep bool
	cmd := &cobra.Command{
		Use:   "finish VOLUME",
		Short: "Forget a migration that has ended, and delete the volume that its LUNs have left",
		Long: "Forget a migration that has ended. If it has moved its LUNs, VOLUME is the one that they have left: it\n" +
			"is deleted, unless --keep-source is given.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return actOnMigration(cmd, &o, "finished", func(ctx context.Context, live admin.Live) (admin.Migration, error) {
				return live.FinishMigration(ctx, args[0], keep)
			})
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().BoolVar(&keep, "keep-source", false, "the volume stays")
	return cmd
}
