package conf

import (
	"reflect"
	"strings"
)

// field is a key of the schema, with its tags.
type field struct {
	index int
	// name is the key in its mapping.
	name string
	kind reflect.Type

	is       string
	needed   bool
	fallback string // the default
	auto     string // what the default depends on
	class    Class
	why      string
	list     string
	items    string
	part     bool
}

// fieldAt returns field i of a struct of the schema.
func fieldAt(t reflect.Type, i int) field {
	sf := t.Field(i)
	_, needed := sf.Tag.Lookup("need")
	_, part := sf.Tag.Lookup("part")
	return field{
		index: i, name: sf.Tag.Get("yaml"), kind: sf.Type,
		is: sf.Tag.Get("is"), needed: needed, fallback: sf.Tag.Get("default"), auto: sf.Tag.Get("auto"),
		class: classOf(sf.Tag.Get("class")), why: sf.Tag.Get("why"), list: sf.Tag.Get("list"), items: sf.Tag.Get("items"), part: part,
	}
}

// fieldNamed returns the field of a struct of the schema for a key that it has.
func fieldNamed(t reflect.Type, key string) field {
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("yaml") == key {
			return fieldAt(t, i)
		}
	}
	panic("conf: " + t.Name() + " has no key " + key)
}

// reason returns why a change of the key needs a restart; "" if it does not.
func (f field) reason() string {
	if f.class != NeedsRestart {
		return ""
	}
	return f.why
}

// secret reports whether the value of the key is a secret.
func (f field) secret() bool { return f.is == "secret" }

// secretSource reports whether the key is one of those that give a secret.
func (f field) secretSource() bool {
	return f.name == "secret" || f.name == "secret_file" || f.name == "secret_env"
}

// masked stands for a secret in what is printed.
const masked = "(masked)"

// shown returns a value as it may be printed.
func (f field) shown(value string) string {
	switch {
	case value == "":
		return ""
	case f.secret():
		return masked
	case f.is == "url":
		return maskedURL(value)
	}
	return value
}

// isLeaf reports whether t is the type of a scalar.
func isLeaf(t reflect.Type) bool { return t == reflect.TypeFor[*string]() }

// isStruct reports whether t is a set of keys, perhaps behind a pointer.
func isStruct(t reflect.Type) bool {
	return t.Kind() == reflect.Struct || t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct
}

// fillDefaults sets the absent keys of a struct of the schema to their defaults.
func fillDefaults(v reflect.Value) {
	for i := range v.NumField() {
		f, value := fieldAt(v.Type(), i), v.Field(i)
		switch {
		case isLeaf(f.kind):
			if value.IsNil() && f.fallback != "" {
				value.Set(reflect.ValueOf(&f.fallback))
			}
		case f.part && value.IsZero():
		case f.kind.Kind() == reflect.Slice && isStruct(f.kind.Elem()):
			for j := range value.Len() {
				fillDefaults(pointed(value.Index(j)))
			}
		case f.kind.Kind() == reflect.Struct, f.kind.Kind() == reflect.Pointer && !value.IsNil():
			fillDefaults(pointed(value))
		}
	}
}

// pointed returns what v points at, or v.
func pointed(v reflect.Value) reflect.Value {
	if v.Kind() == reflect.Pointer {
		return v.Elem()
	}
	return v
}

// plain reports whether the text of a scalar is written as it is. Other texts are quoted
// where YAML would take them for a number or a truth value.
func (f field) plain() bool {
	switch kind, _, _ := strings.Cut(f.is, " "); kind {
	case "bool", "enum", "int", "size", "power", "duration", "ping", "interval":
		return true
	default:
		return false
	}
}

// structOf returns the struct that t is, or points at.
func structOf(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}
