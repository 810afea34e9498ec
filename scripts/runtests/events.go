package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// event is a line of go test -json (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build-output event
	Test       string
	Output     string
	Elapsed    float64 // seconds
	// FailedBuild is set in the fail event of a package that does not build.
	FailedBuild string
}

// counts counts checks. Tests with subtests do not count.
type counts struct{ passed, failed, skipped int }

func (c *counts) add(d counts) {
	c.passed += d.passed
	c.failed += d.failed
	c.skipped += d.skipped
}

// reader converts events to counts, and prints a line per package and the output of
// failed tests.
type reader struct {
	out    io.Writer
	total  counts
	pkgs   map[string]*pkg
	builds map[string]*strings.Builder // import path → compiler output
}

// pkg is a package whose tests are running.
type pkg struct {
	counts
	output  map[string]*strings.Builder // by test, "" for the package itself
	parents map[string]bool             // tests that have subtests
	reasons []string                    // of skipped tests
}

// readEvents reads the output of go test -json until EOF.
func readEvents(in io.Reader, out io.Writer) counts {
	r := &reader{out: out, pkgs: map[string]*pkg{}, builds: map[string]*strings.Builder{}}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil {
				r.event(&e)
			} else {
				fmt.Fprint(out, line)
			}
		}
		if err != nil {
			return r.total
		}
	}
}

func (r *reader) event(e *event) {
	if e.Action == "build-output" {
		appendTo(r.builds, e.ImportPath, e.Output)
		return
	}
	p := r.pkgs[e.Package]
	if p == nil {
		p = &pkg{output: map[string]*strings.Builder{}, parents: map[string]bool{}}
		r.pkgs[e.Package] = p
	}
	switch {
	case e.Action == "output":
		appendTo(p.output, e.Test, e.Output)
	case e.Test == "" && (e.Action == "pass" || e.Action == "fail"):
		r.endPackage(e, p)
	case e.Action == "run":
		if i := strings.LastIndexByte(e.Test, '/'); i > 0 {
			p.parents[e.Test[:i]] = true
		}
	case e.Test != "":
		r.endTest(e, p)
	}
}

func (r *reader) endTest(e *event, p *pkg) {
	output := text(p.output, e.Test)
	counted := !p.parents[e.Test]
	switch e.Action {
	case "pass":
		if counted {
			p.passed++
		}
	case "skip":
		if counted {
			p.skipped++
			p.reasons = append(p.reasons, fmt.Sprintf("%s: %s", e.Test, reason(output)))
		}
	case "fail":
		if counted {
			p.failed++
		}
		fmt.Fprintf(r.out, "FAIL %s %s\n%s", e.Package, e.Test, output)
	default:
		return
	}
	delete(p.output, e.Test)
}

func (r *reader) endPackage(e *event, p *pkg) {
	if e.Action == "fail" && p.failed == 0 {
		// A build failure, or an exit outside a test: a panic, a timeout.
		p.failed = 1
		fmt.Fprintf(r.out, "FAIL %s\n%s%s", e.Package, text(r.builds, e.FailedBuild), text(p.output, ""))
		for name, output := range p.output {
			if name != "" {
				fmt.Fprintf(r.out, "%s still running; output:\n%s", name, output)
			}
		}
	}
	if p.counts != (counts{}) {
		fmt.Fprintf(r.out, "   %-40s %4d passed %3d failed %3d skipped %7.1f s\n", e.Package, p.passed, p.failed, p.skipped, e.Elapsed)
	}
	for _, why := range p.reasons {
		fmt.Fprintf(r.out, "     skipped %s\n", why)
	}
	r.total.add(p.counts)
	delete(r.pkgs, e.Package)
}

func appendTo(m map[string]*strings.Builder, key, s string) {
	if m[key] == nil {
		m[key] = new(strings.Builder)
	}
	m[key].WriteString(s)
}

func text(m map[string]*strings.Builder, key string) string {
	if m[key] == nil {
		return ""
	}
	return m[key].String()
}

// reason returns the line with the reason in the output of a skipped test.
func reason(output string) string {
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			return line
		}
	}
	return "no reason given"
}
