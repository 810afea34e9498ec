package conf

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// object is a JSON Schema or a part of one.
type object = map[string]any

// Schema returns the JSON Schema (draft 2020-12) of a configuration file, for editors. It
// accepts every configuration that Parse accepts, but for a few spellings of numbers. It
// does not know what depends on other values: names that have to exist or differ, sizes
// with units that are out of range, groups without portals. Parse does.
func Schema() ([]byte, error) {
	s := schemaBuilder{defs: object{}}
	root := s.object(reflect.TypeFor[fileConfig]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Configuration of odx"
	root["$defs"] = s.defs
	text, err := json.MarshalIndent(root, "", "  ")
	return append(text, '\n'), err
}

// schemaBuilder collects the definitions of types.
type schemaBuilder struct{ defs object }

// ref returns a reference to the definition of a struct.
func (s *schemaBuilder) ref(t reflect.Type) object {
	t = structOf(t)
	name := strings.TrimPrefix(t.Name(), "file")
	if s.defs[name] == nil {
		s.defs[name] = object{} // bounds the recursion
		s.defs[name] = s.object(t)
	}
	ref := object{"$ref": "#/$defs/" + name}
	if t == reflect.TypeFor[filePortal]() {
		return object{"anyOf": []any{valueSchema("portal"), ref}}
	}
	return ref
}

// object returns the schema of a struct.
func (s *schemaBuilder) object(t reflect.Type) object {
	properties, required := object{}, []string{}
	for i := range t.NumField() {
		f := fieldAt(t, i)
		if f.needed {
			required = append(required, f.name)
		}
		properties[f.name] = s.property(f)
	}
	o := object{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		o["required"] = required
	}
	for key, value := range together(t) {
		o[key] = value
	}
	return o
}

// property returns the schema of the value of a key.
func (s *schemaBuilder) property(f field) object {
	var o object
	switch {
	case isLeaf(f.kind):
		o = valueSchema(f.is)
	case f.kind.Kind() == reflect.Slice:
		o = s.list(f)
	default:
		o = s.ref(f.kind)
	}
	// A key without a value is as good as absent.
	if mayBeNull := !f.needed && !f.part && f.items == "" && f.name != "mutual" && !f.secretSource(); mayBeNull {
		o = object{"anyOf": []any{o, object{"type": "null"}}}
	}
	o["description"] = f.describe()
	if f.fallback != "" {
		o["default"] = literal(f.fallback)
	}
	return o
}

// list returns the schema of a list.
func (s *schemaBuilder) list(f field) object {
	item := f.kind.Elem()
	o := object{"type": "array"}
	if isLeaf(item) {
		o["items"] = valueSchema(f.is)
	} else {
		o["items"] = s.ref(item)
	}
	for i, bound := range strings.Fields(f.items) {
		n, _ := strconv.Atoi(bound)
		o[[]string{"minItems", "maxItems"}[i]] = n
	}
	return o
}

// describe says when a change of the key applies, and what its absence means.
func (f field) describe() string {
	text := "A change applies at once."
	switch f.class {
	case NewLogins:
		text = "A change applies to new logins."
	case NeedsRestart:
		text = "A change needs a restart: " + f.why + "."
	}
	if f.auto != "" {
		text += " Default: " + f.auto + "."
	}
	return text
}

// literal returns a default as the JSON value that editors insert.
func literal(text string) any {
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	if text == "true" || text == "false" {
		return text == "true"
	}
	return text
}

// together returns what the keys of a struct say together.
func together(t reflect.Type) object {
	secret := []string{"secret", "secret_file", "secret_env"}
	switch t {
	case reflect.TypeFor[fileTarget]():
		return object{"anyOf": []any{
			object{"required": []string{"luns"}, "properties": object{"luns": object{"type": "array", "minItems": 1}}},
			object{"required": []string{"redirect"}, "properties": object{"redirect": object{"type": "object"}}},
		}}
	case reflect.TypeFor[fileLUN]():
		return object{"oneOf": present("volume", "file", "backing", "view")}
	case reflect.TypeFor[fileView]():
		return object{"oneOf": present("partition", "stripe", "mirror", "cache", "verify", "origin", "snapshot")}
	case reflect.TypeFor[fileReplica]():
		return object{"oneOf": present("every", "at")}
	case reflect.TypeFor[fileSnapshotPolicy]():
		return object{"oneOf": present("every", "at")}
	case reflect.TypeFor[fileKeep]():
		return object{"anyOf": present("last", "hourly", "daily", "weekly", "monthly", "yearly", "within")}
	case reflect.TypeFor[filePeer]():
		one := object{"not": object{"anyOf": []any{object{"required": secret[:2]}, object{"required": secret[1:]}, object{"required": []string{secret[0], secret[2]}}}}}
		one["dependentRequired"] = pairs("certificate", "private_key", "private_key", "certificate")
		return one
	case reflect.TypeFor[fileAlert]():
		return object{"not": object{"anyOf": []any{object{"required": secret[:2]}, object{"required": secret[1:]}, object{"required": []string{secret[0], secret[2]}}}}}
	case reflect.TypeFor[fileUser](), reflect.TypeFor[fileMutual](), reflect.TypeFor[fileLogin](), reflect.TypeFor[fileAPISecret]():
		return object{"oneOf": present(secret...)}
	case reflect.TypeFor[fileAPI]():
		listed := object{"required": []string{"secrets"}, "not": object{"anyOf": present(secret...)}}
		return object{"oneOf": append(present(secret...), listed), "dependentRequired": pairs("certificate", "private_key", "private_key", "certificate")}
	case reflect.TypeFor[fileAccess]():
		return object{"anyOf": present("initiators", "addresses")}
	case reflect.TypeFor[fileRate]():
		return object{"dependentRequired": pairs("iops_burst", "iops", "bytes_burst", "bytes_per_s")}
	case reflect.TypeFor[fileInitiatorQoS](), reflect.TypeFor[fileLUNQoS]():
		return object{"anyOf": present("iops", "bytes_per_s"), "dependentRequired": pairs("iops_burst", "iops", "bytes_burst", "bytes_per_s")}
	default:
		return nil
	}
}

// present returns a schema for each key that requires it, with a value.
func present(keys ...string) []any {
	var list []any
	for _, key := range keys {
		list = append(list, object{"required": []string{key}, "properties": object{key: object{"not": object{"type": "null"}}}})
	}
	return list
}

// pairs returns the keys that each key requires.
func pairs(keys ...string) object {
	o := object{}
	for i := 0; i+1 < len(keys); i += 2 {
		o[keys[i]] = []string{keys[i+1]}
	}
	return o
}

// The syntax of values, as patterns of JSON Schema (ECMA-262).
var valuePatterns = map[string]string{
	"path":      `.`,
	"secret":    `.`,
	"portal":    hostPattern + `:[0-9]{1,5}(,[0-9]{1,5})?$`,
	"address":   hostPattern + `:[0-9]{1,5}$`,
	"node":      nodeName.String(),
	"ip":        `^[0-9A-Fa-f.:]+$`,
	"cephuser":  `^client\..+$`,
	"interface": `^[^\x00-\x20/:]{1,15}$`,
	"prefix":    `^[0-9A-Fa-f.:]+/[0-9]{1,3}$`,
	"listen":    `^(\[.+\]|[^:]+):[0-9]{1,5}$`,
	"name":      `^(([iI][qQ][nN]\.[0-9]{4}-(0[1-9]|1[0-2])(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)+(:[A-Za-z0-9.:-]+)?)|[eE][uU][iI]\.[0-9A-Fa-f]{16}|[nN][aA][aA]\.([0-9A-Fa-f]{16}|[0-9A-Fa-f]{32}))$`,
	"pattern":   `^([^\x00-\x20\x7f*]+\*?|\*)$`,
	"network":   `^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$`,
	"volume":    volumeName.String(),
	"label":     label.String(),
	"file":      `^[^/.]`,
	"backing":   `^(file:.|iscsi://[^/]+/[^/]+/[0-9]+$)`,
	"identity":  identityText.String(),
	"device":    `^(file:[^/.].*|backing:.+|[A-Za-z0-9][A-Za-z0-9._-]{0,63})$`,
	"media":     `^[^*]*\*?$`,
	"right":     `^(anyone|initiator|group:.+)$`,
	"chapname":  `^[^\x00-\x1f\x7f]{1,255}$`,
	"env":       variableName.String(),
	"url":       `^https?://[^/].*$`,

	"replicated":   `^(file:([^/.*][^*]*)?\*?|[A-Za-z0-9][A-Za-z0-9._-]{0,63}\*?|\*)$`,
	"peer":         label.String(),
	"object":       `^[^/.]`,
	"snapshotted":  `^(file:)?[^*]*\*?$`,
	"period":       `^([0-9]{1,3}d|\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`,
	"cron":         `^(@(hourly|daily|midnight|weekly|monthly|yearly|annually)|[^=@]+)$`,
	"zone":         `^[A-Za-z]`,
	"snapshotname": `^[A-Za-z0-9%][A-Za-z0-9._%-]*$`,
	"span":         `^([0-9]{1,3}y)?([0-9]{1,4}m)?([0-9]{1,5}d)?([0-9]{1,6}h)?$`,
	"word":         ``,
	"storeid":      `^[0-9A-Fa-f]{32}$`,
}

const (
	hostPattern     = `^(\[[0-9A-Fa-f:.]+(%[^\]]+)?\]|[A-Za-z0-9.-]+)`
	durationPattern = `^\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`
)

// valueSchema returns the schema of a scalar by the tag is:
//
//	bool
//	enum WORD...
//	int LEAST MOST
//	size LEAST [MOST [MULTIPLE]]  bytes, or with a unit
//	power LEAST MOST              a size that is a power of two
//	duration, ping, interval      a duration; or 0; or days, 0 or never
//
// or the name of a pattern. As Parse takes the text of a scalar, 5 and "5" are the same.
func valueSchema(is string) object {
	kind, arguments, _ := strings.Cut(is, " ")
	words := strings.Fields(arguments)
	switch kind {
	case "bool":
		return object{"enum": []any{true, false, "true", "false"}}
	case "enum":
		return object{"enum": enum(words)}
	case "int":
		return intSchema(words[0], words[1])
	case "size":
		return sizeSchema(words)
	case "power":
		return powerSchema(words[0], words[1])
	case "duration":
		return object{"type": "string", "pattern": durationPattern}
	case "kept":
		return object{"anyOf": []any{intSchema("0", "100000"), object{"enum": []any{"unlimited"}}}}
	case "ping":
		return object{"anyOf": []any{valueSchema("duration"), object{"enum": []any{0, "0"}}}}
	case "interval":
		return object{"anyOf": []any{valueSchema("duration"), object{"type": "string", "pattern": `^[0-9]{1,3}d$`}, object{"enum": []any{"never", 0, "0"}}}}
	}
	o := object{"type": []string{"string", "number", "boolean"}, "pattern": valuePatterns[kind]}
	switch kind {
	case "portal", "address", "listen", "name", "network", "backing", "right", "url": // never a number
		o["type"] = "string"
	}
	if kind == "name" || kind == "pattern" {
		o["maxLength"] = maxName
	}
	return o
}

// enum returns the values of an enumeration, numbers in both forms.
func enum(words []string) []any {
	var values []any
	for _, w := range words {
		if n, ok := literal(w).(int); ok {
			values = append(values, n)
		}
		values = append(values, w)
	}
	return values
}

func intSchema(least, most string) object {
	low, _ := strconv.Atoi(least)
	high, _ := strconv.Atoi(most)
	sign := `\+?`
	if low < 0 {
		sign = `[+-]?`
	}
	return object{"anyOf": []any{
		object{"type": "integer", "minimum": low, "maximum": high},
		object{"type": "string", "pattern": fmt.Sprintf(`^%s0*[0-9]{1,%d}$`, sign, len(most))},
	}}
}

// sizePattern is sizeSyntax without groups that do not capture, which are the same.
var sizePattern = strings.ReplaceAll(sizeSyntax.String(), "(?:", "(")

func sizeSchema(bounds []string) object {
	number := object{"type": "integer"}
	for i, key := range []string{"minimum", "maximum", "multipleOf"}[:len(bounds)] {
		number[key], _ = ParseSize(bounds[i])
	}
	return object{"anyOf": []any{object{"type": "string", "pattern": sizePattern}, number}}
}

func powerSchema(least, most string) object {
	n, _ := ParseSize(least)
	high, _ := ParseSize(most)
	var values []any
	for ; n <= high; n *= 2 {
		values = append(values, FormatSize(n), n)
	}
	return object{"anyOf": []any{object{"enum": values}, object{"type": "string", "pattern": sizePattern}}}
}
