//go:build !invariants

package invariant

// Enabled reports whether invariants are checked.
const Enabled = false

// Held asserts that the value that embeds it has at most one holder. Without the
// build tag it has size 0.
type Held struct{}

// Take acquires the value, which must not be held.
func (*Held) Take() {}

// Return releases the value.
func (*Held) Return() {}

// Use asserts that the value is held.
func (*Held) Use() {}

// Scribble overwrites a buffer that is returned to its pool, to expose a use after
// release.
func Scribble([]byte) {}
