package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
)

// release is the version of this source: of the release that it is, or becomes.
//
//go:embed VERSION
var release string

// build distinguishes a build during development from the release. The linker sets it
// (-X main.build=…): to nothing for a release, and to the commit by scripts/build.
var build = "dev"

// buildVersion returns the version of this program: that of the release, and for a build
// during development a pre-release of it, as in semantic versioning.
func buildVersion() string {
	version := strings.TrimSpace(release)
	if build != "" {
		version += "-" + build
	}
	return version
}

// versionText is what odx version prints.
func versionText() string {
	return fmt.Sprintf("odx %s (%s, %s/%s)", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func newVersion() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{
					"version": buildVersion(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
				})
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), versionText())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
