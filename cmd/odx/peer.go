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
	v1 "odx/api/v1"
	"odx/tokens"
)

func newPeer() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "peer",
		Short: "Show other servers, and what they have of this one",
		Long:  "Show the other servers of the configuration, and what they have of this one. The commands need a\nserver.",
	}
	cmd.AddCommand(newPeerList(), newPeerHolds())
	return cmd
}

func newPeerList() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the other servers, and whether they answer",
		Long: "List the other servers, and whether they answer; they are asked now. FETCHED is the data that came\n" +
			"from them since the start, MAPPED what was here already and did not have to.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return query(cmd, &o, admin.Administrator.Peers, api.PeersV1, printPeers)
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printPeers(w io.Writer, p admin.Peers) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tSTATE\tFETCHED\tMAPPED\tFAILURES\tSTORE\tADDRESSES")
	for i := range p.Peers {
		x := &p.Peers[i]
		state := "up"
		if !x.Up {
			state = "DOWN"
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%s\t%s\n", x.Name, state, x.FetchedBytes, x.MappedBytes, x.Failures, x.Store, strings.Join(x.Addresses, " "))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for i := range p.Peers {
		if x := &p.Peers[i]; x.Problem != "" {
			if _, err := fmt.Fprintf(w, "%s: %s\n", x.Name, printable(x.Problem)); err != nil {
				return err
			}
		}
	}
	return nil
}

func newPeerHolds() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "holds",
		Short: "List what peers have asked this server to keep for them",
		Long: "List what peers have asked this server to keep for them as it was, while they read it. LEASE is when\n" +
			"the pin goes if the peer says nothing more.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return query(cmd, &o, admin.Administrator.Peers, func(p admin.Peers) []v1.HoldInfo { return api.PeersV1(p).Holds }, printHolds)
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printHolds(w io.Writer, p admin.Peers) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PEER\tOF\tBYTES\tREAD\tSINCE\tLEASE")
	for i := range p.Holds {
		h := &p.Holds[i]
		lease := "in use"
		if h.LeaseMS > 0 {
			lease = (time.Duration(h.LeaseMS) * time.Millisecond).Round(time.Second).String()
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%s\t%s\n", printable(h.Peer), printable(h.Of), h.Bytes, h.ReadBytes, h.Since.Local().Format(time.DateTime), lease)
	}
	return table.Flush()
}

// tokenAnywhere returns a live token of this server, or of a peer that has one with the
// identifier.
func tokenAnywhere(id tokens.ID) func(a admin.Administrator, ctx context.Context) (admin.TokenInfo, error) {
	return func(a admin.Administrator, ctx context.Context) (admin.TokenInfo, error) {
		t, err := a.Token(ctx, id)
		if !errors.Is(err, tokens.ErrUnknown) {
			return t, err
		}
		list, failed := a.PeerTokens(ctx)
		if failed != nil {
			return t, err // there is no server that knows peers
		}
		for _, p := range list {
			for _, t := range p.Tokens {
				if t.ID == id {
					t.Volume = p.Peer + ":" + t.Volume
					return t, nil
				}
			}
		}
		return t, err
	}
}

// tokensEverywhere returns the tokens of this server, and of all peers, whose volumes have the
// name of the peer before theirs.
func tokensEverywhere(warn io.Writer) func(a admin.Administrator, ctx context.Context) ([]admin.TokenInfo, error) {
	return func(a admin.Administrator, ctx context.Context) ([]admin.TokenInfo, error) {
		all, err := a.Tokens(ctx)
		if err != nil {
			return nil, err
		}
		list, err := a.PeerTokens(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			if p.Problem != "" {
				fmt.Fprintf(warn, "peer %s: its tokens are missing: %s\n", p.Peer, printable(p.Problem))
			}
			if p.More > 0 {
				fmt.Fprintf(warn, "peer %s: %d more tokens are not listed\n", p.Peer, p.More)
			}
			for _, t := range p.Tokens {
				t.Volume = p.Peer + ":" + t.Volume
				all = append(all, t)
			}
		}
		return all, nil
	}
}

func newFileToken() *cobra.Command {
	var o tokenOptions
	cmd := &cobra.Command{
		Use:   "token NAME",
		Short: "Create a token that represents a file as it is now",
		Long: "Create a token that represents a file as it is now, and print it, as odx token create file:NAME does:\n" +
			"written to a LUN of this server, or of one that has this server as a peer, it becomes a disk.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.read(admin.FilePrefix + args[0]); err != nil {
				return err
			}
			return o.create(cmd)
		},
	}
	o.addFlags(cmd)
	return cmd
}
