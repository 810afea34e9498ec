package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/backstore"
	"odx/conf"
)

// adminOptions are the flags of the commands that administer a store.
type adminOptions struct {
	config string
	json   bool
	// api is the URL of a remote server, secret the file with its secret.
	api, secret string
	// looks: without a server, the command opens the store read-only.
	looks bool
	// shard is which of a pool; served: any that this machine serves will do.
	shard  shardNumber
	served bool
}

func addAdminFlags(cmd *cobra.Command, o *adminOptions) {
	addConfigFlag(cmd, &o.config)
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	addAPIFlags(cmd, o)
}

func addAPIFlags(cmd *cobra.Command, o *adminOptions) {
	cmd.Flags().StringVar(&o.api, "api", "", "use the server at `URL` (https://HOST:PORT) instead of one on this machine")
	cmd.Flags().Var(&o.shard, "shard", "use shard `NUMBER` of a pool (default: that of what is named)")
	cmd.Flags().StringVar(&o.secret, "api-secret", "", "`FILE` with the secret of the server at --api")
	cmd.MarkFlagsRequiredTogether("api", "api-secret")
	cmd.MarkFlagsMutuallyExclusive("api", "config")
}

// administration is the action of a command on a store.
type administration func(ctx context.Context, cfg *conf.Config, a admin.Administrator) error

const (
	// betweenLimit is how long a command waits for the server of a store that a process owns:
	// it starts, or hands over.
	betweenLimit = 5 * time.Second
	// betweenLook is how often it looks.
	betweenLook = 20 * time.Millisecond
)

// administer calls do with the server of the store, or with the store itself if there
// is no server. SIGINT and SIGTERM end it.
func administer(cmd *cobra.Command, o *adminOptions, do administration) error {
	if o.api != "" {
		return administerRemotely(cmd, o, do)
	}
	cfg, err := o.load(cmd)
	if err != nil {
		return err
	}
	ctx, release := untilSignal(cmd.Context())
	defer release()
	client := api.NewClient(cfg.LocalDir())
	defer client.Close()
	// Opening the store logs warnings and errors only.
	log, err := newLog(conf.Log{Level: "warn", Format: cfg.Log.Format}, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	open := admin.Inspect
	if o.looks {
		open = admin.InspectReadOnly
	}
	for end := time.Now().Add(betweenLimit); ; {
		if serves(ctx, client) {
			return ofServer(do(ctx, cfg, client))
		}
		err := open(ctx, cfg, log, func(s *admin.Store) error { return do(ctx, cfg, s) })
		if !errors.Is(err, backstore.ErrLocked) || time.Now().After(end) {
			return elsewhere(cfg, err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(betweenLook):
		}
	}
}

// serves reports whether there is a server. One that is about to end does not count.
func serves(ctx context.Context, client *api.Client) bool {
	_, err := client.Status(ctx)
	return !errors.Is(err, admin.ErrNotRunning) && !errors.Is(err, api.ErrNoAnswer)
}

// ofServer explains the error of a command whose server has gone in the middle. The command is
// not begun again: it may have done a part, and read its input.
func ofServer(err error) error {
	if errors.Is(err, admin.ErrNotRunning) {
		return fmt.Errorf("the server has ended or handed over to another process before this was complete (%w)", err)
	}
	return err
}

// administerRemotely calls do with a remote server, whose configuration is not here.
func administerRemotely(cmd *cobra.Command, o *adminOptions, do administration) error {
	secret, _, err := conf.ReadSecretFile(o.secret)
	if err != nil {
		return err
	}
	client, err := api.NewRemoteClient(o.api, secret)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, release := untilSignal(cmd.Context())
	defer release()
	return do(ctx, &conf.Config{}, client)
}

// untilSignal returns a context that SIGINT and SIGTERM cancel.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
}

// query gets something from a server or a store, and prints it as text or as JSON.
func query[T, V any](cmd *cobra.Command, o *adminOptions, get func(a admin.Administrator, ctx context.Context) (T, error),
	toJSON func(T) V, print func(w io.Writer, t T) error,
) error {
	return administer(cmd, o, func(ctx context.Context, _ *conf.Config, a admin.Administrator) error {
		t, err := get(a, ctx)
		if err != nil {
			return err
		}
		if o.json {
			return printJSON(cmd.OutOrStdout(), toJSON(t))
		}
		return print(cmd.OutOrStdout(), t)
	})
}

// each returns what f makes of each item, for JSON: never nil.
func each[T, V any](list []T, f func(T) V) []V {
	out := make([]V, len(list))
	for i := range list {
		out[i] = f(list[i])
	}
	return out
}

// printJSON prints v as JSON.
func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
