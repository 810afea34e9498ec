package conf

import (
	"crypto/sha256"
	"encoding/hex"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"
)

// ofOneMachine are the keys that may differ between the nodes of a pool.
var ofOneMachine = []string{"memory", "log", "audit", "alerts"}

// Shared returns a digest for each key of the file that the nodes of a pool have to agree on.
// Defaults are filled in. Left out are paths, the ways to Ceph, names of network interfaces and of
// environment variables, and ofOneMachine, which are a machine's own, and secrets, which are often
// in files.
func (c *Config) Shared() (map[string]string, error) {
	f := c.file()
	fillDefaults(reflect.ValueOf(f).Elem())
	root := mapping(reflect.ValueOf(f).Elem(), printing{})
	digests := map[string]string{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key := root.Content[i].Value
		if slices.Contains(ofOneMachine, key) {
			continue
		}
		text, err := yaml.Marshal(withoutOwn(reflect.TypeFor[fileConfig](), key, root.Content[i+1]))
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(text)
		digests[key] = hex.EncodeToString(sum[:8])
	}
	return digests, nil
}

// withoutOwn returns the value of a key of a struct of the schema without what is a machine's own.
func withoutOwn(t reflect.Type, key string, n *yaml.Node) *yaml.Node {
	f := fieldNamed(t, key)
	kind := f.kind
	if kind.Kind() == reflect.Slice {
		kind = kind.Elem()
	}
	if isLeaf(kind) {
		if slices.Contains([]string{"path", "secret", "env", "interface", "cephuser"}, f.is) {
			return &yaml.Node{Kind: yaml.ScalarNode}
		}
		return n
	}
	list := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		list = n.Content
	}
	for _, item := range list {
		if item.Kind != yaml.MappingNode {
			continue
		}
		var kept []*yaml.Node
		for i := 0; i+1 < len(item.Content); i += 2 {
			if value := withoutOwn(structOf(kind), item.Content[i].Value, item.Content[i+1]); value.Value != "" || value.Kind != yaml.ScalarNode {
				kept = append(kept, item.Content[i], value)
			}
		}
		item.Content = kept
	}
	return n
}

// Differ returns the keys whose digests differ, in order.
func Differ(a, b map[string]string) []string {
	var found []string
	for key := range a {
		if a[key] != b[key] {
			found = append(found, key)
		}
	}
	for key := range b {
		if _, ok := a[key]; !ok {
			found = append(found, key)
		}
	}
	slices.Sort(found)
	return found
}
