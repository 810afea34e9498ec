package conf

import (
	"os"
	"strings"
	"testing"
)

// The configuration in the README is valid.
func TestParse_README(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```yaml\n")
	example, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("no YAML block in the README")
	}
	if _, err := Parse("README.md", []byte(example)); err != nil {
		t.Error(err)
	}
}
