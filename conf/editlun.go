package conf

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// MoveLUN gives a LUN another medium, and the identity with which initiators know it.
type MoveLUN struct {
	Target string
	Number uint16
	// To is the medium.
	To Device
	// Login is what to log in with where To is a LUN of another target; nil: nothing.
	Login *Login
	// Identity is zero for that of the medium.
	Identity [16]byte
}

func (e MoveLUN) apply(d *document) error {
	key, value := "volume", e.To.Volume
	switch {
	case e.To.View != "":
		key, value = "view", e.To.View
	case e.To.File != "":
		key, value = "file", e.To.File
	case e.To.Backing != "":
		key, value = "backing", backingText(e.To.Backing)
	case e.To.ISCSI != "":
		key, value = "backing", e.To.ISCSI
	}
	// Each change makes other nodes of the text, so the entry is looked up again.
	for _, other := range []string{"volume", "file", "backing", "login", "view", "size"} {
		if other == key || other == "size" && key == "volume" {
			continue
		}
		lun, err := d.lun(e.Target, e.Number)
		if err == nil {
			err = d.unset(lun, other)
		}
		if err != nil {
			return err
		}
	}
	if err := d.setInLUN(e.Target, e.Number, key, value); err != nil {
		return err
	}
	if e.Login != nil {
		if err := d.setLogin(e.Target, e.Number, e.Login); err != nil {
			return err
		}
	}
	return d.setInLUN(e.Target, e.Number, "identity", FormatIdentity(e.Identity))
}

// setInLUN sets a key of a LUN; "" removes it.
func (d *document) setInLUN(target string, number uint16, key, value string) error {
	lun, err := d.lun(target, number)
	if err != nil {
		return err
	}
	if value == "" {
		return d.unset(lun, key)
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
	if key == "identity" { // digits alone would be a number
		n.Style = yaml.DoubleQuotedStyle
	}
	return d.set(lun, key, n)
}

// lun returns the entry of a LUN, which may be edited.
func (d *document) lun(target string, number uint16) (*yaml.Node, error) {
	entry, err := d.target(target)
	if err != nil {
		return nil, err
	}
	luns, err := d.list(entry, "luns")
	if err != nil {
		return nil, err
	}
	i := indexBy(luns, "lun", sameNumber(fmt.Sprint(number)))
	if i < 0 {
		return nil, fmt.Errorf("LUN %d of target %s %w", number, target, ErrNotFound)
	}
	return d.own(luns.Content[i])
}

// backingText returns the path of a file outside the store in the syntax of the file.
func backingText(path string) string { return "file:" + path }
