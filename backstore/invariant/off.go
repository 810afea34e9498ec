//go:build !invariants

package invariant

// Enabled tells whether the program checks itself.
const Enabled = false

// Held is a field of what has one holder at a time. Without the tag it takes
// no space.
type Held struct{}

// Take begins a holding; there must be none.
func (*Held) Take() {}

// Return ends the holding.
func (*Held) Return() {}

// Use is called by whoever relies on being the holder.
func (*Held) Use() {}

// Scribble overwrites a buffer that goes back to its pool: who still uses it
// shall notice.
func Scribble([]byte) {}
