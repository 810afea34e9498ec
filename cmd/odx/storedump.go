package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	v1 "odx/api/v1"
	"odx/backstore"
	"odx/conf"
)

func newStoreDump() *cobra.Command {
	var o storeOptions
	cmd := &cobra.Command{
		Use:   "dump [PART]...",
		Short: "Print the contents of the files of a store",
		Long: "Print the contents of the files of a store, of any format, that is not in use: a line for each\n" +
			"superblock, row and record of the journal, as JSON after its part and key. With --json each line\n" +
			"is one JSON object. Damage is printed as an error, and no file changes.\n\n" +
			"Each PART is one of " + strings.Join(backstore.DumpParts, ", ") + ";\nwithout one, all are printed.",
		ValidArgs: backstore.DumpParts,
		RunE: func(cmd *cobra.Command, parts []string) error {
			for _, part := range parts {
				if !slices.Contains(backstore.DumpParts, part) {
					return usagef("there is no part %q of a store; the parts are %s", part, strings.Join(backstore.DumpParts, ", "))
				}
			}
			return o.run(cmd, func(ctx context.Context, cfg *conf.Config, log *logrus.Entry) (err error) {
				out := bufio.NewWriter(cmd.OutOrStdout())
				defer func() { err = errors.Join(err, out.Flush()) }()
				return admin.Dump(ctx, cfg, log, parts, func(item backstore.DumpItem) error { return printItem(out, api.DumpItemV1(item), o.json) })
			})
		},
	}
	o.addFlags(cmd)
	return cmd
}

func printItem(w io.Writer, item v1.DumpItem, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(item)
	}
	text := "ERROR: " + item.Error
	if item.Error == "" {
		b, err := json.Marshal(item.Value)
		if err != nil {
			return err
		}
		text = string(b)
	}
	_, err := fmt.Fprintf(w, "%s %s %s\n", item.Part, item.Key, text)
	return err
}
