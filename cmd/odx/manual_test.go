package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestManual: each command has a page with all its flags and the exit statuses, and
// odx.yaml(5) has all that the example explains.
func TestManual(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SOURCE_DATE_EPOCH", "1795000000")
	if stdout, stderr, status := output(t, "man", dir); status != 0 || stdout+stderr != "" {
		t.Fatalf("exit status %d: %s%s", status, stdout, stderr)
	}
	page := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		text := page(pageName(cmd) + ".1")
		want := []string{`"2026-11-18" "odx `, ".SH NAME\n", ".SH EXIT STATUS\n.TP\n\\fB0\\fP\n", ".SH SEE ALSO\n", roff(cmd.Short)}
		for _, status := range exitStatuses {
			want = append(want, fmt.Sprintf(".TP\n\\fB%d\\fP\n%s\n", status.status, roff(status.meaning)))
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				want = append(want, `\fB\-\-`+roff(f.Name)+`\fP`)
			}
		})
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("the page of %s lacks %q", cmd.CommandPath(), w)
			}
		}
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				check(sub)
			}
		}
	}
	check(newRoot())
	for _, w := range []string{".SS data_dir\n", ".SS targets\n", ".SS tokens\n", "secret_file"} {
		if !strings.Contains(page("odx.yaml.5"), w) {
			t.Errorf("odx.yaml(5) lacks %q", w)
		}
	}
}

func TestRoff(t *testing.T) {
	for text, want := range map[string]string{
		"plain":       "plain",
		".TH is none": `\&.TH is none`,
		"'quoted'":    `\(aqquoted\(aq`,
		`a\b -c ~ ^`:  `a\eb \-c \(ti \(ha`,
		"`x`":         `\(gax\(ga`,
	} {
		if got := roff(text); got != want {
			t.Errorf("roff(%q) = %q, want %q", text, got, want)
		}
	}
}
