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
		Short: "Give a store of an older version the format of this one",
		Long: "Give a store that an older version of odx made the format of this one. Nothing may be\n" +
			"using the store. It is proved as odx store check does before the step is taken, which is one\n" +
			"rename: a power cut, or Ctrl-C, leaves the old format or the new one. There is no way back, so\n" +
			"copy the store first if the older version may be needed again; docs/formats.md says which\n" +
			"version reads what.\n\n" +
			"Its metadata is written once more, next to the old one.",
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
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "the store in %s has format %d already\n", cfg.DataDir, u.To)
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "the store in %s has format %d now, had %d\n", cfg.DataDir, u.To, u.From)
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
		Short: "Make a copy of a store another store",
		Long: "Give a store that was copied (cp -a, a snapshot of its file system) an identity of its own:\n" +
			"initiators see its LUNs as other disks than those of the store that it is a copy of, and its\n" +
			"tokens are foreign there. Nothing may be using the store. Tokens that clients hold of it end;\n" +
			"data, volumes, reservations and saved mode pages stay. It takes no time.\n\n" +
			"With --keep, for a store that was moved, the identity stays, and odx stops warning.",
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

// storeOptions are the flags of commands for a store that nothing serves.
type storeOptions struct {
	config string
	json   bool
}

func (o *storeOptions) addFlags(cmd *cobra.Command) {
	addConfigFlag(cmd, &o.config)
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
}

// run does it. SIGINT and SIGTERM end it.
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
