package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"odx/api"
	v1 "odx/api/v1"
)

func newReplicatePause() *cobra.Command {
	return newReplicatePaused("pause NAME", "Do not bring a replica up to date by itself", "paused", true)
}

func newReplicateResume() *cobra.Command {
	return newReplicatePaused("resume NAME", "Bring a paused replica up to date again", "resumed", false)
}

func newReplicatePaused(use, short, did string, paused bool) *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeReplica(cmd, &o, did, func(ctx context.Context, c *api.Client) (v1.Replica, error) {
				return c.PauseReplica(ctx, args[0], paused)
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func newReplicateFailover() *cobra.Command {
	var o adminOptions
	var r v1.ReplicaFailover
	cmd := &cobra.Command{
		Use:   "failover NAME",
		Short: "Make a replica the source",
		Long: "Make a replica the source: it can be written to, and its LUNs become the disks that those of the source\n" +
			"were. The source is frozen and not served before that, and what was written to it is fetched, so that\n" +
			"nothing is lost. --force takes over without asking the source, which has to be down, or cut off from\n" +
			"initiators: what was written to it since the last round is not here, and two servers that initiators\n" +
			"reach would be one disk with different data. On a former source, the command takes the role back if the\n" +
			"other side has not taken over.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeReplica(cmd, &o, "has failed over", func(ctx context.Context, c *api.Client) (v1.Replica, error) { return c.FailOver(ctx, args[0], r) })
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().BoolVar(&r.Force, "force", false, "without asking the source, which is down")
	cmd.Flags().BoolVar(&r.Reservations, "reservations", false, "take along persistent reservations and mode parameters; with --force, those that a round has brought last")
	return cmd
}

func newReplicateFailback() *cobra.Command {
	var o adminOptions
	var r v1.ReplicaFailback
	cmd := &cobra.Command{
		Use:   "failback NAME",
		Short: "Fetch what changed since a failover, and be the source again",
		Long: "On the server of a former source: keep what it has as a snapshot, make it the replica of the side that\n" +
			"has taken over, fetch what changed there since, and make it the source again by a planned failover.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeReplica(cmd, &o, "is back", func(ctx context.Context, c *api.Client) (v1.Replica, error) { return c.FailBack(ctx, args[0], r) })
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().BoolVar(&r.Stay, "stay", false, "stay the replica of the side that has taken over")
	cmd.Flags().BoolVar(&r.Full, "full", false, "even without a common snapshot")
	cmd.Flags().BoolVar(&r.Reservations, "reservations", false, "take along persistent reservations and mode parameters")
	return cmd
}

func newReplicateForget() *cobra.Command {
	var o adminOptions
	var local bool
	cmd := &cobra.Command{
		Use:   "forget NAME",
		Short: "End a replica; its volume stays",
		Long: "End a replica. Its volume or file stays, and can be written to. On its server, the source forgets it,\n" +
			"too. On the server of the source, for a replica that does not come back, the replica stays as it is: it\n" +
			"is listed as orphaned if its server answers, and otherwise from its next round on.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, &o, func(ctx context.Context, c *api.Client) error {
				if err := c.ForgetReplica(ctx, args[0], local); err != nil {
					return err
				}
				if o.json {
					return nil
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "replica %s forgotten\n", args[0])
				return err
			})
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().BoolVar(&local, "local", false, "even if the other side does not answer")
	return cmd
}
