package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// result is the outcome of a stage.
type result struct {
	stage string
	counts
	took time.Duration
}

func (r result) verdict() string {
	if r.failed > 0 {
		return "FAILED"
	}
	return "ok"
}

// printReports prints the tables that tests wrote to dir.
func printReports(out io.Writer, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return err
	}
	for _, file := range files {
		table, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
		fmt.Fprintf(out, "\n%s\n%s\n", strings.TrimSuffix(filepath.Base(file), ".txt"), strings.TrimRight(string(table), "\n"))
	}
	return nil
}

// printSummary prints a row per stage and a line with the totals, and returns the
// totals.
func printSummary(out io.Writer, results []result) counts {
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "stage\tresult\tpassed\tfailed\tskipped\tseconds\t")
	var total counts
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%.1f\t\n", r.stage, r.verdict(), r.passed, r.failed, r.skipped, r.took.Seconds())
		total.add(r.counts)
	}
	w.Flush()
	fmt.Fprintf(out, "\n%d passed, %d failed\n", total.passed, total.failed)
	return total
}
