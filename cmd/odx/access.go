package main

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"odx/api"
	v1 "odx/api/v1"
	"odx/conf"
)

func newAccess() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "access",
		Short: "List, add and remove entries of access lists",
		Long: "List, add and remove entries of the access lists of targets. The first entry that matches an\n" +
			"initiator applies. Without entries, all initiators may use all LUNs; with the first one, only\n" +
			"those that it matches. " + editsHelp,
	}
	cmd.AddCommand(newAccessList(), newAccessAdd(), newAccessRemove())
	return cmd
}

func newAccessList() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "list [TARGET]",
		Short: "List the entries of access lists, with their numbers",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return readConfig(cmd, &o, func(w io.Writer, cfg *conf.Config) error {
				if len(args) > 0 {
					t, err := targetOf(cfg, args[0])
					if err != nil {
						return err
					}
					cfg.Targets = []conf.Target{*t}
				}
				if o.json {
					lists := map[string][]v1.Access{}
					for _, t := range api.TargetsV1(cfg) {
						lists[t.Name] = t.Access
					}
					return printJSON(w, lists)
				}
				return printAccess(w, cfg)
			})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}

func printAccess(w io.Writer, cfg *conf.Config) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TARGET\tENTRY\tINITIATORS\tADDRESSES\tLUNS\tACCESS")
	for _, t := range cfg.Targets {
		if t.Access == nil {
			fmt.Fprintf(table, "%s\t-\tall\tall\tall\tread-write\n", t.Name)
		}
		for i, a := range t.Access {
			initiators, addresses, luns, access := "all", "all", "all", "read-write"
			if len(a.Initiators) > 0 {
				initiators = joinPatterns(a.Initiators)
			}
			if len(a.Addresses) > 0 {
				addresses = addressesText(a.Addresses)
			}
			if a.LUNs != nil {
				luns = mappingText(a.LUNs)
			}
			if a.ReadOnly {
				access = "read-only"
			}
			fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\n", t.Name, i, initiators, addresses, luns, access)
		}
	}
	return table.Flush()
}

// mappingText returns mapped LUNs in the syntax of --lun.
func mappingText(luns []conf.MappedLUN) string {
	texts := make([]string, len(luns))
	for i, m := range luns {
		texts[i] = fmt.Sprint(m.LUN)
		if m.As != m.LUN {
			texts[i] += fmt.Sprintf("=%d", m.As)
		}
		if m.ReadOnly {
			texts[i] += ":ro"
		}
	}
	return strings.Join(texts, " ")
}

// parseMappedLUN parses LUN[=NUMBER][:ro].
func parseMappedLUN(text string) (m conf.MappedLUN, err error) {
	rest, readOnly := strings.CutSuffix(text, ":ro")
	m.ReadOnly = readOnly
	lun, as, renumbered := strings.Cut(rest, "=")
	if m.LUN, err = parseLUN(lun); err != nil {
		return m, err
	}
	m.As = m.LUN
	if renumbered {
		m.As, err = parseLUN(as)
	}
	return m, err
}

func newAccessAdd() *cobra.Command {
	var o adminOptions
	var initiators, addresses, luns []string
	var a conf.Access
	var at int
	cmd := &cobra.Command{
		Use:   "add TARGET",
		Short: "Add an entry to the access list of a target",
		Long: "Add an entry to the access list of a target. At least one of --initiator and --address is given; if\n" +
			"both are, both have to match. The first entry of a target excludes the initiators that it does not\n" +
			"match: they are asked to log out. " + editsHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if a.Initiators, err = parsePatterns(initiators); err != nil {
				return err
			}
			for _, text := range addresses {
				p, err := conf.ParseNetwork(text)
				if err != nil {
					return &usageError{err}
				}
				a.Addresses = append(a.Addresses, p)
			}
			if len(a.Initiators) == 0 && len(a.Addresses) == 0 {
				return usagef("give --initiator or --address; --initiator \"*\" matches all")
			}
			for _, text := range luns {
				m, err := parseMappedLUN(text)
				if err != nil {
					return err
				}
				a.LUNs = append(a.LUNs, m)
			}
			return editConfig(cmd, &o, fmt.Sprintf("access to target %s: added for initiators %s", args[0], whom(&a)), conf.AddAccess{Target: args[0], Access: a, At: at})
		},
	}
	addAdminFlags(cmd, &o)
	cmd.Flags().StringSliceVar(&initiators, "initiator", nil, "`NAMES` of initiators, or prefixes with *")
	cmd.Flags().StringSliceVar(&addresses, "address", nil, "IP `ADDRESSES` and networks of initiators")
	cmd.Flags().StringSliceVar(&luns, "lun", nil, "`LUNS` that are mapped, each as LUN[=NUMBER][:ro] (default: all)")
	cmd.Flags().BoolVar(&a.ReadOnly, "read-only", false, "write protect all of them")
	cmd.Flags().BoolVar(&a.StoreDuplicates, "no-dedup", false, "do not deduplicate what is written to them")
	cmd.Flags().IntVar(&at, "at", -1, "`NUMBER` of the new entry, from 0 (default: after all others)")
	return cmd
}

// whom returns whom an entry matches.
func whom(a *conf.Access) string {
	var parts []string
	if len(a.Initiators) > 0 {
		parts = append(parts, joinPatterns(a.Initiators))
	}
	if len(a.Addresses) > 0 {
		parts = append(parts, "from "+addressesText(a.Addresses))
	}
	return strings.Join(parts, " ")
}

// addressesText returns networks and addresses, with spaces between.
func addressesText(list []netip.Prefix) string {
	texts := make([]string, len(list))
	for i, p := range list {
		if texts[i] = p.String(); p.IsSingleIP() {
			texts[i] = p.Addr().String()
		}
	}
	return strings.Join(texts, " ")
}

func newAccessRemove() *cobra.Command {
	var o adminOptions
	cmd := &cobra.Command{
		Use:   "remove TARGET ENTRY",
		Short: "Remove an entry of the access list of a target",
		Long: "Remove an entry of the access list of a target by its number, which odx access list prints.\n" +
			"Initiators that may no longer use the target are asked to log out. The last entry cannot be\n" +
			"removed: without entries, all initiators may use all LUNs. " + editsHelp,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := strconv.ParseUint(args[1], 10, 31)
			if err != nil {
				return usagef("invalid entry %q; use a number that odx access list prints", args[1])
			}
			return editConfig(cmd, &o, fmt.Sprintf("access to target %s: entry %d removed", args[0], i), conf.RemoveAccess{Target: args[0], Index: int(i)})
		},
	}
	addAdminFlags(cmd, &o)
	return cmd
}
