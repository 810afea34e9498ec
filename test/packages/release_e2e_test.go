//go:build e2e

package packages

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"odx/internal/kit"
	"odx/internal/kit/harness"
)

// TestRelease makes a release twice, in different directories: it is the same.
func TestRelease(t *testing.T) {
	t.Parallel()
	root, err := kit.ModuleRoot()
	harness.Must(t, err)
	makeRelease := func(dir string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(root, "scripts", "release"), "-o", dir, "amd64")
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1795000000", "TMPDIR="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	first, second := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	makeRelease(first)
	makeRelease(second)
	harness.Run(t.Context(), t, "diff", "--recursive", first, second)

	text, err := os.ReadFile(filepath.Join(root, "cmd/odx/VERSION"))
	harness.Must(t, err)
	version := strings.TrimSpace(string(text))
	name := "odx-" + version + "-linux-amd64"
	rados := "odx-rados-" + version + "-linux-" + runtime.GOARCH
	t.Run("odx-rados", func(t *testing.T) {
		if _, err := os.Stat("/usr/include/rados/librados.h"); err != nil {
			t.Skip("librados-dev is not installed: ", err)
		}
		dir := t.TempDir()
		harness.Run(t.Context(), t, "tar", "-C", dir, "-xzf", filepath.Join(first, rados+".tar.gz"))
		if got := harness.Run(t.Context(), t, filepath.Join(dir, rados, "odx-rados"), "version"); !strings.HasPrefix(got, "odx "+version+" (") {
			t.Errorf("the program is %s", got)
		}
		for _, file := range []string{"LICENSE", "docs/cluster.md", "packaging/odx.service", "packaging/odx-rados.conf"} {
			if _, err := os.Stat(filepath.Join(dir, rados, file)); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("checksums", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "SHA256SUMS")
		cmd.Dir = first
		out, err := cmd.CombinedOutput()
		files := 4
		if _, err := os.Stat(filepath.Join(first, rados+".tar.gz")); err == nil {
			files += 2
		}
		if err != nil || strings.Count(string(out), ": OK\n") != files {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("archive", func(t *testing.T) {
		dir := t.TempDir()
		harness.Run(t.Context(), t, "tar", "-C", dir, "-xzf", filepath.Join(first, name+".tar.gz"))
		if got := harness.Run(t.Context(), t, filepath.Join(dir, name, "odx"), "version"); !strings.HasPrefix(got, "odx "+version+" (") {
			t.Errorf("the program is %s", got)
		}
		for _, file := range []string{"LICENSE", "CHANGELOG.md", "docs/upgrade.md", "man/odx.1.gz", "completion/_odx", "packaging/odx.service", "examples/full.yaml"} {
			if _, err := os.Stat(filepath.Join(dir, name, file)); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("SBOM", func(t *testing.T) {
		text, err := os.ReadFile(filepath.Join(first, name+".cdx.json"))
		harness.Must(t, err)
		var sbom struct {
			BOMFormat  string
			Metadata   struct{ Component struct{ Version string } }
			Components []struct{ Name, Version, PURL string }
		}
		harness.Must(t, json.Unmarshal(text, &sbom))
		has := func(module string) bool {
			return slices.ContainsFunc(sbom.Components, func(c struct{ Name, Version, PURL string }) bool {
				return c.Name == module && c.Version != "" && c.PURL != ""
			})
		}
		if sbom.BOMFormat != "CycloneDX" || sbom.Metadata.Component.Version != "v"+version || !has("github.com/spf13/cobra") || !has("github.com/dgraph-io/badger/v4") || has("pgregory.net/rapid") {
			t.Errorf("format %s, version %s, components %+v", sbom.BOMFormat, sbom.Metadata.Component.Version, sbom.Components)
		}
	})
}
