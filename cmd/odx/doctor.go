package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"odx/api/doctor"
	v1 "odx/api/v1"
)

func newDoctor() *cobra.Command {
	var scratch, name string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor SRC-URL DST-URL",
		Short: "Find out why a copy between two LUNs is not offloaded",
		Long: "Examine two LUNs, iscsi://[USER%PASSWORD@]HOST[:PORT]/TARGET/LUN, of any target, as an initiator\n" +
			"does before it copies by token, and print what would prevent the copy. Nothing is written, unless\n" +
			"--scratch names a range of the destination that may be overwritten: then a copy is made and\n" +
			"compared. Exit status 4 if a copy would not be offloaded.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var p doctor.Pair
			var err error
			if p.Source, err = parseURL(args[0]); err != nil {
				return err
			}
			if p.Destination, err = parseURL(args[1]); err != nil {
				return err
			}
			if scratch != "" {
				where, err := parsePlace(":" + scratch)
				if err != nil || where.length <= 0 {
					return usagef("--scratch %s: write OFFSET+LENGTH in bytes, for example 1GiB+1MiB", scratch)
				}
				p.ScratchOffset, p.ScratchLength = where.offset, where.length
			}
			p.Initiator = name
			return examine(cmd, p, asJSON)
		},
	}
	cmd.Flags().StringVar(&name, "initiator", "", "log in with this iSCSI `NAME`, for example that of the host whose copies are slow")
	cmd.Flags().StringVar(&scratch, "scratch", "", "`OFFSET+LENGTH` of the destination, in bytes, to overwrite with a real copy")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

var errNotOffloaded = &statusError{errors.New("a copy would not be offloaded"), statusNotOffloaded}

func examine(cmd *cobra.Command, p doctor.Pair, asJSON bool) error {
	ctx, release := untilSignal(cmd.Context())
	defer release()
	findings := []v1.Finding{}
	ok, err := doctor.Examine(ctx, p, func(f doctor.Finding) {
		findings = append(findings, v1.Finding(f))
		if !asJSON {
			printFinding(cmd.OutOrStdout(), f)
		}
	})
	if asJSON {
		err = errors.Join(err, printJSON(cmd.OutOrStdout(), findings))
	}
	if err == nil && !ok {
		err = errNotOffloaded
	}
	if err == nil && !asJSON {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "copies between these LUNs are offloaded")
	}
	return err
}

func printFinding(w io.Writer, f doctor.Finding) {
	verdict := "ok    "
	if !f.OK {
		verdict = "NOT OK"
	}
	if f.LUN != "" {
		f.LUN += ": "
	}
	fmt.Fprintf(w, "%s  %s%s: %s\n", verdict, f.LUN, f.Check, printable(f.Detail))
	if f.Advice != "" {
		fmt.Fprintf(w, "        %s\n", f.Advice)
	}
}
