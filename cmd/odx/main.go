// Command odx serves LUNs of a deduplicating extent store over iSCSI, and administers
// stores.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"odx/conf"
	"odx/initiator"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	printError(stderr, err)
	return int(statusOf(err))
}

// usageError is an error of the command line: the exit status is 2.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// usagef returns a usageError, formatted as by fmt.Errorf.
func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// parseSize is conf.ParseSize for an argument.
func parseSize(text string) (int64, error) {
	n, err := conf.ParseSize(text)
	if err != nil {
		return 0, &usageError{err}
	}
	return n, nil
}

// parseURL is initiator.ParseURL for an argument.
func parseURL(text string) (initiator.URL, error) {
	u, err := initiator.ParseURL(text)
	if err != nil {
		return initiator.URL{}, &usageError{err}
	}
	return u, nil
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "odx",
		Short: "An iSCSI target that copies by token",
		Long: "odx is an iSCSI target whose LUNs are stored in a deduplicating extent store.\n" +
			"A copy from LUN to LUN by token moves no bytes.",
		Version:       versionText(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddCommand(newServe(), newStatus(), newHandover(), newCluster(), newConfig(), newReload(), newTarget(), newLUN(), newUser(), newAccess(), newSession(), newPeer(), newStore(), newVolume(), newSnapshot(), newFile(), newVHD(), newToken(), newReplicate(), newCopy(), newDoctor(), newVersion())
	root.AddCommand(newSend(), newReceive(), newSupport(), newManual())
	addCompletion(root, completions())
	root.InitDefaultCompletionCmd() // otherwise added by Execute, unchecked
	checkUsage(root)
	checkHelp(root)
	addOutput(root)
	return root
}

// checkUsage makes every command return a usageError for unknown commands, for which
// cobra prints help and succeeds below the first level, unknown flags, and the wrong
// number of arguments.
func checkUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	if cmd.HasSubCommands() {
		cmd.SuggestionsMinimumDistance = 2
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return &usageError{unknownCommand(cmd, args[0])}
		}
	} else if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usagef("%w; usage: %s", err, cmd.UseLine())
			}
			if err := cmd.ValidateFlagGroups(); err != nil { // cobra does so later, as an error of its own
				return &usageError{err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		checkUsage(sub)
	}
}

// checkHelp makes the help command return a usageError for an unknown command. Cobra
// prints the help of the last known one and succeeds.
func checkHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() != "help" {
			continue
		}
		cmd.Args = func(_ *cobra.Command, args []string) error {
			topic, rest, err := root.Find(args)
			if err != nil {
				return &usageError{err}
			}
			if len(rest) > 0 {
				return &usageError{unknownCommand(topic, rest[0])}
			}
			return nil
		}
	}
}

// unknownCommand returns the error for an unknown command, with suggestions.
func unknownCommand(cmd *cobra.Command, name string) error {
	text := fmt.Sprintf("unknown command %q for %q", name, cmd.CommandPath())
	if like := cmd.SuggestionsFor(name); len(like) > 0 {
		return fmt.Errorf("%s; did you mean %s?", text, strings.Join(like, " or "))
	}
	if !cmd.HasSubCommands() {
		return fmt.Errorf("%s; it has no commands", text)
	}
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return fmt.Errorf("%s; the commands are %s", text, strings.Join(names, ", "))
}

// printError prints an error: problems of a configuration a line each, as FILE:LINE:
// MESSAGE, other errors after the program's name.
func printError(w io.Writer, err error) {
	var problem conf.Problem
	var problems conf.Problems
	if errors.As(err, &problem) || errors.As(err, &problems) {
		fmt.Fprintln(w, printableLines(err.Error()))
		return
	}
	text := err.Error()
	if errors.Is(err, context.Canceled) {
		text = strings.ReplaceAll(text, context.Canceled.Error(), errStopped.Error())
	}
	fmt.Fprintf(w, "odx: %s\n", printableLines(text))
}

// addConfigFlag adds the flag for the configuration file to cmd.
func addConfigFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "", "configuration `FILE` (default: $"+conf.Variable+", "+conf.Here+" here, "+conf.System+")")
}
