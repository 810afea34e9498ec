package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	v1 "odx/api/v1"
	"odx/conf"
)

func newStoreHolds() *cobra.Command {
	var o adminOptions
	var end string
	cmd := &cobra.Command{
		Use:   "holds",
		Short: "List what other stores of the pool hold of this one, or end that",
		Long: "List which stores of the pool hold segments of this one: data of them lies there, since a token\n" +
			"was written without moving data. They let go of what they have moved or deleted.\n\n" +
			"--end is for a store that does not come back: it ends all holds of it. If that store is served\n" +
			"again, what it has not moved is lost: reads of it fail.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if end == "" {
				return query(cmd, &o, admin.Administrator.StoreHolds, storeHoldsV1, printStoreHolds)
			}
			return administer(cmd, &o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
				n, err := a.EndStoreHolds(ctx, end)
				if err != nil {
					return err
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), v1.EndedHolds{Segments: n})
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "store %s holds nothing any more: %s\n", end, count(n, "segment"))
				return err
			})
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().StringVar(&end, "end", "", "end the holds of the store with this `ID`, which loses what it has here")
	return cmd
}

func storeHoldsV1(list []admin.StoreHold) []v1.StoreHold {
	all := make([]v1.StoreHold, len(list))
	for i, h := range list {
		all[i] = api.StoreHoldV1(h)
	}
	return all
}

func printStoreHolds(w io.Writer, list []admin.StoreHold) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STORE\tSEGMENTS\tBYTES")
	for _, h := range list {
		fmt.Fprintf(table, "%s\t%d\t%d\n", h.Store, h.Segments, h.Bytes)
	}
	return table.Flush()
}
