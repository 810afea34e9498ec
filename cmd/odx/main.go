// Command odx serves LUNs of a deduplicating extent store over iSCSI, and is
// the client for what can be asked of a store.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"odx/conf"
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
	printError(stderr, err)
	var usage *usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// usageError is a command line that is none: the exit status is 2.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// parseSize is conf.ParseSize for an argument.
func parseSize(text string) (int64, error) {
	n, err := conf.ParseSize(text)
	if err != nil {
		return 0, &usageError{err}
	}
	return n, nil
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "odx",
		Short: "An iSCSI target that copies by token",
		Long: "odx is an iSCSI target whose LUNs live in a deduplicating extent store.\n" +
			"A copy from LUN to LUN by token moves no bytes.",
		Version:       versionText(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newServe(), newStatus(), newStore(), newVolume(), newFile(), newVHD(), newToken(), newCopy(), newDoctor(), newVersion())
	root.InitDefaultCompletionCmd() // otherwise added by Execute, unchecked
	checkUsage(root)
	checkHelp(root)
	return root
}

// checkUsage has every command report a command line that does not fit as a
// usageError: unknown commands, which cobra answers with help and success below the
// first level, unknown flags, and the wrong number of arguments.
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
				return &usageError{fmt.Errorf("%w; usage: %s", err, cmd.UseLine())}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		checkUsage(sub)
	}
}

// checkHelp has the help command report what is no command as a usageError. Cobra answers
// with the help of the last command that there is, and success.
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

// unknownCommand says what there is in the place of a command that is not.
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
	return fmt.Errorf("%s; there are %s", text, strings.Join(names, ", "))
}

// printError says what went wrong: problems of a configuration a line each, in
// the form that editors know, anything else after the program's name.
func printError(w io.Writer, err error) {
	var problem conf.Problem
	var problems conf.Problems
	if errors.As(err, &problem) || errors.As(err, &problems) {
		fmt.Fprintln(w, err)
		return
	}
	text := err.Error()
	if errors.Is(err, context.Canceled) {
		text = strings.ReplaceAll(text, context.Canceled.Error(), errStopped.Error())
	}
	fmt.Fprintf(w, "odx: %s\n", text)
}

// Where a configuration is looked for that no flag names.
const (
	configVariable = "ODX_CONFIG"
	configHere     = "odx.yaml"
	configSystem   = "/etc/odx/odx.yaml"
)

// addConfigFlag gives cmd the flag that names the configuration file.
func addConfigFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "", "configuration `FILE` (default: $"+configVariable+", "+configHere+" here, "+configSystem+")")
}

// configPath returns the configuration file that is meant: the one of the flag, if
// that was given, of the environment, in the working directory, or of the system.
func configPath(flag string) string {
	if path := cmp.Or(flag, os.Getenv(configVariable)); path != "" {
		return path
	}
	if _, err := os.Stat(configHere); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(configSystem); err == nil {
			return configSystem
		}
	}
	return configHere
}
