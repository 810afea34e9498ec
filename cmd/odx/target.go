package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"odx/api"
	"odx/conf"
)

func newTarget() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "target",
		Short: "List, create and delete targets",
		Long:  "List, create and delete the targets of the configuration. " + editsHelp,
	}
	cmd.AddCommand(newTargetList(), newTargetCreate(), newTargetDelete())
	return cmd
}

// editsHelp describes what the commands that change the configuration do.
const editsHelp = "Changes are made in the configuration\n" +
	"file, whose comments and order stay, and in the running server, or in neither. Where no server\n" +
	"runs, only the file is changed."

func newTargetList() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the targets of the configuration",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return readConfig(cmd, &o, func(w io.Writer, cfg *conf.Config) error {
				if o.json {
					return printJSON(w, api.TargetsV1(cfg))
				}
				return printTargets(w, cfg)
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printTargets(w io.Writer, cfg *conf.Config) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tLUNS\tAUTHENTICATION\tACCESS\tPORTAL GROUPS")
	for i := range cfg.Targets {
		t := &cfg.Targets[i]
		authentication, access, groups := "none", "all", "all"
		if n := len(t.Authentication.Users); n > 0 {
			authentication = fmt.Sprintf("CHAP, %d users", n)
			if !t.Authentication.Required {
				authentication += ", optional"
			}
		}
		if t.Access != nil {
			access = fmt.Sprintf("%d entries", len(t.Access))
		}
		if t.PortalGroups != nil {
			groups = strings.Trim(fmt.Sprint(t.PortalGroups), "[]")
		}
		luns := fmt.Sprint(len(t.LUNs))
		if t.Redirect != nil {
			luns += ", moved to " + t.Redirect.To.String()
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", t.Name, luns, authentication, access, groups)
	}
	return table.Flush()
}

func newTargetCreate() *cobra.Command {
	var o adminOptions
	var l lunOptions
	var groups []uint
	cmd := &cobra.Command{
		Use:   "create NAME MEDIUM",
		Short: "Create a target with a first LUN",
		Long: "Create a target with a first LUN. NAME is its iSCSI name, for example\n" +
			"iqn.2026-11.com.example:disks. " + mediumHelp + "\n" + editsHelp,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := conf.ParseName(args[0])
			if err != nil {
				return &usageError{err}
			}
			lun, err := l.lun(args[1], &o)
			if err != nil {
				return err
			}
			e := conf.AddTarget{Name: name, LUNs: []conf.LUN{lun}}
			for _, g := range groups {
				if g == 0 || g > 65535 {
					return usagef("--portal-group %d: use a number from 1 to 65535", g)
				}
				e.PortalGroups = append(e.PortalGroups, uint16(g))
			}
			return editConfig(cmd, &o, fmt.Sprintf("target %s: created, with LUN %d on %s", name, lun.Number, lun.Medium()), e)
		},
	}
	addAdminFlags(cmd, &o)
	l.addFlags(cmd)
	cmd.Flags().UintSliceVar(&groups, "portal-group", nil, "`NUMBERS` of its portal groups (default: all)")
	return cmd
}

func newTargetDelete() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a target; its volumes remain",
		Long: "Delete a target with its users and access list. Its volumes remain. Initiators that are logged in\n" +
			"are asked to log out. " + editsHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return editConfig(cmd, &o, fmt.Sprintf("target %s: deleted", args[0]), conf.RemoveTarget{Name: args[0]})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

// targetOf returns a target of a configuration by its name, in upper or lower case.
func targetOf(cfg *conf.Config, name string) (*conf.Target, error) {
	i := slices.IndexFunc(cfg.Targets, func(t conf.Target) bool { return strings.EqualFold(t.Name, name) })
	if i < 0 {
		return nil, fmt.Errorf("target %s %w", name, conf.ErrNotFound)
	}
	return &cfg.Targets[i], nil
}
