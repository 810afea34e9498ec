package conf

import (
	"bytes"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

// restyle gives the collections of a tree random styles, and texts random quotes.
func restyle(t *rapid.T, n *yaml.Node, inFlow bool) {
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null":
		// Numbers, too: 5 and "5" are the same in a configuration.
		if n.Style = rapid.SampledFrom([]yaml.Style{0, 0, 0, yaml.SingleQuotedStyle, yaml.DoubleQuotedStyle}).Draw(t, "quotes"); n.Style != 0 {
			n.Tag = "!!str"
		}
	case n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode:
		n.Style = 0
		if inFlow || len(n.Content) == 0 || rapid.IntRange(0, 3).Draw(t, "flow") == 0 {
			n.Style, inFlow = yaml.FlowStyle, true
		}
	}
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	for _, c := range n.Content {
		restyle(t, c, inFlow)
	}
}

// comment adds comments and blank lines between the lines of a text, and after some.
func comment(t *rapid.T, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		indent := line[:len(line)-len(strings.TrimLeft(line, " -"))]
		switch rapid.IntRange(0, 12).Draw(t, "comment") {
		case 0:
			b.WriteString(strings.Repeat(" ", len(indent)) + "# above\n")
		case 1:
			b.WriteString("\n")
		case 2:
			b.WriteString(strings.Repeat(" ", rapid.IntRange(0, 9).Draw(t, "column")) + "# anywhere: {}, - [\n\n")
		case 3:
			line = strings.TrimSuffix(line, "\n") + "  # after\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// An edit of a file in any style changes what was asked only, and no other line.
func TestApply_AnyStyle(t *testing.T) {
	var edits, written, lost int
	schema := compiledSchema(t)
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.SampledFrom([]string{edited, string(defaultFile), styled}).Draw(t, "file")
		root, err := parseTree([]byte(base))
		if err != nil {
			t.Fatal(err)
		}
		restyle(t, root.Content[0], false)
		root.HeadComment, root.FootComment = "", ""
		root.Content[0].Style = 0
		var b bytes.Buffer
		e := yaml.NewEncoder(&b)
		e.SetIndent(rapid.IntRange(2, 6).Draw(t, "indent"))
		if err := e.Encode(root); err != nil {
			t.Fatal(err)
		}
		text := comment(t, b.String())
		cfg, err := Parse("/etc/odx.yaml", []byte(text))
		if err != nil {
			return // a comment has changed a value
		}
		value, err := instance([]byte(text))
		if err == nil {
			err = schema.Validate(value)
		}
		if err != nil {
			t.Errorf("the schema refuses it: %v\n%s", err, text)
		}
		d, err := openDocument(cfg.File, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		kind, which := rapid.Uint8Range(0, 11).Draw(t, "kind"), rapid.Uint8Range(0, 4).Draw(t, "which")
		edit, prefix, removes := editOf(cfg, kind, which)
		if edit.apply(d) != nil {
			return
		}
		next, err := Parse(cfg.File, d.text)
		if err != nil {
			return // what the edit asks for is not valid
		}
		for _, c := range Diff(cfg, next) {
			if !strings.HasPrefix(c.Key, prefix) {
				t.Errorf("%#v changed %s:\n%s\nbecomes\n%s", edit, c, text, d.text)
			}
		}
		edits++
		if d.reformatted > 0 {
			written++
			return
		}
		n := strings.Count(text, "#") - strings.Count(string(d.text), "#")
		if n > 0 {
			lost++
		}
		if n > 0 && !removes {
			t.Errorf("%#v lost a comment:\n%s\nbecomes\n%s", edit, text, d.text)
		}
		// What is added is in lines of its own, or in one line in brackets.
		if gone := removedLines(text, string(d.text)); len(gone) > 1 && !removes {
			t.Errorf("%#v changed the lines %q:\n%s\nbecomes\n%s", edit, gone, text, d.text)
		}
	})
	t.Logf("%d edits, %d of which wrote out the whole file; %d removed a comment with an entry", edits, written, lost)
	if edits > 50 && written > edits/10 {
		t.Errorf("%d of %d edits wrote out the whole file", written, edits)
	}
}

// styled is a configuration with users and access entries in several targets.
const styled = `data_dir: /d
portals: ["127.0.0.1:1"]
targets:
  - name: iqn.2026-11.example:a
    luns: [{lun: 0, volume: a}, {lun: 1, volume: b}, {lun: 2, file: "x: y"}]
    authentication: {users: [{name: "u 1", secret: "a #b"}, {name: v, secret_env: V, initiators: [x, y]}]}
    access: [{initiators: [x]}, {addresses: [192.0.2.1], luns: [{lun: 1, as: 0}]}]
  - name: iqn.2026-11.example:b
    luns: [{lun: 0, volume: c, size: 1GiB, qos: {iops: 5}}, {lun: 1, volume: d}]
    authentication: {required: false, users: [{name: u, secret_file: f}, {name: w, secret: "it's"}]}
discovery: {authentication: {users: [{name: u, secret_file: f}]}}
copy: {rules: [{from: [a, c], to: [d*], allow: true}, {allow: false}]}
`
