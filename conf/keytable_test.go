package conf

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The example ends with the table of all keys.
func TestKeyTable(t *testing.T) {
	const file, head = "examples/full.yaml", "# Key, and when a change of it applies:\n#\n"
	text := full(t)
	before, got, found := strings.Cut(text, head)
	if !found {
		t.Fatalf("%s has no line %q", file, head)
	}
	var want strings.Builder
	for line := range strings.Lines(keyTable()) {
		want.WriteString("#   " + line)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+head+want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want.String() {
		t.Errorf("the table of %s is not that of the schema (go test ./conf -run TestKeyTable -update):\n%s", file, lineDiff(want.String(), got))
	}
}

// Each key has a class, what it is, and a reason if it needs a restart.
func TestKeys_Tags(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var check func(t *testing.T, typ reflect.Type, why string)
	check = func(t *testing.T, typ reflect.Type, why string) {
		if seen[typ] {
			return
		}
		seen[typ] = true
		for i := range typ.NumField() {
			sf, f := typ.Field(i), fieldAt(typ, i)
			reason := f.why
			if reason == "" {
				reason = why
			}
			kind := f.kind
			if kind.Kind() == reflect.Slice {
				kind = kind.Elem()
			}
			switch class := sf.Tag.Get("class"); {
			case class != "once" && class != "login" && class != "restart":
				t.Errorf("%s.%s: class %q", typ.Name(), f.name, class)
			case class == "restart" && reason == "":
				t.Errorf("%s.%s: no reason for a restart", typ.Name(), f.name)
			case isLeaf(kind) && f.is == "":
				t.Errorf("%s.%s: no kind of value", typ.Name(), f.name)
			}
			if !isLeaf(kind) {
				check(t, structOf(kind), reason)
			}
		}
	}
	check(t, reflect.TypeFor[fileConfig](), "")
}

// The example has every key.
func TestExample_AllKeys(t *testing.T) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(full(t)), &doc); err != nil {
		t.Fatal(err)
	}
	given := map[string]bool{}
	var visit func(key string, n *yaml.Node)
	visit = func(key string, n *yaml.Node) {
		given[key] = true
		for i, c := range n.Content {
			switch {
			case n.Kind == yaml.SequenceNode:
				visit(key+"[]", c)
			case i%2 == 1:
				visit(strings.TrimPrefix(key+"."+n.Content[i-1].Value, "."), c)
			}
		}
	}
	visit("", doc.Content[0])
	text := full(t)
	visitKeys("", "", reflect.TypeFor[fileConfig](), func(key string, f field) {
		// Of the sources of a secret, one is given; comments explain the others. Discovery
		// has the keys of a target.
		if strings.HasPrefix(key, "discovery.authentication.") {
			key = "targets[]." + strings.TrimPrefix(key, "discovery.")
		}
		if !given[key] && !strings.Contains(text, "# "+f.name+" ") {
			t.Errorf("%s is not in the example", key)
		}
	})
}

// keyTable returns a line for each key of the schema: its path, when a change of it
// applies, and what prevents that without a restart.
func keyTable() string {
	var b strings.Builder
	visitKeys("", "", reflect.TypeFor[fileConfig](), func(key string, f field) {
		line := fmt.Sprintf("%-52s %s", key, f.class)
		if note := f.note(); note != "" {
			line += ": " + note
		}
		b.WriteString(strings.TrimSpace(line) + "\n")
	})
	return b.String()
}

// note is what the table says in addition to the class.
func (f field) note() string {
	switch {
	case f.secretSource() && f.name == "secret_file":
		return "the file is read again by every reload"
	case f.secretSource() && f.name == "secret_env":
		return "another variable; a variable keeps the value that it had when odx started"
	case f.name == "certificate" || f.name == "private_key":
		return "the file is read again by every reload"
	default:
		return f.reason()
	}
}

// visitKeys visits all keys that have values of their own, with [] after each list of
// entries. why is the reason of the enclosing key.
func visitKeys(key, why string, t reflect.Type, visit func(key string, f field)) {
	for i := range t.NumField() {
		f := fieldAt(t, i)
		if f.why == "" {
			f.why = why
		}
		at := strings.TrimPrefix(key+"."+f.name, ".")
		switch kind := f.kind; {
		case isLeaf(kind) || kind.Kind() == reflect.Slice && isLeaf(kind.Elem()):
			visit(at, f)
		case kind.Kind() == reflect.Slice:
			visitKeys(at+"[]", f.why, structOf(kind.Elem()), visit)
		default:
			visitKeys(at, f.why, structOf(kind), visit)
		}
	}
}
