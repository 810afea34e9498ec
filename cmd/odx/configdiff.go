package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/conf"
)

func newConfigDiff() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "diff [FILE]",
		Short: "Print what a reload would change in the running server",
		Long: "Print what a reload would change in the running server if FILE were its configuration; without\n" +
			"FILE, what a reload of its configuration file would change now. Each change is a line: the key,\n" +
			"both values, with secrets masked, and when it applies. Nothing is changed.\n\n" +
			"Exit status: 0 for no difference, 6 if a reload applies the changes, 7 if one of them needs a\n" +
			"restart, so that a reload refuses all; 1 for errors, also a FILE with problems.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withServing(cmd, &o, func(ctx context.Context, cfg *conf.Config, live admin.Live) error {
				next := cfg
				if len(args) > 0 {
					var err error
					if next, err = conf.Load(args[0]); err != nil {
						return err
					}
				} else if o.api != "" {
					return usagef("give FILE with --api: the file of the server is not here")
				}
				changes, err := live.CompareConfig(ctx, next.Text())
				if err != nil {
					return err
				}
				if err := printChanges(cmd.OutOrStdout(), o.json, changes); err != nil {
					return err
				}
				return diffStatus(changes)
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

// printChanges prints the changes of a configuration, a line each.
func printChanges(w io.Writer, json bool, changes []conf.Change) error {
	if json {
		return printJSON(w, api.ConfigChangesV1(changes))
	}
	for _, c := range changes {
		when := c.Class.String()
		if c.Why != "" {
			when += ": " + c.Why
		}
		if _, err := fmt.Fprintf(w, "%s (%s)\n", c, when); err != nil {
			return err
		}
	}
	return nil
}

// diffStatus returns the exit status for changes.
func diffStatus(changes []conf.Change) error {
	if len(changes) == 0 {
		return nil
	}
	for _, c := range changes {
		if c.Class == conf.NeedsRestart {
			return statusRestart
		}
	}
	return statusChanges
}
