package conf

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// document is a configuration file that is edited. After each change, root is the tree of
// text. A change is made to the tree and, where that is possible, to the lines of the text
// that it concerns. If the changed text is not what the tree says, the whole tree is written
// out: then comments and order stay, but not blank lines, indentation and alignment.
type document struct {
	file string
	text []byte
	root *yaml.Node
	// reformatted is how many changes have written out the whole tree.
	reformatted int
}

// openDocument returns the document of a valid configuration.
func openDocument(file string, text []byte) (*document, error) {
	for _, mark := range byteOrderMarks {
		if mark.name != "UTF-8" && bytes.HasPrefix(text, []byte(mark.bytes)) {
			return nil, Problem{File: file, Message: "the file is in UTF-16, which cannot be edited; save it as UTF-8"}
		}
	}
	root, err := parseTree(text)
	if err != nil {
		return nil, Problems{syntaxProblem(file, err)}
	}
	return &document{file: file, text: bytes.Clone(text), root: root}, nil
}

func parseTree(text []byte) (*yaml.Node, error) {
	root := new(yaml.Node)
	if err := yaml.Unmarshal(text, root); err != nil {
		return nil, err
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) != 1 {
		return nil, errors.New("no document")
	}
	return root, nil
}

// top returns the mapping of the whole file.
func (d *document) top() *yaml.Node { return d.root.Content[0] }

// followed returns what an alias stands for, or n.
func followed(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// valueOf returns the value of a key of a mapping, or nil.
func valueOf(n *yaml.Node, key string) *yaml.Node {
	if i := keyIndex(followed(n), key); i >= 0 {
		return followed(n).Content[i+1]
	}
	return nil
}

// keyIndex returns the index of a key in the contents of a mapping, or -1.
func keyIndex(n *yaml.Node, key string) int {
	if n == nil || n.Kind != yaml.MappingNode {
		return -1
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Kind == yaml.ScalarNode && n.Content[i].Value == key {
			return i
		}
	}
	return -1
}

// indexBy returns the index of the entry of a list whose key has a value that matches, or -1.
func indexBy(list *yaml.Node, key string, matches func(string) bool) int {
	if list == nil {
		return -1
	}
	return slices.IndexFunc(list.Content, func(n *yaml.Node) bool {
		v := followed(valueOf(n, key))
		return v != nil && v.Kind == yaml.ScalarNode && matches(v.Value)
	})
}

// list returns a list that may be edited; nil if the key is absent.
func (d *document) list(holder *yaml.Node, key string) (*yaml.Node, error) {
	n, err := d.own(valueOf(holder, key))
	if n == nil || err != nil || n.Kind != yaml.SequenceNode {
		return nil, err
	}
	return n, nil
}

// targetIndex returns the list of targets and the index of one.
func (d *document) targetIndex(name string) (*yaml.Node, int, error) {
	targets, err := d.list(d.top(), "targets")
	if err != nil {
		return nil, 0, err
	}
	i := indexBy(targets, "name", func(text string) bool {
		normal, err := ParseName(text)
		asked, askedErr := ParseName(name)
		return err == nil && askedErr == nil && normal == asked
	})
	if i < 0 {
		return nil, 0, fmt.Errorf("target %s %w", name, ErrNotFound)
	}
	return targets, i, nil
}

// target returns the entry of a target, which may be edited.
func (d *document) target(name string) (*yaml.Node, error) {
	targets, i, err := d.targetIndex(name)
	if err != nil {
		return nil, err
	}
	return d.own(targets.Content[i])
}

// own returns n, or a Problem if n stands in more than one place: an edit would change all
// of them.
func (d *document) own(n *yaml.Node) (*yaml.Node, error) {
	if n == nil {
		return nil, nil
	}
	if n.Kind == yaml.AliasNode {
		return nil, d.sharedProblem(n.Line, n.Value, n.Alias.Line)
	}
	if a := d.aliasInto(n); a != nil {
		return nil, d.sharedProblem(n.Line, a.Value, a.Line)
	}
	return n, nil
}

func (d *document) sharedProblem(line int, anchor string, other int) error {
	return Problem{File: d.file, Line: line, Message: fmt.Sprintf("cannot be edited: it also is the value at line %d (alias *%s); write both out", other, anchor)}
}

// aliasInto returns an alias that stands for n or for what n is part of, or nil.
func (d *document) aliasInto(n *yaml.Node) *yaml.Node {
	for _, a := range aliases(d.root) {
		if contains(a.Alias, n) {
			return a
		}
	}
	return nil
}

// aliases returns the aliases in a tree.
func aliases(n *yaml.Node) (found []*yaml.Node) {
	if n.Kind == yaml.AliasNode {
		return []*yaml.Node{n}
	}
	for _, c := range n.Content {
		found = append(found, aliases(c)...)
	}
	return found
}

// contains reports whether n is in a tree, aliases aside.
func contains(tree, n *yaml.Node) bool {
	return tree == n || slices.ContainsFunc(tree.Content, func(c *yaml.Node) bool { return contains(c, n) })
}

// checkAnchors returns a Problem if something outside of n stands for something in n, which
// is to be removed.
func (d *document) checkAnchors(n *yaml.Node) error {
	for _, a := range aliases(d.root) {
		if contains(n, a.Alias) && !contains(n, a) {
			return Problem{File: d.file, Line: a.Alias.Line, Message: fmt.Sprintf("cannot be removed: line %d uses it (alias *%s); write it out there", a.Line, a.Value)}
		}
	}
	return nil
}

// insert adds an entry to a list, before entry i.
func (d *document) insert(list *yaml.Node, i int, item *yaml.Node) error {
	text := d.splice(func(s *source) (string, bool) { return s.insert(list, i, item) })
	list.Content = slices.Insert(list.Content, i, item)
	return d.settle(text)
}

// remove removes entry i of a list.
func (d *document) remove(list *yaml.Node, i int) error {
	if err := d.checkAnchors(list.Content[i]); err != nil {
		return err
	}
	text := d.splice(func(s *source) (string, bool) { return s.remove(list, i) })
	list.Content = slices.Delete(list.Content, i, i+1)
	return d.settle(text)
}

// set sets a key of a mapping.
func (d *document) set(n *yaml.Node, key string, value *yaml.Node) error {
	i := keyIndex(n, key)
	if i < 0 {
		text := d.splice(func(s *source) (string, bool) { return s.addKey(n, key, value) })
		n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, value)
		return d.settle(text)
	}
	if err := d.checkAnchors(n.Content[i+1]); err != nil {
		return err
	}
	text := d.splice(func(s *source) (string, bool) { return s.setValue(n.Content[i+1], value) })
	n.Content[i+1] = value
	return d.settle(text)
}

// unset removes a key of a mapping, if it has it.
func (d *document) unset(n *yaml.Node, key string) error {
	i := keyIndex(n, key)
	if i < 0 {
		return nil
	}
	if err := d.checkAnchors(n.Content[i+1]); err != nil {
		return err
	}
	text := d.splice(func(s *source) (string, bool) { return s.removeKey(n, i) })
	n.Content = slices.Delete(n.Content, i, i+2)
	return d.settle(text)
}

// splice returns the text after a change of its lines; nil if that is not possible.
func (d *document) splice(change func(s *source) (string, bool)) []byte {
	if text, ok := change(newSource(d.text)); ok {
		return []byte(text)
	}
	return nil
}

// settle makes text the document if it is what the tree says. Otherwise it writes the tree.
func (d *document) settle(text []byte) error {
	if text != nil {
		if root, err := parseTree(text); err == nil && equalNodes(root, d.root) {
			d.text, d.root = text, root
			return nil
		}
	}
	d.reformatted++
	text, err := d.encode()
	if err != nil {
		return Problem{File: d.file, Message: fmt.Sprintf("cannot be edited: %v", err)}
	}
	root, err := parseTree(text)
	if err != nil || !equalNodes(root, d.root) {
		return Problem{File: d.file, Message: "cannot be edited: the YAML library does not write the file as it reads it; edit it by hand"}
	}
	d.text, d.root = text, root
	return nil
}

// encode writes the tree, with the line ends of the text.
func (d *document) encode() ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(d.root), e.Close()); err != nil {
		return nil, err
	}
	if bytes.Contains(d.text, []byte("\r\n")) {
		return bytes.ReplaceAll(b.Bytes(), []byte("\n"), []byte("\r\n")), nil
	}
	return b.Bytes(), nil
}

// equalNodes compares two trees without regard to style, comments and places. What an alias
// stands for is compared where its anchor is.
func equalNodes(a, b *yaml.Node) bool {
	if a.Kind != b.Kind || a.Value != b.Value || a.Anchor != b.Anchor || len(a.Content) != len(b.Content) {
		return false
	}
	if a.Kind == yaml.ScalarNode && (a.ShortTag() == "!!null") != (b.ShortTag() == "!!null") {
		return false
	}
	for i := range a.Content {
		if !equalNodes(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}
