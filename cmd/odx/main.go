// Command odx serves LUNs of a deduplicating extent store over iSCSI, and is
// the client for what can be asked of a store.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

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
	if err := root.ExecuteContext(ctx); err != nil {
		printError(stderr, err)
		return 1
	}
	return 0
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "odx",
		Short: "An iSCSI target that copies by token",
		Long: "odx is an iSCSI target whose LUNs live in a deduplicating extent store.\n" +
			"A copy from LUN to LUN by token moves no bytes.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newServe(), newStatus(), newStore(), newVolume(), newFile(), newVHD(), newToken(), newCopy(), newDoctor(), newVersion())
	return root
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
	fmt.Fprintf(w, "odx: %v\n", err)
}

// addConfigFlag gives cmd the flag that names the configuration file.
func addConfigFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "odx.yaml", "configuration `FILE`")
}
