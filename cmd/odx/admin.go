package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"odx/api"
	"odx/conf"
	"odx/target"
)

// adminOptions are the flags of every command that administers a store.
type adminOptions struct {
	config string
	json   bool
}

func addAdminFlags(cmd *cobra.Command, o *adminOptions) {
	addConfigFlag(cmd, &o.config)
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
}

// administration is what a command does to a store.
type administration func(ctx context.Context, cfg *conf.Config, a api.Administrator) error

// administer does it through the server of the store, or opens the store if
// there is none. SIGINT and SIGTERM end it.
func administer(cmd *cobra.Command, o *adminOptions, do administration) error {
	cfg, err := loadConfig(serveOptions{config: o.config})
	if err != nil {
		return err
	}
	ctx, release := untilSignal(cmd.Context())
	defer release()
	client := api.NewClient(cfg.DataDir)
	defer client.Close()
	if err := do(ctx, cfg, client); !errors.Is(err, api.ErrNotRunning) {
		return err
	}
	// What the store says while it opens matters only when it is wrong.
	log, err := newLog(conf.Log{Level: "warn", Format: cfg.Log.Format}, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	return target.Inspect(ctx, cfg, log, func(s *target.Service) error {
		return do(ctx, cfg, api.NewLocal(s))
	})
}

// untilSignal returns a context that SIGINT and SIGTERM end.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
}

// printJSON prints v for programs.
func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
