package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	v1 "odx/api/v1"
	"odx/conf"
	"odx/pool"
)

// statusPatience is how long odx status waits for a server: between the two processes of a
// handover there is none for a moment.
const statusPatience = time.Second

func newStatus() *cobra.Command {
	var o adminOptions
	var ready bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Print how a server is, what it serves, and which initiators are logged in",
		Long: "Print the health of the server of a store with what is to be done, its space, portals, LUNs and\n" +
			"sessions, on one screen; --json prints all of them.\n\n" +
			"The exit status is 0 if the server is healthy, 1 if it is degraded or failing, 3 if stored data\n" +
			"is damaged, and 5 where no server answers. With --ready it is 0 while LUNs are served, degraded\n" +
			"or not, as /readyz says.\n\n" +
			"On a machine that waits for a store in a pool it prints which machine has the store, and since\n" +
			"which epoch, with exit status 8.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := fetchStatus(cmd, &o)
			if waiting, ok := errors.AsType[*waitingError](err); ok {
				return printWaiting(cmd.OutOrStdout(), waiting, o.json)
			}
			if err != nil {
				return err
			}
			if o.json {
				err = printJSON(cmd.OutOrStdout(), api.StatusV1(st))
			} else {
				err = printStatus(cmd.OutOrStdout(), &st)
			}
			if err != nil {
				return err
			}
			if ready {
				return readiness(&st)
			}
			return verdict(&st)
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().BoolVar(&ready, "ready", false, "exit status 0 if the server is ready, also if it is degraded")
	return cmd
}

// fetchStatus asks the server of a store. It never opens the store: a server could start in
// the meantime.
func fetchStatus(cmd *cobra.Command, o *adminOptions) (st admin.Status, err error) {
	if o.api != "" {
		err = administerRemotely(cmd, o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
			st, err = a.Status(ctx)
			return err
		})
		return st, err
	}
	cfg, err := o.load(cmd)
	if err != nil {
		return st, err
	}
	ctx, release := untilSignal(cmd.Context())
	defer release()
	client := api.NewClient(cfg.LocalDir())
	defer client.Close()
	for end := time.Now().Add(statusPatience); ; {
		st, err = client.Status(ctx)
		if !errors.Is(err, admin.ErrNotRunning) && !errors.Is(err, api.ErrNoAnswer) {
			return st, err
		}
		if time.Now().After(end) {
			return st, noServer(ctx, cfg)
		}
		select {
		case <-ctx.Done():
			return st, ctx.Err()
		case <-time.After(betweenLook):
		}
	}
}

// waitingError is the error of a command that needs a server, on a machine that waits for the
// store.
type waitingError struct {
	place string
	who   pool.Tenure
}

func (e *waitingError) Error() string {
	return fmt.Sprintf("this machine waits for the store in %s: %s", e.place, e.who)
}

func (e *waitingError) Is(target error) bool { return target == admin.ErrNotRunning }

// printWaiting prints the status of a machine that waits for the store.
func printWaiting(w io.Writer, e *waitingError, asJSON bool) (err error) {
	if asJSON {
		err = printJSON(w, v1.StandbyStatus{Health: "standby", Pool: e.place, Epoch: e.who.Epoch, Owner: e.who.Host, OwnerAddress: e.who.Address})
	} else {
		_, err = fmt.Fprintf(w, "standby  of %s: %s\n", e.place, e.who)
	}
	if err != nil {
		return err
	}
	return statusStandby
}

// noServer returns why no server of this machine answers.
func noServer(ctx context.Context, cfg *conf.Config) error {
	if cfg.Pool == nil {
		return &noServerError{cfg.DataDir}
	}
	who, waits, err := standbyInPool(ctx, cfg)
	switch {
	case err != nil:
		return errors.Join(&noServerError{cfg.DataDir}, err)
	case waits:
		return &waitingError{cfg.DataDir, who}
	}
	return fmt.Errorf("%w on this machine: %s", &noServerError{cfg.DataDir}, who)
}

// verdict returns the exit status for the health of a server.
func verdict(st *admin.Status) error {
	switch {
	case len(st.Damage) > 0:
		return statusDamage
	case st.Health() != admin.Healthy:
		return statusFailed
	}
	return nil
}

// readiness returns the exit status for whether a server is ready.
func readiness(st *admin.Status) error {
	if st.Unready() != "" {
		return statusFailed
	}
	return nil
}

// What fits on a screen.
const (
	shownLUNs     = 20
	shownSessions = 10
	shownDamage   = 5
)

func printStatus(w io.Writer, st *admin.Status) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "health\t%s\tprocess %d\n", st.Health(), st.PID)
	for _, c := range st.Conditions() {
		fmt.Fprintf(table, "%s\t%s\t%s\n", c.Severity, c.Name, c.Summary)
	}
	if st.Pool != "" {
		fmt.Fprintf(table, "owner\tof %s\tepoch %d\n", st.Pool, st.Epoch)
	}
	v := &st.Vitals
	fmt.Fprintf(table, "store\t%s free\t%s used\n", humanize.IBytes(uint64(max(v.FreeBytes, 0))), humanize.IBytes(uint64(max(v.UsedBytes, 0))))
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
	printLUNStatuses(table, st.LUNs)
	for i := range st.Sessions[:min(len(st.Sessions), shownSessions)] {
		s := &st.Sessions[i]
		fmt.Fprintf(table, "session\t%s\t%s, from %s, since %s\n", s.Initiator, sessionPlace(s), strings.Join(s.Addresses, " and "), s.Since.Local().Format(time.DateTime))
	}
	printMore(table, "session", len(st.Sessions)-shownSessions, "odx session list prints all")
	for _, d := range st.Damage[:min(len(st.Damage), shownDamage)] {
		fmt.Fprintf(table, "damaged\t%s\t%s\n", d.What, d.Error)
	}
	printMore(table, "damaged", len(st.Damage)+st.MoreDamage-min(len(st.Damage), shownDamage), "odx store info prints them, odx store scrub what they belong to")
	return table.Flush()
}

// printLUNStatuses prints the LUNs that are not served, and then as many others as fit.
func printLUNStatuses(w io.Writer, all []admin.LUNStatus) {
	shown := 0
	for _, l := range all {
		if l.Problem != "" {
			fmt.Fprintf(w, "LUN\t%s/%d\tNOT SERVED: %s\n", l.Target, l.Number, l.Problem)
			shown++
		}
	}
	served := slices.DeleteFunc(slices.Clone(all), func(l admin.LUNStatus) bool { return l.Problem != "" })
	fit := min(len(served), max(shownLUNs-shown, 0))
	for _, l := range served[:fit] {
		note := ""
		if l.ReadOnly {
			note = ", read-only"
		}
		fmt.Fprintf(w, "LUN\t%s/%d\t%s, %s%s\n", l.Target, l.Number, l.Medium, conf.FormatSize(l.SizeBytes), note)
	}
	printMore(w, "LUN", len(served)-fit, "odx target list prints all")
}

// printMore says how many are not shown.
func printMore(w io.Writer, what string, n int, how string) {
	if n > 0 {
		fmt.Fprintf(w, "%s\t%d more\t%s\n", what, n, how)
	}
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
