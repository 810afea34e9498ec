package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/conf"
	"odx/owner"
)

// liveAction is what a command does to a running server; live is nil if there is none. cfg
// is the configuration on this machine, empty for a server elsewhere.
type liveAction func(ctx context.Context, cfg *conf.Config, live admin.Live) error

// between reports whether an error of a server is that of a time between two processes of
// it: the request was refused, was not sent, or has no answer.
func between(err error) bool {
	for _, e := range []error{admin.ErrChanging, admin.ErrNotRunning, api.ErrNoAnswer} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// withLive calls do with the server of the store, or without one if no process owns the
// store; none begins to while do runs. Between two processes of a server it waits, and calls
// do again.
func withLive(cmd *cobra.Command, o *adminOptions, do liveAction) error {
	if o.api != "" {
		return administerRemotely(cmd, o, func(ctx context.Context, cfg *conf.Config, a admin.Administrator) error {
			return do(ctx, cfg, a.(*api.Client))
		})
	}
	cfg, err := o.load(cmd)
	if err != nil {
		return err
	}
	ctx, release := untilSignal(cmd.Context())
	defer release()
	client := api.NewClient(cfg.LocalDir())
	defer client.Close()
	for end := time.Now().Add(betweenLimit); ; {
		var again bool
		if serves(ctx, client) {
			err = do(ctx, cfg, client)
			again = between(err)
		} else {
			err = unowned(ctx, cfg, func() error { return do(ctx, cfg, nil) })
			again = errors.Is(err, owner.ErrHeld)
		}
		switch {
		case !again:
			return err
		case time.Now().After(end):
			return elsewhere(cfg, ofServer(noAnswer(cfg.DataDir, err)))
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// noAnswer explains the error of a store that a process owns which is no server, or not yet.
func noAnswer(dir string, err error) error {
	if errors.Is(err, owner.ErrHeld) {
		return fmt.Errorf("a process has the store in %s, and does not answer: it starts, stops or is another command; try again (%w)", dir, err)
	}
	return err
}

// pause waits until a command looks again for a server.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(betweenLook):
		return nil
	}
}

// unowned calls do while no process owns the store of a configuration; owner.ErrHeld if one
// does. A store that does not exist has no owner.
func unowned(ctx context.Context, cfg *conf.Config, do func() error) (err error) {
	if cfg.Pool != nil {
		return unownedPlace(ctx, cfg, do)
	}
	claim, err := owner.ReadDirectory(cfg.DataDir).Claim(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return do()
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, claim.Release()) }()
	return do()
}

// withServing is withLive for commands that need a server.
func withServing(cmd *cobra.Command, o *adminOptions, do liveAction) error {
	return withLive(cmd, o, func(ctx context.Context, cfg *conf.Config, live admin.Live) error {
		if live == nil {
			return &noServerError{cfg.DataDir}
		}
		return do(ctx, cfg, live)
	})
}

// withClient is withServing for what only a server knows, as its client returns it.
func withClient(cmd *cobra.Command, o *adminOptions, do func(ctx context.Context, c *api.Client) error) error {
	return withServing(cmd, o, func(ctx context.Context, _ *conf.Config, live admin.Live) error {
		return do(ctx, live.(*api.Client))
	})
}

// queryServer is query for what only a server knows.
func queryServer[T, V any](cmd *cobra.Command, o *adminOptions, get func(ctx context.Context, c *api.Client) (T, error),
	toJSON func(T) V, print func(w io.Writer, t T) error,
) error {
	return withClient(cmd, o, func(ctx context.Context, c *api.Client) error {
		t, err := get(ctx, c)
		switch {
		case err != nil:
			return err
		case o.json:
			return printJSON(cmd.OutOrStdout(), toJSON(t))
		}
		return print(cmd.OutOrStdout(), t)
	})
}

// asIs is the JSON of what is a type of the API already.
func asIs[T any](t T) T { return t }

// readConfig calls do with the configuration that the server has, or the file if there is
// no server.
func readConfig(cmd *cobra.Command, o *adminOptions, do func(w io.Writer, cfg *conf.Config) error) error {
	return withConfig(cmd, o, func(_ context.Context, cfg *conf.Config, _ admin.Live) error { return do(cmd.OutOrStdout(), cfg) })
}

// withConfig is withLive, with the configuration that the server has.
func withConfig(cmd *cobra.Command, o *adminOptions, do liveAction) error {
	return withLive(cmd, o, func(ctx context.Context, cfg *conf.Config, live admin.Live) error {
		if live != nil {
			text, err := live.Config(ctx)
			if err == nil {
				cfg, err = conf.ParseEffective("configuration of the server", text)
			}
			if err != nil {
				return err
			}
		}
		return do(ctx, cfg, live)
	})
}

// editConfig makes edits through the server, or in the file if there is no server. what
// says what is done then.
func editConfig(cmd *cobra.Command, o *adminOptions, what string, edits ...conf.Edit) error {
	var sent sentEdit
	return withLive(cmd, o, func(ctx context.Context, cfg *conf.Config, live admin.Live) error {
		w := cmd.OutOrStdout()
		if live != nil {
			r, err := sent.edit(ctx, live, edits)
			if err != nil {
				return err
			}
			return printEdited(w, o, what, r)
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

// sentEdit sends an edit, again if the connection ended without an answer and the
// configuration is what it was before.
type sentEdit struct{ before []byte } // nil: not sent

func (s *sentEdit) edit(ctx context.Context, live admin.Live, edits []conf.Edit) (admin.Reloaded, error) {
	now, err := live.Config(ctx)
	if err != nil {
		return admin.Reloaded{}, err
	}
	if s.before != nil && !bytes.Equal(s.before, now) {
		return admin.Reloaded{}, errors.New("the server ended or handed over before it answered, and its configuration has changed since: see whether the change is in it (odx config show --running)")
	}
	r, err := live.EditConfig(ctx, edits...)
	if errors.Is(err, api.ErrNoAnswer) {
		s.before = now
	}
	return r, err
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
			o.served = true
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
