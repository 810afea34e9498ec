package main

import (
	"context"
	"errors"
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

func newStatus() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Print what the server serves, and which initiators are logged in",
		Long: "Print portals, LUNs and sessions of the server of a store. The exit status is 5 where no server\n" +
			"runs.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return administer(cmd, &o, func(ctx context.Context, cfg *conf.Config, a admin.Administrator) error {
				st, err := a.Status(ctx)
				if errors.Is(err, admin.ErrNotRunning) {
					return &noServerError{cfg.DataDir}
				}
				if err != nil {
					return err
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), api.StatusV1(st))
				}
				return printStatus(cmd.OutOrStdout(), &st)
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printStatus(w io.Writer, st *admin.Status) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range st.Portals {
		fmt.Fprintf(table, "portal\t%s\n", p)
	}
	for _, p := range st.MissingPortals {
		fmt.Fprintf(table, "portal\t%s\tNOT SERVED YET: %s\n", p.Address, p.Problem)
	}
	if st.HandoversFailed > 0 {
		fmt.Fprintf(table, "handover\t%d failed\t%s\n", st.HandoversFailed, st.HandoverError)
	}
	if st.Standbys > 0 {
		fmt.Fprintf(table, "standby\t%d\twaiting to take over\n", st.Standbys)
	}
	for _, l := range st.LUNs {
		note := ""
		if l.ReadOnly {
			note = ", read-only"
		}
		if l.Problem != "" {
			fmt.Fprintf(table, "LUN\t%s/%d\tNOT SERVED: %s\n", l.Target, l.Number, l.Problem)
			continue
		}
		fmt.Fprintf(table, "LUN\t%s/%d\t%s, %s%s\n", l.Target, l.Number, l.Medium, conf.FormatSize(l.SizeBytes), note)
	}
	for i := range st.Sessions {
		s := &st.Sessions[i]
		fmt.Fprintf(table, "session\t%s\t%s, from %s, since %s\n", s.Initiator, sessionPlace(s), strings.Join(s.Addresses, " and "), s.Since.Local().Format(time.DateTime))
	}
	for _, d := range st.Damage {
		fmt.Fprintf(table, "damaged\t%s\t%s\n", d.What, d.Error)
	}
	if st.MoreDamage > 0 {
		fmt.Fprintf(table, "damaged\t%d more\t\n", st.MoreDamage)
	}
	return table.Flush()
}

// sessionPlace returns the target and the LUNs of a session.
func sessionPlace(s *admin.Session) string {
	if s.Target == "" {
		return "discovery"
	}
	numbers := make([]string, len(s.LUNs))
	for i, l := range s.LUNs {
		numbers[i] = fmt.Sprint(l.Number)
	}
	return s.Target + " LUN " + strings.Join(numbers, ",")
}
