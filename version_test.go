package odx_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestVersion_OneFile: cmd/odx/VERSION, of which odx version, packages and releases have
// theirs, agrees with the documents that name the version.
func TestVersion_OneFile(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	version := strings.TrimSpace(read("cmd/odx/VERSION"))
	if !regexp.MustCompile(`^\d+\.\d+\.\d+$`).MatchString(version) {
		t.Fatalf("cmd/odx/VERSION is %q; write MAJOR.MINOR.PATCH", version)
	}
	if m := regexp.MustCompile(`Version (\d+\.\d+\.\d+)`).FindStringSubmatch(read("README.md")); m == nil || m[1] != version {
		t.Errorf("README.md says %q, cmd/odx/VERSION %s", m, version)
	}
	if m := regexp.MustCompile(`(?m)^## (.*)$`).FindStringSubmatch(read("CHANGELOG.md")); m == nil || m[1] != version {
		t.Errorf("the first section of CHANGELOG.md is %q, cmd/odx/VERSION is %s", m, version)
	}
}
