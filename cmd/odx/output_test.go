package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// TestOutput: the formats have what --json has, in the same order.
func TestOutput(t *testing.T) {
	path := writeConfig(t, config)
	s := startServer(t, odx("serve", "--config", path))
	defer s.stop(t)
	say := func(args string) string {
		t.Helper()
		stdout, stderr, status := output(t, append(strings.Fields(args), "--config", path)...)
		if status != 0 {
			t.Fatalf("odx %s: exit status %d: %s", args, status, stderr)
		}
		return stdout
	}
	asJSON := say("volume list --json")
	if got := say("volume list --output json"); got != asJSON {
		t.Errorf("json: %q, want %q", got, asJSON)
	}
	if got := say("volume list -o table"); got != say("volume list") {
		t.Errorf("table: %q", got)
	}
	var want, got []map[string]any
	if err := json.Unmarshal([]byte(asJSON), &want); err != nil {
		t.Fatal(err)
	}
	text := say("volume list --output yaml")
	if err := yaml.Unmarshal([]byte(text), &got); err != nil || len(got) != 2 || got[1]["name"] != want[1]["name"] || got[0]["size_bytes"] != 64<<20 {
		t.Errorf("yaml: %v, %v of\n%s", err, got, text)
	}
	if !strings.HasPrefix(text, "- name: dst\n  id: ") {
		t.Errorf("yaml has another order:\n%s", text)
	}
	lines := strings.Split(strings.TrimSpace(say("volume list -o ndjson")), "\n")
	if len(lines) != 2 {
		t.Fatalf("ndjson: %q", lines)
	}
	for i, line := range lines {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil || !reflect.DeepEqual(v, want[i]) {
			t.Errorf("line %d: %v, %s", i, err, line)
		}
	}
	if _, stderr, status := output(t, "copy", "src", "-", "-o", "yaml", "--config", path); status != 2 || !strings.Contains(stderr, "standard output has the data") {
		t.Errorf("a stream: exit status %d: %s", status, stderr)
	}
}

// TestOutput_EveryCommand: what has --json has --output.
func TestOutput_EveryCommand(t *testing.T) {
	found := 0
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		if cmd.Flags().Lookup("json") != nil {
			found++
			if cmd.Flags().Lookup("output") == nil {
				t.Errorf("%s has --json and no --output", cmd.CommandPath())
			}
		}
		for _, sub := range cmd.Commands() {
			check(sub)
		}
	}
	check(newRoot())
	if found < 40 {
		t.Errorf("%d commands have --json", found)
	}
}

func TestTranscoder(t *testing.T) {
	for name, tt := range map[string]struct {
		format outputFormat
		writes []string
		want   string
	}{
		"value in pieces":   {formatYAML, []string{`{"a": [1, `, `"2"], "b"`, `: "x: y", "c": null}`, "\n"}, "a:\n    - 1\n    - \"2\"\nb: 'x: y'\nc: null\n"},
		"several documents": {formatYAML, []string{`{"a":1}` + "\n", `{"a":2}`}, "a: 1\n---\na: 2\n"},
		"lines":             {formatNDJSON, []string{`[{"a": 1}, {"a": 2}]`}, "{\"a\":1}\n{\"a\":2}\n"},
		"empty list":        {formatNDJSON, []string{`[]`}, ""},
		"no JSON":           {formatYAML, []string{"nothing has ", "changed\n"}, "nothing has changed\n"},
		"text after JSON":   {formatNDJSON, []string{"{}\nrest of it\n"}, "{}\n\nrest of it\n"},
		"non-ASCII":         {formatYAML, []string{`{"a": "\u003cgrün\u003e"}`}, "a: <grün>\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			out := &transcoder{w: &b, format: tt.format}
			for _, w := range tt.writes {
				if _, err := out.Write([]byte(w)); err != nil {
					t.Fatal(err)
				}
			}
			if err := out.close(); err != nil || b.String() != tt.want {
				t.Errorf("wrote %q, %v; want %q", b.String(), err, tt.want)
			}
		})
	}
}
