package conf

import "fmt"

// Class says when a change of a key takes effect.
type Class int

// The classes.
const (
	// AtOnce: with the reload. Secrets apply from the next login or request on.
	AtOnce Class = iota
	// NewLogins: for sessions that begin after the reload.
	NewLogins
	// NeedsRestart: a reload refuses the change.
	NeedsRestart
)

// classes are the names of the classes in the tags of the schema, and for people.
var classes = []struct {
	tag, name string
	class     Class
}{{"once", "at once", AtOnce}, {"login", "new logins", NewLogins}, {"restart", "needs a restart", NeedsRestart}}

// String returns "at once", "new logins" or "needs a restart".
func (c Class) String() string {
	for _, known := range classes {
		if known.class == c {
			return known.name
		}
	}
	return fmt.Sprintf("class %d", int(c))
}

// classOf returns the class of a tag.
func classOf(tag string) Class {
	for _, known := range classes {
		if known.tag == tag {
			return known.class
		}
	}
	return NeedsRestart // the cautious choice for a key that nothing is known of
}

// Change is a difference of two configurations.
type Change struct {
	// Key is the path of the value. Entries of a list are named by what names them in the
	// file, so that one that moves is no change: targets[iqn.2026-11.example:a].luns[7].size.
	// Where the order of a list matters, they are numbered: copy.rules[0].
	Key string
	// Before and After are the values, "" if absent. A secret is masked, but a changed
	// secret is a change.
	Before, After string
	Class         Class
	// Why says what prevents the change without a restart.
	Why string
}

// String returns the change in one line.
func (c Change) String() string {
	switch {
	case c.Before == "":
		return fmt.Sprintf("%s: %s added", c.Key, c.After)
	case c.After == "":
		return fmt.Sprintf("%s: %s removed", c.Key, c.Before)
	default:
		return fmt.Sprintf("%s: %s becomes %s", c.Key, c.Before, c.After)
	}
}
