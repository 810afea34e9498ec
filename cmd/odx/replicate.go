package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	v1 "odx/api/v1"
)

func newReplicate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replicate",
		Short: "Keep volumes and files the same as those of other servers",
		Long: "Keep volumes and files the same as those of other servers, which the configuration names as peers.\n" +
			"A replica is read-only until a failover makes it the source. The commands need a server.\n" +
			"docs/replication.md explains them.",
	}
	cmd.AddCommand(newReplicateStart(), newReplicateRun(), newReplicateList(), newReplicateStatus(), newReplicatePause(), newReplicateResume(),
		newReplicateFailover(), newReplicateFailback(), newReplicateForget())
	return cmd
}

// errNoReplicas: what a command talks to is no server.
var errNoReplicas = errors.New("replicas need a server")

// changeReplica is a command that changes one replica, and prints what it is then.
func changeReplica(cmd *cobra.Command, o *adminOptions, did string, do func(ctx context.Context, c *api.Client) (v1.Replica, error)) error {
	return withClient(cmd, o, func(ctx context.Context, c *api.Client) error {
		r, err := do(ctx, c)
		if err != nil {
			return err
		}
		if o.json {
			return printJSON(cmd.OutOrStdout(), r)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "replica %s %s; %s\n", r.Name, did, replicaText(&r))
		return err
	})
}

func newReplicateStart() *cobra.Command {
	var o adminOptions
	var r v1.ReplicaStart
	cmd := &cobra.Command{
		Use:   "start PEER SOURCE NAME",
		Short: "Make a volume or file follow one of a peer, and fetch it",
		Long: "Make a replica called NAME of SOURCE, a volume of PEER, or file:NAME for a file. It is visible, as a\n" +
			"volume or file called NAME, or --to, when the first round has fetched all of it. Further rounds are by\n" +
			"odx replicate run, or by an entry of that name in replicas of the configuration.",
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Peer, r.Source, r.Name = args[0], args[1], args[2]
			return changeReplica(cmd, &o, "started", func(ctx context.Context, c *api.Client) (v1.Replica, error) { return c.StartReplica(ctx, r) })
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().StringVar(&r.To, "to", "", "`NAME` of the volume or file here (default: that of the replica)")
	return cmd
}

func newReplicateRun() *cobra.Command {
	var o adminOptions
	var r v1.ReplicaRun
	cmd := &cobra.Command{
		Use:   "run NAME",
		Short: "Bring a replica up to date",
		Long: "Bring a replica up to date, also a paused one. --full does it although the source and the replica have\n" +
			"no snapshot in common any more; what this store ever had from the source is not transferred again.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeReplica(cmd, &o, "is up to date", func(ctx context.Context, c *api.Client) (v1.Replica, error) { return c.RunReplica(ctx, args[0], r) })
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().BoolVar(&r.Full, "full", false, "even without a common snapshot")
	return cmd
}

func newReplicateList() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List replicas, and what replicas of peers follow",
		Long: "List replicas, and the volumes and files that replicas of peers follow. ROLE is what this server has:\n" +
			"replica, source, or former: a source from which a peer has taken over. LAG is how long ago the source\n" +
			"had what the replica has.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return queryServer(cmd, &o, func(ctx context.Context, c *api.Client) ([]v1.Replica, error) { return c.Replicas(ctx) }, asIs, printReplicas)
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printReplicas(w io.Writer, list []v1.Replica) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tROLE\tOBJECT\tPEER\tPEER'S\tLAG\tSTATE")
	for i := range list {
		r := &list[i]
		lag := "-"
		if r.Role == "replica" && r.Point != "" {
			lag = lagText(r)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, r.Role, r.Object, r.Peer, r.PeerObject, lag, printable(replicaState(r)))
	}
	return table.Flush()
}

func lagText(r *v1.Replica) string {
	return time.Duration(r.LagSeconds * float64(time.Second)).Round(time.Second).String()
}

// replicaState says in words what a replica is doing, or what is wrong with it.
func replicaState(r *v1.Replica) string {
	switch {
	case r.Running && r.Now.ObjectBytes > 0:
		return fmt.Sprintf("running: %s of %s compared, %s fetched, at most %s left", bytesText(r.Now.ComparedBytes), bytesText(r.Now.ObjectBytes), bytesText(r.Now.FetchedBytes), bytesText(r.Now.LeftBytes))
	case r.Running:
		return "running"
	case r.Orphan:
		return "orphaned: the peer has forgotten it; odx replicate forget " + r.Name
	case r.Role == "former":
		return "not served: the peer has taken over"
	case r.Role == "source" && r.Untold && r.Epoch > 1:
		return "the former source does not know yet"
	case r.Role == "source":
		return "followed"
	case r.Last != nil && r.Last.Error != "":
		return "failed: " + r.Last.Error
	case r.Paused:
		return "paused"
	case r.Point == "":
		return "not received yet"
	case !r.Scheduled:
		return "up to date as of LAG; rounds are by hand"
	}
	return "up to date as of LAG"
}

// replicaText describes a replica in a few words.
func replicaText(r *v1.Replica) string {
	text := fmt.Sprintf("this side is the %s, %s", r.Role, r.Object)
	if r.Role == "replica" && r.Last != nil {
		b := r.Last.Bytes
		text += fmt.Sprintf("; the last round found %s that differ, and transferred %s", bytesText(b.DifferBytes), bytesText(b.NetworkBytes))
	}
	return text + adoptedText(r.Adopted)
}

// adoptedText says what a failover has taken along of reservations; nil: it was not to.
func adoptedText(a *v1.ReplicaAdopted) (text string) {
	if a == nil {
		return ""
	}
	if a.AgeSeconds > 0 {
		text = fmt.Sprintf("; its reservations and mode parameters are those that the source had %v ago", (time.Duration(a.AgeSeconds * float64(time.Second))).Round(time.Second))
	}
	if a.DroppedRegistrations > 0 {
		text += fmt.Sprintf("; registrations that were dropped, because the LUN here does not have their target port: %d", a.DroppedRegistrations)
	}
	return text
}

func newReplicateStatus() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "status NAME",
		Short: "Show all that is known of a replica",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return queryServer(cmd, &o, func(ctx context.Context, c *api.Client) (v1.Replica, error) { return c.Replica(ctx, args[0]) }, asIs, printReplica)
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printReplica(w io.Writer, r v1.Replica) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	lines := [][2]string{
		{"replica", r.Name}, {"role", r.Role}, {"object", r.Object}, {"peer", r.Peer}, {"peer's", r.PeerObject}, {"state", replicaState(&r)},
		{"epoch", fmt.Sprint(r.Epoch)}, {"common snapshot", orDash(r.Point)}, {"snapshots kept for it", fmt.Sprint(r.Pinned)}, {"identity of the source's LUN", orDash(r.Identity)},
	}
	if r.Role == "replica" && r.Point != "" {
		lines = append(lines, [2]string{"lag", lagText(&r)})
	}
	if !r.Succeeded.IsZero() {
		lines = append(lines, [2]string{"last success", r.Succeeded.Local().Format(time.DateTime)})
	}
	lines = append(lines, [2]string{"since the start", fmt.Sprintf("%d rounds, %d failed; %s fetched, %s transferred", r.Rounds, r.Failures, bytesText(r.Fetched), bytesText(r.Crossed))})
	for _, l := range lines {
		fmt.Fprintf(table, "%s\t%s\n", l[0], printable(l[1]))
	}
	return table.Flush()
}

// replicas are the names of replicas, for completion.
func replicas(ctx context.Context, a admin.Administrator, _ []string) ([]string, error) {
	c, ok := a.(*api.Client)
	if !ok {
		return nil, errNoReplicas
	}
	list, err := c.Replicas(ctx)
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].Name
	}
	return names, err
}
