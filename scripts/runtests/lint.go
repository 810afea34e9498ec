package main

import (
	"fmt"
	"io"
	"os/exec"
)

// golangciLint is the command whose version is pinned here. It is no tool of go.mod,
// because its 200 modules would become requirements of odx.
const golangciLint = "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0"

// lint is the stage that runs golangci-lint by .golangci.yml. It is skipped, and says
// so, on a machine that cannot fetch or build the linter.
func lint(out io.Writer) counts {
	if text, err := exec.Command("go", "run", golangciLint, "version").CombinedOutput(); err != nil {
		fmt.Fprintf(out, "     skipped lint: golangci-lint cannot be had: %v\n%s", err, text)
		return counts{skipped: 1}
	}
	text, err := exec.Command("go", "run", golangciLint, "run", "./...").CombinedOutput()
	if err != nil {
		fmt.Fprintf(out, "golangci-lint run ./...: %v\n%s", err, text)
		return counts{failed: 1}
	}
	return counts{passed: 1}
}
