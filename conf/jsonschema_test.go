package conf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// compiledSchema returns the schema, compiled by a validator that others wrote.
func compiledSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("odx.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("odx.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// instance returns the JSON of a YAML file as an editor understands it. The error is that
// of the YAML.
func instance(text []byte) (any, error) {
	var any any
	if err := yaml.Unmarshal(text, &any); err != nil { // repeated keys, too
		return nil, err
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return nil, err
	}
	if dec.Decode(new(yaml.Node)) == nil {
		return nil, errors.New("two documents")
	}
	return jsonOf(doc.Content[0]), nil
}

// jsonOf converts a node by the core schema of YAML 1.2, without merge keys.
func jsonOf(n *yaml.Node) any {
	switch n.Kind {
	case yaml.AliasNode:
		return jsonOf(n.Alias)
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = jsonOf(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, c := range n.Content {
			list = append(list, jsonOf(c))
		}
		return list
	}
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int", "!!float":
		if number := json.Number(n.Value); json.Valid([]byte(n.Value)) {
			return number
		}
	}
	return n.Value
}

// exception finds the line of a file in testdata that says why the schema accepts the file
// although the loader does not.
var exception = regexp.MustCompile(`(?m)^# The schema accepts this: .+$`)

// Schema and loader have the same verdict on every file. Where the schema refuses a value,
// the loader has a problem with it or with what it is part of.
func TestSchema_Verdict(t *testing.T) {
	schema := compiledSchema(t)
	var files []string
	for _, pattern := range []string{"*.yaml", "examples/*.yaml", "testdata/*/*.yaml"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	exceptions := 0
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, loaderErr := Parse(file, text)
			var schemaErr error
			value, err := instance(text)
			if err != nil {
				schemaErr = err
			} else {
				schemaErr = schema.Validate(value)
			}
			excepted := exception.Match(text)
			if excepted {
				exceptions++
			}
			switch {
			case loaderErr == nil && schemaErr != nil:
				t.Errorf("the schema refuses it: %v", schemaErr)
			case loaderErr != nil && schemaErr == nil && !excepted:
				t.Errorf("the schema accepts it: %v", loaderErr)
			case excepted && (loaderErr == nil || schemaErr != nil):
				t.Errorf("it is no exception: the loader says %v, the schema %v", loaderErr, schemaErr)
			}
			var invalid *jsonschema.ValidationError
			if errors.As(schemaErr, &invalid) {
				checkLocations(t, loaderErr, invalid)
			}
		})
	}
	t.Logf("%d files, %d exceptions", len(files), exceptions)
}

// checkLocations checks that the loader has a problem wherever the schema has one.
func checkLocations(t *testing.T, loaderErr error, invalid *jsonschema.ValidationError) {
	t.Helper()
	problems, _ := errors.AsType[Problems](loaderErr)
	for _, at := range leaves(invalid) {
		if !slices.ContainsFunc(problems, func(p Problem) bool {
			return at == "" || strings.HasPrefix(at, p.Key) || strings.HasPrefix(p.Key, at)
		}) {
			t.Errorf("only the schema refuses %s: %v", at, invalid)
		}
	}
}

// leaves returns where the causes of an error are, as keys.
func leaves(e *jsonschema.ValidationError) []string {
	if len(e.Causes) == 0 {
		key := ""
		for _, part := range e.InstanceLocation {
			if part[0] >= '0' && part[0] <= '9' {
				key += "[" + part + "]"
			} else {
				key = strings.TrimPrefix(key+"."+part, ".")
			}
		}
		return []string{key}
	}
	var all []string
	for _, c := range e.Causes {
		all = append(all, leaves(c)...)
	}
	return all
}

// For each kind of value: what the loader and the schema accept alike.
func TestSchema_Values(t *testing.T) {
	schema := compiledSchema(t)
	for place, values := range map[string][]string{
		"data_dir: d\nportals: [%s]\ntargets: [{name: iqn.2026-11.example:t, luns: [{lun: 0, volume: v}]}]\n": {
			`"127.0.0.1:0"`, `"[::1]:3260,2"`, `"[fe80::1%eth0]:1"`, `{address: "a:1"}`, `{address: "a:1", advertise: "b:2"}`,
			`"127.0.0.1"`, `":3260"`, `3260`, `null`, `{}`, `{advertise: "b:2"}`, `[]`, `"a b:1"`,
		},
		minimal + "store: {cache: %s}\n":                     {"16MiB", "17000000", `"17000000"`, "1.5GiB", "1 GiB", "2g", "null", "1GB", "-1", "16MB", "true", "[]", "16777215"},
		minimal + "store: {dedup_unit: %s}\n":                {"4KiB", "4096", "64KiB", "65536", "5000", "128", "131072"},
		minimal + "store: {dedup: %s}\n":                     {"true", "false", `"true"`, "null", "yes", "no", "1", `""`},
		minimal + "store: {scrub_every: %s}\n":               {"30d", "1h", "never", "0", "90m", "weekly", "30", "-1d", "5x"},
		minimal + "store: {soft_threshold: %s}\n":            {"0", "99", `"50"`, "100", "-1", "1.5", "half"},
		minimal + "limits: {ping_after: %s}\n":               {"0", "15s", "1m30s", "15", "soon", "-5s"},
		minimal + "limits: {login_timeout: %s}\n":            {"15s", "1.5s", "1h", "15", "0", "x"},
		minimal + "limits: {data_segment: %s}\n":             {"512", "16777215", "256KiB", "511", "16777216"},
		minimal + "tokens: {rules: [{priority: %s}]}\n":      {"-100", "100", `"-5"`, "101", "-101", "+5", "high"},
		minimal + "tokens: {access: %s}\n":                   {"anyone", "initiator", "everyone", "null"},
		minimal + "log: {level: %s}\n":                       {"debug", "info", "null", "verbose", "1"},
		minimal + "log: %s\n":                                {"{}", "null", "debug", "[]"},
		minimal + "views: [{name: v, cache: %s}]\n":          {"{of: a}", "{of: 'file:a/b', memory: 1MiB}", "{of: 'backing:x'}", "{}", "null", "{of: 'a b'}", "{of: 'file:/x'}", "{of: a, memory: 1}"},
		minimal + "views: [{name: v, stripe: {legs: %s}}]\n": {"[a, b]", "[a]", "[]", "null", "[a, [b]]"},
		minimal + "views: [{name: v, %s}]\n":                 {"verify: {of: a}", "size: 1GiB", "verify: {of: a}, origin: {of: b}", "verify: {of: a}, origin: null"},
		minimal + "copy: {rules: %s}\n":                      {"[{allow: true}]", "[]", "[{}]", "[{allow: maybe}]", "[{allow: true, from: [a*, 'file:x']}]", "[{allow: true, to: []}]", "[{allow: true, to: ['a*b']}]"},
		minimal + "discovery: {authentication: %s}\n":        {"{users: [{name: a, secret: b}]}", "null", "{}", "{users: []}", "{users: [{name: a}]}", "{users: [{name: a, secret: b, secret_env: C}]}", "{users: [{name: a, secret_env: 1C}]}", "{users: [{name: a, secret: b}], algorithms: []}", "{users: [{name: a, secret: b}], mutual: null}"},
		minimal + "api: %s\n":                                {"{listen: 'a:1', secret: s}", "{listen: 'a:1'}", "{listen: a, secret: s}", "{listen: 'a:1', secrets: [{name: n, role: read, secret: s}]}", "{listen: 'a:1', secrets: [], secret: s}", "{listen: 'a:1', secrets: [{name: n, role: root, secret: s}]}", "{listen: 'a:1', secret: s, certificate: c}", "{listen: 'a:1', secret: s, certificate: c, private_key: k}", "null"},
		minimal + "audit: %s\n":                              {"{file: a}", "{}", "null", "{file: a, keep: 0}", "{file: a, max_size: 1MiB, keep: 1000}"},
		minimal + "qos: %s\n":                                {"{}", "{initiators: []}", "{initiators: [{initiators: ['*'], iops: 5}]}", "{initiators: [{initiators: ['*']}]}", "{initiators: [{iops: 5}]}", "{background: {bytes_per_s: 1MiB, bytes_burst: 2MiB}}", "{background: {bytes_burst: 2MiB}}"},
		"data_dir: d\nportals: ['a:1']\ntargets: [{name: %s, luns: [{lun: 0, volume: v}]}]\n": {"iqn.2026-11.example:t", "IQN.2026-11.Example:T", "eui.02004567a425678D", "naa.52004567BA64678D", "iqn.2026-13.example:t", "iqn.2026-11", "eui.1", "disks", "5", "null"},
		"data_dir: d\nportals: ['a:1']\ntargets: [{name: iqn.2026-11.example:t, luns: [%s]}]\n": {
			"{lun: 0, volume: v}", "{lun: '0', volume: v}", "{lun: 16383, file: a/b}", "{lun: 16384, volume: v}", "{lun: -1, volume: v}", "{volume: v}", "{lun: 0}", "{lun: 0, volume: v, file: f}",
			"{lun: 0, volume: 007}", "{lun: 0, volume: v, size: 512}", "{lun: 0, volume: v, size: 513}", "{lun: 0, volume: v, block_size: '4096'}", "{lun: 0, volume: v, block_size: 520}", "{lun: 0, backing: x}", "{lun: 0, backing: 'file:x'}", "{lun: 0, file: ../x}",
		},
		"data_dir: d\nportals: ['a:1']\ntargets: [{name: iqn.2026-11.example:t, %s}]\n": {"luns: []", "redirect: {to: 'a:1'}", "redirect: {to: a}", "redirect: null", "luns: [{lun: 0, volume: v}], redirect: null", "luns: [{lun: 0, volume: v}], access: [{initiators: [x]}]", "luns: [{lun: 0, volume: v}], access: [{read_only: true}]", "luns: [{lun: 0, volume: v}], access: []",
			"luns: [{lun: 0, volume: v}], access: [{addresses: [192.0.2.0/24, '::1']}]", "luns: [{lun: 0, volume: v}], access: [{addresses: [host]}]", "luns: [{lun: 0, volume: v}], access: [{initiators: ['a*b']}]", "luns: [{lun: 0, volume: v}], access: [{initiators: ['a b']}]"},
	} {
		for _, v := range values {
			text := []byte(fmt.Sprintf(strings.ReplaceAll(place, "%s", "%[1]s"), v))
			t.Run(fmt.Sprintf("%.40s/%s", place[max(0, len(place)-40):], v), func(t *testing.T) {
				_, loaderErr := Parse("odx.yaml", text)
				value, err := instance(text)
				if err == nil {
					err = schema.Validate(value)
				}
				if (loaderErr == nil) != (err == nil) {
					t.Errorf("the loader says %v\nthe schema %v", loaderErr, err)
				}
			})
		}
	}
}
