package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/conf"
)

// liveAction is what a command does to a running server. cfg is the configuration on this
// machine, empty for a server elsewhere.
type liveAction func(ctx context.Context, cfg *conf.Config, live admin.Live) error

// withLive calls do with the server of the store. Without one, its calls return
// admin.ErrNotRunning.
func withLive(cmd *cobra.Command, o *adminOptions, do liveAction) error {
	if o.api != "" {
		return administerRemotely(cmd, o, func(ctx context.Context, cfg *conf.Config, a admin.Administrator) error {
			return do(ctx, cfg, a.(*api.Client))
		})
	}
	cfg, err := loadConfig(serveOptions{config: o.config})
	if err != nil {
		return err
	}
	ctx, release := untilSignal(cmd.Context())
	defer release()
	client := api.NewClient(cfg.DataDir)
	defer client.Close()
	return do(ctx, cfg, client)
}

// withServing is withLive for commands that need a server.
func withServing(cmd *cobra.Command, o *adminOptions, do liveAction) error {
	return withLive(cmd, o, func(ctx context.Context, cfg *conf.Config, live admin.Live) error {
		err := do(ctx, cfg, live)
		if errors.Is(err, admin.ErrNotRunning) {
			return &noServerError{cfg.DataDir}
		}
		return err
	})
}

// readConfig calls do with the configuration that the server has, or the file if there is
// no server.
func readConfig(cmd *cobra.Command, o *adminOptions, do func(w io.Writer, cfg *conf.Config) error) error {
	return withLive(cmd, o, func(ctx context.Context, cfg *conf.Config, live admin.Live) error {
		text, err := live.Config(ctx)
		switch {
		case err == nil:
			if cfg, err = conf.Parse("configuration of the server", text); err != nil {
				return err
			}
		case !errors.Is(err, admin.ErrNotRunning):
			return err
		}
		return do(cmd.OutOrStdout(), cfg)
	})
}

// editConfig makes edits through the server, or in the file if there is no server. what
// says what is done then.
func editConfig(cmd *cobra.Command, o *adminOptions, what string, edits ...conf.Edit) error {
	return withLive(cmd, o, func(ctx context.Context, cfg *conf.Config, live admin.Live) error {
		r, err := live.EditConfig(ctx, edits...)
		w := cmd.OutOrStdout()
		switch {
		case err == nil:
			return printEdited(w, o, what, r)
		case !errors.Is(err, admin.ErrNotRunning) || o.api != "":
			return err
		}
		changes, err := editFile(cfg, edits, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		if o.json {
			j := api.ReloadedV1(admin.Reloaded{Changes: changes})
			j.FileOnly = true
			return printJSON(w, j)
		}
		_, err = fmt.Fprintf(w, "%s\nno odx serves the store: only %s was changed, which applies at the next start\n", what, cfg.File)
		return err
	})
}

// editFile makes edits in the configuration file. It refuses a result with problems that
// the file does not have now.
func editFile(cfg *conf.Config, edits []conf.Edit, warnings io.Writer) ([]conf.Change, error) {
	text, err := conf.Apply(cfg.File, cfg.Text(), edits...)
	if err != nil {
		return nil, err
	}
	next, err := conf.Parse(cfg.File, text)
	if err != nil {
		return nil, err
	}
	known, _ := problemsOf(checkConfig(cfg, io.Discard))
	found, _ := problemsOf(checkConfig(next, warnings))
	found = slices.DeleteFunc(found, func(p conf.Problem) bool {
		return slices.ContainsFunc(known, func(k conf.Problem) bool { return k.Message == p.Message })
	})
	if len(found) > 0 {
		for i := range found {
			found[i].File += " (changed)"
		}
		return nil, found
	}
	return conf.Diff(cfg, next), conf.Replace(cfg.File, cfg.Text(), text)
}

// printEdited prints what was done, and what follows from it.
func printEdited(w io.Writer, o *adminOptions, what string, r admin.Reloaded) error {
	if o.json {
		return printJSON(w, api.ReloadedV1(r))
	}
	if _, err := fmt.Fprintln(w, what); err != nil {
		return err
	}
	return printConsequences(w, r)
}

// printConsequences prints what follows from a change of the configuration for initiators.
func printConsequences(w io.Writer, r admin.Reloaded) error {
	var b strings.Builder
	if n := r.LogoutsRequested; n > 0 {
		fmt.Fprintf(&b, "%s asked to log out\n", sessionsText(n))
	}
	if r.Aborted > 0 {
		fmt.Fprintf(&b, "%d LUNs left with commands that did not end in time\n", r.Aborted)
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", warning)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// sessionsText returns "1 session", "2 sessions".
func sessionsText(n int) string {
	if n == 1 {
		return "1 session"
	}
	return fmt.Sprintf("%d sessions", n)
}

func newReload() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the server read its configuration again",
		Long: "Have the server read its configuration again, and apply what has changed, all of it or nothing.\n" +
			"Secrets in files are read again, too. Initiators that lose what they use are asked to log out;\n" +
			"others notice nothing. odx config diff prints what would change. SIGHUP does the same.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServing(cmd, &o, func(ctx context.Context, _ *conf.Config, live admin.Live) error {
				r, err := live.Reload(ctx)
				if err != nil {
					return err
				}
				if o.json {
					return printJSON(cmd.OutOrStdout(), api.ReloadedV1(r))
				}
				return printReloaded(cmd.OutOrStdout(), r)
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

// printReloaded prints the changes that a reload has made.
func printReloaded(w io.Writer, r admin.Reloaded) error {
	var b strings.Builder
	for _, c := range r.Changes {
		fmt.Fprintf(&b, "%s (%s)\n", c, c.Class)
	}
	if len(r.Changes) == 0 {
		b.WriteString("nothing has changed\n")
	} else {
		fmt.Fprintf(&b, "applied in %v\n", r.Took.Round(time.Millisecond/10))
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	return printConsequences(w, r)
}
