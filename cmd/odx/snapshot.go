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

func newSnapshot() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "List snapshots, and run and prune the policies that take them",
		Long: "List snapshots, and run and prune the policies that take them: snapshots of the configuration.\n" +
			"odx volume snapshot makes one by hand, odx volume revert goes back to one, odx volume clone makes\n" +
			"a copy of one that can be written to. The commands need a server.",
	}
	cmd.AddCommand(newSnapshotList(), newSnapshotPolicies(), newSnapshotRun(), newSnapshotPrune(), newSnapshotPause(), newSnapshotResume())
	return cmd
}

func newSnapshotList() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "list [VOLUME]",
		Short: "List the snapshots of all volumes and files, or of one",
		Long: "List the snapshots of all volumes and files, or of one (file:NAME is a file), the oldest of each\n" +
			"first. POLICY is the policy that took it; those without one were made by hand, and no policy\n" +
			"deletes them.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return queryServer(cmd, &o, func(ctx context.Context, c *api.Client) ([]admin.Snapshot, error) {
				return c.Snapshots(ctx, strings.Join(args, ""))
			}, api.SnapshotsV1, printSnapshots)
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printSnapshots(w io.Writer, list []admin.Snapshot) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tVOLUME\tPOLICY\tRUN\tTAKEN\tSIZE")
	for _, s := range list {
		run := "-"
		if s.Run > 0 {
			run = fmt.Sprint(s.Run)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", printable(s.Name), printable(orDash(s.Volume)), orDash(s.Policy), run, timeText(s.Time), conf.FormatSize(s.SizeBytes))
	}
	return table.Flush()
}

// timeText returns a time of this machine's zone; a dash for none.
func timeText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

func newSnapshotPolicies() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "policies",
		Short: "List the policies, when they run, and how the last runs went",
		Long: "List the policies, when they run, and how the last runs went. FAILURES counts the runs since the\n" +
			"last one that did all that it was to. A policy that is \"not configured\" has left the configuration:\n" +
			"its snapshots stay.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return queryServer(cmd, &o, func(ctx context.Context, c *api.Client) ([]admin.PolicyStatus, error) { return c.SnapshotPolicies(ctx) }, api.SnapshotPoliciesV1, printPolicies)
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printPolicies(w io.Writer, list []admin.PolicyStatus) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "POLICY\tSTATE\tSCHEDULE\tNEXT\tLAST SUCCESS\tSNAPSHOTS\tFAILURES\tLAST ERROR")
	for i := range list {
		p := &list[i]
		state := "waits"
		switch {
		case !p.Configured:
			state = "not configured"
		case p.Running:
			state = "runs"
		case p.Paused:
			state = "paused"
		}
		reason, _, _ := strings.Cut(p.LastError, "\n")
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", p.Policy, state, orDash(p.Schedule), timeText(p.Next), timeText(p.LastSuccess), p.Snapshots, p.Failures, printable(orDash(reason)))
	}
	return table.Flush()
}

func newSnapshotRun() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "run POLICY",
		Short: "Take the snapshots of a policy now",
		Long: "Take the snapshots of a policy now, also of one that is paused, with the programs before and after\n" +
			"them, and delete those that it does not keep. The run goes on if this command is interrupted.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, &o, func(ctx context.Context, c *api.Client) error {
				done, err := c.RunPolicy(ctx, args[0])
				if err != nil {
					return err
				}
				if err := printRun(cmd.OutOrStdout(), &o, done); err != nil {
					return err
				}
				if done.Problem != "" {
					return errors.New(done.Problem)
				}
				return nil
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printRun(w io.Writer, o *adminOptions, done admin.PolicyRun) error {
	if o.json {
		return printJSON(w, api.SnapshotRunV1(done))
	}
	var b strings.Builder
	for _, name := range done.Taken {
		fmt.Fprintf(&b, "%s: taken\n", printable(name))
	}
	for _, name := range done.Deleted {
		fmt.Fprintf(&b, "%s: deleted\n", printable(name))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func newSnapshotPrune() *cobra.Command {
	var o adminOptions
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "prune POLICY",
		Short: "Delete the snapshots that a policy does not keep",
		Long: "Delete the snapshots that a policy does not keep, and print why the others stay: REASONS are the\n" +
			"keys of keep. Snapshots that something else needs stay, too. With --dry-run nothing is deleted.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return queryServer(cmd, &o, func(ctx context.Context, c *api.Client) ([]admin.PrunedSnapshot, error) {
				return c.PrunePolicy(ctx, args[0], dryRun)
			}, api.PrunedSnapshotsV1, printPruned)
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "delete nothing; print what would be deleted")
	return cmd
}

func printPruned(w io.Writer, list []admin.PrunedSnapshot) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tVOLUME\tTAKEN\tRESULT\tREASONS")
	for i := range list {
		s := &list[i]
		result, reasons := "stays", strings.Join(s.Reasons, ", ")
		switch {
		case s.Deleted:
			result = "deleted"
		case reasons == "" && s.NeededBy == "":
			result = "would be deleted"
		case reasons == "":
			reasons = "needed by " + s.NeededBy
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", printable(s.Name), printable(orDash(s.Volume)), timeText(s.Time), result, printable(orDash(reasons)))
	}
	return table.Flush()
}

func newSnapshotPause() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "pause POLICY",
		Short: "Have a policy take no snapshots by itself",
		Long: "Have a policy take no snapshots by itself, and delete none: pause: true of the configuration. odx\n" +
			"snapshot run takes them nevertheless.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return editConfig(cmd, &o, "policy "+args[0]+": paused", conf.PauseSnapshots{Policy: args[0], Pause: true})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func newSnapshotResume() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "resume POLICY",
		Short: "Have a policy that was paused take snapshots again",
		Long: "Have a policy that was paused take snapshots again. What it has missed since is made up for by\n" +
			"one run, at once.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return editConfig(cmd, &o, "policy "+args[0]+": resumed", conf.PauseSnapshots{Policy: args[0]})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

// checkHooks returns the programs of policies that would not be run.
func checkHooks(cfg *conf.Config) error {
	var problems conf.Problems
	for i := range cfg.Snapshots {
		p := &cfg.Snapshots[i]
		for key, h := range map[string]*conf.Hook{"before": p.Before, "after": p.After} {
			if h == nil {
				continue
			}
			if err := conf.CheckHook(h.Command[0]); err != nil {
				problems = append(problems, cfg.Problem(p.Key+"."+key, "policy %s: %v", p.Name, err))
			}
		}
	}
	if problems == nil {
		return nil
	}
	return problems
}

// policyNames returns the policies of the server.
func policyNames(ctx context.Context, a admin.Administrator, _ []string) ([]string, error) {
	p, ok := a.(admin.SnapshotPolicies)
	if !ok {
		return nil, admin.ErrNotRunning
	}
	list, err := p.SnapshotPolicies(ctx)
	var names []string
	for i := range list {
		if list[i].Configured {
			names = append(names, list[i].Policy+"\t"+list[i].Schedule)
		}
	}
	return names, err
}
