package conf

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Edit is a change of a configuration file: AddTarget, RemoveTarget, AddLUN, RemoveLUN,
// MoveLUN, AddUser, SetUser, RemoveUser, AddAccess or RemoveAccess.
type Edit interface{ apply(d *document) error }

// Errors of edits, which name what they are about.
var (
	// ErrExists: there already is what the edit adds.
	ErrExists = errors.New("exists already")
	// ErrNotFound: there is not what the edit changes or removes.
	ErrNotFound = errors.New("does not exist")
)

// Apply returns the text of a configuration file after edits, of which each sees what the
// ones before it did. file is the path that the text comes from, for paths and messages.
// Lines that the edits do not concern stay as they are, with their comments; so do the
// order of keys and entries, line ends and indentation. See docs/configuration.md.
//
// The text must be valid before, and is valid after: otherwise the error is Problems. The
// lines of those of the text after the edits are in that text, and "(changed)" follows the
// name of the file.
// Other errors wrap ErrExists or ErrNotFound, or are a Problem with what cannot be edited.
func Apply(file string, text []byte, edits ...Edit) ([]byte, error) {
	if _, err := Parse(file, text); err != nil {
		return nil, err
	}
	d, err := openDocument(file, text)
	if err != nil {
		return nil, err
	}
	for _, e := range edits {
		if err := e.apply(d); err != nil {
			return nil, err
		}
	}
	if _, err := Parse(file, d.text); err != nil {
		return nil, afterEdit(err)
	}
	return d.text, nil
}

// afterEdit marks problems whose lines are those of the text after an edit.
func afterEdit(err error) error {
	problems, ok := errors.AsType[Problems](err)
	if !ok {
		return err
	}
	marked := slices.Clone(problems)
	for i := range marked {
		marked[i].File += " (changed)"
	}
	return marked
}

// AddTarget adds a target. It has to have a LUN, since a configuration needs one.
type AddTarget struct {
	Name         string
	LUNs         []LUN
	PortalGroups []uint16
}

func (e AddTarget) apply(d *document) error {
	name, err := ParseName(e.Name)
	if err != nil {
		return err
	}
	if _, err := d.target(name); err == nil {
		return fmt.Errorf("target %s %w", name, ErrExists)
	}
	t := Target{Name: name, LUNs: e.LUNs, PortalGroups: e.PortalGroups}
	targets, err := d.list(d.top(), "targets")
	if err != nil {
		return err
	}
	return d.insert(targets, len(targets.Content), fileNode(t.file()))
}

// RemoveTarget removes a target with all that its entry has.
type RemoveTarget struct{ Name string }

func (e RemoveTarget) apply(d *document) error {
	targets, i, err := d.targetIndex(e.Name)
	if err != nil {
		return err
	}
	return d.remove(targets, i)
}

// AddLUN adds a LUN to a target.
type AddLUN struct {
	Target string
	LUN    LUN
}

func (e AddLUN) apply(d *document) error {
	target, err := d.target(e.Target)
	if err != nil {
		return err
	}
	number := fmt.Sprint(e.LUN.Number)
	node := fileNode(e.LUN.file())
	luns, err := d.list(target, "luns")
	switch {
	case err != nil:
		return err
	case luns == nil:
		return d.set(target, "luns", listOf(node))
	case indexBy(luns, "lun", sameNumber(number)) >= 0:
		return fmt.Errorf("LUN %s of target %s %w", number, e.Target, ErrExists)
	}
	return d.insert(luns, len(luns.Content), node)
}

// RemoveLUN removes a LUN of a target. Its volume stays.
type RemoveLUN struct {
	Target string
	Number uint16
}

func (e RemoveLUN) apply(d *document) error {
	target, err := d.target(e.Target)
	if err != nil {
		return err
	}
	luns, err := d.list(target, "luns")
	if err != nil {
		return err
	}
	i := indexBy(luns, "lun", sameNumber(fmt.Sprint(e.Number)))
	switch {
	case i < 0:
		return fmt.Errorf("LUN %d of target %s %w", e.Number, e.Target, ErrNotFound)
	case len(luns.Content) == 1 && valueOf(target, "redirect") == nil:
		return Problem{d.file, luns.Line, "targets[" + e.Target + "].luns", "a target has at least one LUN; remove the target instead"}
	case len(luns.Content) == 1:
		return d.unset(target, "luns")
	}
	return d.remove(luns, i)
}

// fileNode returns the node of a new entry, without defaults.
func fileNode(entry any) *yaml.Node {
	n := mapping(reflect.ValueOf(entry), printing{brief: true, secrets: true})
	if isFlat(n) {
		n.Style = yaml.FlowStyle
		return n
	}
	// Its lists take lines of their own; their entries one each.
	for i := 1; i < len(n.Content); i += 2 {
		if n.Content[i].Kind == yaml.SequenceNode && len(n.Content[i].Content) > 0 && n.Content[i].Content[0].Kind != yaml.ScalarNode {
			n.Content[i].Style = 0
		}
	}
	return n
}

// listOf returns a list with one entry.
func listOf(item *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{item}}
}

// mappingOf returns a mapping with one key.
func mappingOf(key string, value *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: key}, value}}
}

// sameNumber returns a function that reports whether a text is the given number, which may
// have zeros in front.
func sameNumber(number string) func(string) bool {
	return func(text string) bool {
		text = strings.TrimLeft(text, "0")
		if text == "" {
			text = "0"
		}
		return text == number
	}
}
