package conf

import (
	"os"
	"strings"
	"testing"
)

// TestREADME: the configuration that the README shows is valid.
func TestREADME(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```yaml\n")
	example, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("the README shows no YAML")
	}
	if _, err := Parse("README.md", []byte(example)); err != nil {
		t.Error(err)
	}
}
