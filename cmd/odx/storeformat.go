package main

import (
	"context"
	"fmt"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/conf"
)

func newStoreUpgrade() *cobra.Command {
	var o storeOptions
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Upgrade a store of an older version to the format of this one",
		Long: "Upgrade a store of an older version of odx to the format of this one. The store may not be in\n" +
			"use. It is checked first, as by odx store check; then one rename exchanges the metadata, so\n" +
			"that a power cut or Ctrl-C leaves the old format or the new one. There is no way back: copy the\n" +
			"store first if the older version may be needed again. docs/formats.md lists which version\n" +
			"reads which format.\n\n" +
			"The new metadata needs space next to the old one.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd, func(ctx context.Context, cfg *conf.Config, log *logrus.Entry) error {
				u, err := admin.Upgrade(ctx, cfg, log)
				if err != nil {
					return err
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), api.UpgradedV1(u))
				}
				if u.From == u.To {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "the store in %s already has format %d\n", cfg.DataDir, u.To)
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "the store in %s now has format %d, before %d\n", cfg.DataDir, u.To, u.From)
				return err
			})
		},
	}
	o.addFlags(cmd)
	return cmd
}

func newStoreIdentity() *cobra.Command {
	var o storeOptions
	keep := false
	cmd := &cobra.Command{
		Use:   "new-identity",
		Short: "Give a copied store an identity of its own",
		Long: "Give a store that was copied (cp -a, a snapshot of its file system) an identity of its own:\n" +
			"for initiators, its LUNs are other disks than those of the original store, and neither store\n" +
			"accepts tokens of the other. The store may not be in use. Its tokens end; data, volumes,\n" +
			"reservations and saved mode pages stay. The data is not read.\n\n" +
			"With --keep, for a store that was moved, the identity stays, and odx no longer warns.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd, func(ctx context.Context, cfg *conf.Config, log *logrus.Entry) error {
				id, err := admin.SetIdentity(ctx, cfg, log, keep)
				if err != nil {
					return err
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), map[string]string{"identity": fmt.Sprintf("%x", id)})
				}
				text := "the store in %s has a new identity, by which initiators know its LUNs: %x\n"
				if keep {
					text = "the store in %s keeps its identity, by which initiators know its LUNs: %x\n"
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), text, cfg.DataDir, id)
				return err
			})
		},
	}
	o.addFlags(cmd)
	cmd.Flags().BoolVar(&keep, "keep", false, "the store was moved here: keep its identity")
	return cmd
}

// storeOptions are the flags of commands for a store that is not being served.
type storeOptions struct {
	config string
	json   bool
}

func (o *storeOptions) addFlags(cmd *cobra.Command) {
	addConfigFlag(cmd, &o.config)
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
}

// run runs do. SIGINT and SIGTERM cancel it.
func (o *storeOptions) run(cmd *cobra.Command, do func(context.Context, *conf.Config, *logrus.Entry) error) error {
	cfg, err := loadConfig(serveOptions{config: o.config})
	if err != nil {
		return err
	}
	log, err := newLog(conf.Log{Level: "warn", Format: cfg.Log.Format}, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	ctx, release := untilSignal(cmd.Context())
	defer release()
	return do(ctx, cfg, log)
}
