package conf

import (
	"bytes"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Effective returns the configuration as YAML, with all defaults and absolute paths.
// Comments stand for the defaults that depend on the machine or the store. Secrets in the
// file are masked: the result is a configuration, but it cannot be served, because a masked
// secret cannot be read.
func (c *Config) Effective() ([]byte, error) {
	f := c.file()
	for i := range f.Targets {
		f.Targets[i].SetPaths = boolOf(!c.Targets[i].FixedPaths)
	}
	file := reflect.ValueOf(f).Elem()
	fillDefaults(file)
	root := mapping(file, printing{comments: true})
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(root); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

// printing says how a value is printed.
type printing struct {
	comments bool // with those for defaults that depend on others
	brief    bool // without defaults
	secrets  bool // not masked
}

// inline returns a set of keys in one line, without defaults; "" if it is absent.
func inline(v reflect.Value) string {
	if v.IsZero() {
		return ""
	}
	if p, ok := v.Interface().(*filePortal); ok && p.Advertise == nil {
		return scalar(reflect.ValueOf(p.Address))
	}
	n := mapping(pointed(v), printing{brief: true})
	n.Style = yaml.FlowStyle
	return flow(n)
}

// flow returns a node of flow style in one line. The encoder of the library breaks lines.
func flow(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		var parts []string
		for i := 0; i+1 < len(n.Content); i += 2 {
			parts = append(parts, n.Content[i].Value+": "+flow(n.Content[i+1]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case yaml.SequenceNode:
		parts := make([]string, len(n.Content))
		for i, item := range n.Content {
			parts[i] = flow(item)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	default:
		return quoted(n)
	}
}

// quoted returns a scalar as it stands within brackets.
func quoted(n *yaml.Node) string {
	in := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle, Content: []*yaml.Node{n}}
	b, err := yaml.Marshal(in)
	text, ok := strings.CutPrefix(strings.TrimSuffix(string(b), "]\n"), "[")
	if err != nil || !ok || strings.Contains(text, "\n") {
		return strings.ReplaceAll(n.Value, "\n", " ")
	}
	return text
}

// mapping returns the node of a struct of the schema, with secrets masked.
func mapping(v reflect.Value, p printing) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	var absent []string
	for i := range v.NumField() {
		f := fieldAt(v.Type(), i)
		value := valueNode(f, v.Field(i), p)
		switch {
		case value != nil:
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: f.name}, value)
		case f.auto != "":
			absent = append(absent, f.name+": "+f.auto)
		}
	}
	if p.comments && len(absent) > 0 && len(n.Content) > 0 {
		n.Content[0].HeadComment = strings.Join(absent, "\n")
	}
	return n
}

// valueNode returns the node of a value, or nil if it is absent.
func valueNode(f field, v reflect.Value, p printing) *yaml.Node {
	switch {
	case isLeaf(f.kind):
		if v.IsNil() || p.brief && f.fallback != "" && scalar(v) == f.fallback {
			return nil
		}
		return f.node(scalar(v), p)
	case f.kind.Kind() == reflect.Slice:
		return listNode(f, v, p)
	case f.kind.Kind() == reflect.Pointer && v.IsNil():
		return nil
	}
	n := mapping(pointed(v), p)
	if len(n.Content) == 0 {
		return nil
	}
	if p.brief || isFlat(n) && !p.comments {
		n.Style = yaml.FlowStyle
	}
	return n
}

// node returns the node of a scalar.
func (f field) node(value string, p printing) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: value}
	if !p.secrets {
		n.Value = f.shown(value)
	}
	if !f.plain() {
		setText(n, n.Value)
	}
	return n
}

// setText makes n a text, in double quotes if it needs quotes.
func setText(n *yaml.Node, value string) {
	n.Value, n.Tag, n.Style = value, "!!str", 0
	if !strings.HasPrefix(quoted(n)+" ", value+" ") {
		n.Style = yaml.DoubleQuotedStyle
	}
}

// textNode returns the node of a text.
func textNode(value string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode}
	setText(n, value)
	return n
}

// listNode returns the node of a list, or nil if it is empty. An entry without lists of
// its own takes one line.
func listNode(f field, list reflect.Value, p printing) *yaml.Node {
	if list.Len() == 0 {
		return nil
	}
	n := &yaml.Node{Kind: yaml.SequenceNode}
	for i := range list.Len() {
		item := list.Index(i)
		switch portal, ok := item.Interface().(*filePortal); {
		case isLeaf(f.kind.Elem()):
			n.Content = append(n.Content, f.node(scalar(item), p))
			n.Style = yaml.FlowStyle
		case ok && portal.Advertise == nil:
			n.Content = append(n.Content, f.node(*portal.Address, p))
		default:
			entry := mapping(pointed(item), printing{brief: p.brief, secrets: p.secrets})
			if p.brief || isFlat(entry) {
				entry.Style = yaml.FlowStyle
			}
			n.Content = append(n.Content, entry)
		}
	}
	return n
}

// isFlat reports whether the values of a mapping are scalars, lists of scalars, or flat
// themselves.
func isFlat(n *yaml.Node) bool {
	for i := 1; i < len(n.Content); i += 2 {
		value := n.Content[i]
		if value.Kind == yaml.SequenceNode && len(value.Content) > 0 && value.Content[0].Kind != yaml.ScalarNode ||
			value.Kind == yaml.MappingNode && !isFlat(value) {
			return false
		}
	}
	return true
}
