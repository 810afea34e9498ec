package conf

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// checker collects the problems of one file.
type checker struct {
	file     string
	lines    map[string]int // key → line
	problems Problems
	// mistyped holds the keys whose value is not of the schema's kind. Their contents
	// were not read, and further problems with them are not reported.
	mistyped map[string]bool
}

// add records a problem with the value at key.
func (c *checker) add(key, format string, args ...any) {
	c.addLine(lineOf(c.lines, key), key, format, args...)
}

func (c *checker) addLine(line int, key, format string, args ...any) {
	c.problems = append(c.problems, Problem{File: c.file, Line: line, Key: key, Message: fmt.Sprintf(format, args...)})
}

// maxKeys bounds the keys of one mapping. The YAML decoder compares each with each.
const maxKeys = 1000

// widest returns the problem of a mapping with too many keys, nil if there is none.
func widest(file string, n *yaml.Node) *Problem {
	if keys := len(n.Content) / 2; n.Kind == yaml.MappingNode && keys > maxKeys {
		return &Problem{File: file, Line: n.Line, Message: fmt.Sprintf("%d keys in one place; is it a configuration?", keys)}
	}
	for _, c := range n.Content { // an alias has none
		if p := widest(file, c); p != nil {
			return p
		}
	}
	return nil
}

// checkDocument compares the document with the schema and removes the parts that do
// not fit. The YAML decoder refuses the same parts (KnownFields), but reports neither
// key nor remedy, and stops at the first.
func (c *checker) checkDocument(doc *yaml.Node) {
	if len(doc.Content) == 1 {
		c.checkNode(doc.Content[0], reflect.TypeFor[fileConfig](), "")
	}
}

// checkNode checks a value against the schema type t. The depth of the schema bounds
// the recursion, even if an alias refers to its own anchor.
func (c *checker) checkNode(n *yaml.Node, t reflect.Type, key string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.ShortTag() == "!!null" {
		return
	}
	switch {
	case t == reflect.TypeFor[*filePortal]() && n.Kind == yaml.ScalarNode: // the address
	case t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct:
		c.checkNode(n, t.Elem(), key)
	case t.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
		c.checkMapping(n, t, key)
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		for i, item := range n.Content {
			itemKey := fmt.Sprintf("%s[%d]", key, i)
			c.lines[itemKey] = item.Line
			c.checkNode(item, t.Elem(), itemKey)
		}
	case t.Kind() == reflect.Pointer && n.Kind == yaml.ScalarNode:
	default:
		c.mistyped[key] = true
		found := describe(n)
		if n.Kind == yaml.ScalarNode && holdsSecret(t) {
			found = "a single value" // it may be a secret
		}
		c.addLine(n.Line, key, "expected %s, found %s", expected(t), found)
		*n = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	}
}

func (c *checker) checkMapping(n *yaml.Node, t reflect.Type, key string) {
	first := map[string]int{}
	var fitting []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if name.ShortTag() == "!!merge" {
			c.addLine(name.Line, key, "merge keys (<<) are not supported; write the keys out")
			continue
		}
		field := fieldOf(t, name)
		if field == nil {
			c.addLine(name.Line, key, "unknown key %.70q; known keys: %s", quotable(name.Value, t), strings.Join(knownKeys(t), ", "))
			continue
		}
		path := name.Value
		if key != "" {
			path = key + "." + path
		}
		if line, ok := first[name.Value]; ok {
			c.addLine(name.Line, path, "duplicate key (first at line %d); remove one", line)
			continue
		}
		first[name.Value] = name.Line
		c.lines[path] = name.Line
		c.checkCommentedSecret(name, value, path)
		c.checkNode(value, field.Type, path)
		fitting = append(fitting, name, value)
	}
	n.Content = fitting
}

// holdsSecret reports whether there can be a secret in a value of the schema type t.
func holdsSecret(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return holdsSecret(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if f := fieldAt(t, i); f.secret() || f.is == "url" || holdsSecret(f.kind) {
				return true
			}
		}
	}
	return false
}

// quotable returns what may be quoted of an unknown key of t. With a mistake at the colon,
// as in secret:x and secret x, the value is a part of the key.
func quotable(key string, t reflect.Type) string {
	if i := strings.IndexAny(key, " \t\n:="); i >= 0 && holdsSecret(t) {
		return key[:i] + "…"
	}
	return key
}

// checkCommentedSecret refuses a secret that YAML may have truncated at a
// comment.
func (c *checker) checkCommentedSecret(name, value *yaml.Node, key string) {
	if name.Value == "secret" && value.Kind == yaml.ScalarNode && value.Style == 0 && strings.HasPrefix(value.LineComment, "#") {
		c.add(key, "YAML treats \" #\" as the start of a comment, not as part of the secret; quote the secret, and put a comment on its own line")
	}
}

// fieldOf returns the field of the schema type t for a key, or nil.
func fieldOf(t reflect.Type, key *yaml.Node) *reflect.StructField {
	for i := range t.NumField() {
		if f := t.Field(i); key.Kind == yaml.ScalarNode && f.Tag.Get("yaml") == key.Value {
			return &f
		}
	}
	return nil
}

func knownKeys(t reflect.Type) []string {
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i] = t.Field(i).Tag.Get("yaml")
	}
	return keys
}

// expected describes a value of the schema type t.
func expected(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct:
		return fmt.Sprintf("keys with values (%s)", strings.Join(knownKeys(t), ", "))
	case reflect.Slice:
		return "a list ([a, b], or a line that starts with \"- \" per entry)"
	default:
		return "a single value"
	}
}

// describe describes n in the same terms.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a set of keys"
	case yaml.SequenceNode:
		return "a list"
	default:
		return fmt.Sprintf("the value %q", n.Value)
	}
}
