package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/conf"
)

func newSession() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "session",
		Short: "List and end the sessions of initiators",
		Long:  "List and end the sessions of initiators. The commands need a server.",
	}
	cmd.AddCommand(newSessionList(), newSessionEnd())
	return cmd
}

func newSessionList() *cobra.Command {
	var o adminOptions
	var long bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the sessions, the oldest first",
		Long: "List the sessions, the oldest first. TSIH is their number. COMMANDS are outstanding; the other figures\n" +
			"are per second in the last minute. --long prints all that is known of each: alias, addresses,\n" +
			"portal, LUNs, negotiated keys with digests, and latencies.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			print := printSessions
			if long {
				print = printSessionsLong
			}
			return queryServer(cmd, &o, func(ctx context.Context, c *api.Client) ([]admin.Session, error) { return c.Sessions(ctx) }, api.SessionsV1, print)
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().BoolVarP(&long, "long", "l", false, "print all that is known of each session")
	return cmd
}

// perMinute is the number of seconds that figures of the last minute are of.
const perMinute = 60

func printSessions(w io.Writer, list []admin.Session) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TSIH\tINITIATOR\tADDRESS\tTARGET\tLUNS\tUSER\tSINCE\tCOMMANDS\tIOPS\tMiB/s\tMEAN")
	for i := range list {
		s := &list[i]
		target := s.Target
		if target == "" {
			target = discovery
		}
		if s.LoggingOut {
			target += " (asked to log out)"
		}
		m := s.LastMinute
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%d\t%s\t%s\t%d\t%.0f\t%.1f\t%s\n", s.TSIH, s.Initiator, strings.Join(s.Addresses, " "), target, len(s.LUNs), orDash(s.User),
			s.Since.Local().Format(time.DateTime), s.Commands, float64(m.Commands)/perMinute, float64(m.Bytes)/perMinute/(1<<20), latencyText(m.Mean))
	}
	return table.Flush()
}

// printSessionsLong prints a paragraph for each session.
func printSessionsLong(w io.Writer, list []admin.Session) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := range list {
		s := &list[i]
		if i > 0 {
			fmt.Fprintln(table)
		}
		for _, line := range sessionLines(s) {
			fmt.Fprintf(table, "%s\t%s\n", line[0], printable(line[1]))
		}
	}
	return table.Flush()
}

// sessionLines returns all that is known of a session, as names and values.
func sessionLines(s *admin.Session) [][2]string {
	lines := [][2]string{
		{"session", fmt.Sprintf("%d (ISID %s)", s.TSIH, s.ISID)},
		{"initiator", s.Initiator},
		{"alias", orDash(s.Alias)},
		{"target", s.Target},
		{"portal", fmt.Sprintf("%s, group %d", s.Portal, s.PortalGroup)},
		{"user", orDash(s.User)},
		{"since", s.Since.Local().Format(time.DateTime)},
	}
	if s.Target == "" {
		lines[3][1] = discovery
	}
	if s.LoggingOut {
		lines = append(lines, [2]string{"state", "asked to log out"})
	}
	for i, a := range s.Addresses {
		lines = append(lines, [2]string{"connection", fmt.Sprintf("%d from %s", i, a)})
	}
	for _, l := range s.LUNs {
		access := ""
		if l.ReadOnly {
			access = ", read-only"
		}
		lines = append(lines, [2]string{"LUN", fmt.Sprintf("%d %s%s", l.Number, l.Medium, access)})
	}
	for _, key := range slices.Sorted(maps.Keys(s.Negotiated)) {
		lines = append(lines, [2]string{"key", key + "=" + s.Negotiated[key]})
	}
	return append(lines, [2]string{"commands", fmt.Sprintf("%d outstanding", s.Commands)},
		[2]string{"last minute", trafficText(&s.LastMinute)}, [2]string{"total", trafficText(&s.Total)})
}

// trafficText describes the traffic of a session.
func trafficText(t *admin.SessionTraffic) string {
	return fmt.Sprintf("%d commands, %s, %d errors, latency %s (99 %%: %s)", t.Commands, bytesText(int64(t.Bytes)), t.Errors, latencyText(t.Mean), latencyText(t.P99))
}

func newSessionEnd() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "end TSIH",
		Short: "Ask an initiator to log out, and end its session",
		Long: "Ask an initiator to log out, and end its session when it has, or after a while. TSIH is the number\n" +
			"that odx session list prints. Most initiators log in again at once: to keep one out, use odx\n" +
			"access or odx user first.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			tsih, err := strconv.ParseUint(args[0], 10, 16)
			if err != nil || tsih == 0 {
				return usagef("invalid session %q; use the number (TSIH) that odx session list prints", args[0])
			}
			return withServing(cmd, &o, func(ctx context.Context, _ *conf.Config, live admin.Live) error {
				err := live.EndSession(ctx, uint16(tsih))
				if errors.Is(err, admin.ErrNoSession) {
					return fmt.Errorf("session %d: %w", tsih, err)
				}
				if err != nil {
					return err
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), map[string]uint64{"ended": tsih})
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "session %d: asked to log out\n", tsih)
				return err
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}
