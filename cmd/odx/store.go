package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"odx/api"
	"odx/conf"
	"odx/target"
)

func newStore() *cobra.Command {
	cmd := &cobra.Command{Use: "store", Short: "Look at an extent store"}
	cmd.AddCommand(newStoreInfo())
	return cmd
}

func newStoreInfo() *cobra.Command {
	var config string
	asJSON := false
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Print volumes, bytes, deduplication and tokens of a store",
		Long: "Print volumes, logical and physical bytes, the deduplication ratio and tokens.\n" +
			"A store that is being served is asked about through its server.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(serveOptions{config: config})
			if err != nil {
				return err
			}
			store, served, err := describe(cmd.Context(), cfg, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if asJSON {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(store)
			}
			return printStore(cmd.OutOrStdout(), cfg, store, served)
		},
	}
	addConfigFlag(cmd, &config)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// describe asks the server of the store, or opens the store if there is none.
func describe(ctx context.Context, cfg *conf.Config, stderr io.Writer) (_ api.Store, served bool, err error) {
	client := api.NewClient(cfg.DataDir)
	defer client.Close()
	s, err := client.Store(ctx)
	if !errors.Is(err, api.ErrNotRunning) {
		return s, true, err
	}
	// What the store says while it opens matters only when it is wrong.
	log, err := newLog(conf.Log{Level: "warn", Format: cfg.Log.Format}, stderr)
	if err != nil {
		return api.Store{}, false, err
	}
	err = target.Inspect(ctx, cfg, log, func(service *target.Service) (err error) {
		s, err = api.Describe(ctx, service.Store(), service.Tokens())
		return err
	})
	return s, false, err
}

func printStore(w io.Writer, cfg *conf.Config, s api.Store, served bool) error {
	by := "not being served"
	if served {
		by = "being served"
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "store\t%s\t%s\n", cfg.DataDir, by)
	for _, v := range s.Volumes {
		fmt.Fprintf(table, "volume\t%s\t%s, %s written\n", v.Name, conf.FormatSize(v.SizeBytes), humanize.IBytes(uint64(v.MappedBytes)))
	}
	fmt.Fprintf(table, "logical\t%s\twritten to volumes\n", humanize.IBytes(uint64(s.LogicalBytes)))
	fmt.Fprintf(table, "live\t%s\tof extents that volumes and tokens refer to\n", humanize.IBytes(uint64(s.LiveBytes)))
	fmt.Fprintf(table, "physical\t%s\ton disk\n", humanize.IBytes(uint64(s.PhysicalBytes)))
	fmt.Fprintf(table, "dedup\t%.2f\tlogical bytes for a live one\n", s.DedupRatio)
	fmt.Fprintf(table, "tokens\t%d\tstand for %s\n", s.Tokens.Count, humanize.IBytes(uint64(s.Tokens.PinnedBytes)))
	return table.Flush()
}
