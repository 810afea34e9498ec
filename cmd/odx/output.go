package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// The formats of --output.
const (
	formatTable  = "table"
	formatJSON   = "json"
	formatYAML   = "yaml"
	formatNDJSON = "ndjson"
)

// outputFormat is the value of --output.
type outputFormat string

func (f *outputFormat) String() string { return string(*f) }
func (f *outputFormat) Type() string   { return "FORMAT" }

func (f *outputFormat) Set(text string) error {
	if !slices.Contains(outputFormats(), text) {
		return fmt.Errorf("use %s", strings.Join(outputFormats(), ", "))
	}
	*f = outputFormat(text)
	return nil
}

func outputFormats() []string { return []string{formatTable, formatJSON, formatYAML, formatNDJSON} }

// addOutput gives each command with --json the flag --output. What commands print as JSON is
// the one source of the other formats.
func addOutput(cmd *cobra.Command) {
	if cmd.Flags().Lookup("json") != nil && cmd.RunE != nil {
		format := outputFormat(formatTable)
		short := "o"
		if cmd.Flags().ShorthandLookup(short) != nil {
			short = "" // odx send -o FILE
		}
		cmd.Flags().VarP(&format, "output", short, "print as table, json, yaml, or ndjson (an element a line)")
		cmd.MarkFlagsMutuallyExclusive("json", "output")
		// The names are right.
		_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputFormats(), cobra.ShellCompDirectiveNoFileComp))
		run := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error { return runAs(cmd, args, format, run) }
	}
	for _, sub := range cmd.Commands() {
		addOutput(sub)
	}
}

// runAs runs a command whose output has a format.
func runAs(cmd *cobra.Command, args []string, format outputFormat, run func(*cobra.Command, []string) error) error {
	if format == formatTable {
		return run(cmd, args)
	}
	if err := cmd.Flags().Set("json", "true"); err != nil {
		return err
	}
	if format == formatJSON {
		return run(cmd, args)
	}
	if slices.Contains(args, stdio) {
		return usagef("--output %s with -: standard output has the data; use --json, whose result is on standard error", format)
	}
	out := &transcoder{w: cmd.OutOrStdout(), format: format}
	cmd.SetOut(out)
	return errors.Join(run(cmd, args), out.close())
}

// transcoder writes JSON values in another format, each as soon as it is complete.
type transcoder struct {
	w       io.Writer
	format  outputFormat
	begun   bool
	pending []byte
}

func (t *transcoder) Write(p []byte) (int, error) {
	t.pending = append(t.pending, p...)
	for {
		decoder := json.NewDecoder(bytes.NewReader(t.pending))
		var value json.RawMessage
		err := decoder.Decode(&value)
		if err != nil { // incomplete, or no JSON: see close
			return len(p), nil
		}
		t.pending = t.pending[decoder.InputOffset():]
		if err := t.write(value); err != nil {
			return 0, err
		}
	}
}

// close writes what is no JSON as it is.
func (t *transcoder) close() error {
	if len(bytes.TrimSpace(t.pending)) == 0 {
		return nil
	}
	_, err := t.w.Write(t.pending)
	return err
}

func (t *transcoder) write(value json.RawMessage) error {
	if t.format == formatNDJSON {
		return t.writeLines(value)
	}
	var node yaml.Node
	if err := yaml.Unmarshal(value, &node); err != nil { // JSON is YAML
		return fmt.Errorf("output as YAML: %w", err)
	}
	plain(&node)
	text, err := yaml.Marshal(&node)
	if err != nil {
		return fmt.Errorf("output as YAML: %w", err)
	}
	if t.begun {
		text = append([]byte("---\n"), text...)
	}
	t.begun = true
	_, err = t.w.Write(text)
	return err
}

// writeLines writes a value, or each element of a list, on a line.
func (t *transcoder) writeLines(value json.RawMessage) error {
	elements := []json.RawMessage{value}
	if bytes.HasPrefix(bytes.TrimSpace(value), []byte("[")) {
		elements = nil
		if err := json.Unmarshal(value, &elements); err != nil {
			return err
		}
	}
	var lines bytes.Buffer
	for _, e := range elements {
		if err := json.Compact(&lines, e); err != nil {
			return err
		}
		lines.WriteByte('\n')
	}
	_, err := t.w.Write(lines.Bytes())
	return err
}

// plain removes the style of JSON from a YAML value.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		plain(child)
	}
}
