//go:build invariants

package invariant

import "sync/atomic"

// Enabled tells whether the program checks itself.
const Enabled = true

// Held is a field of what has one holder at a time. Without the tag it takes
// no space.
type Held struct{ held atomic.Bool }

// Take begins a holding; there must be none.
func (h *Held) Take() {
	if h.held.Swap(true) {
		Violated("handed out while it is in use")
	}
}

// Return ends the holding.
func (h *Held) Return() {
	if !h.held.Swap(false) {
		Violated("given back twice")
	}
}

// Use is called by whoever relies on being the holder.
func (h *Held) Use() {
	if !h.held.Load() {
		Violated("used after it was given back")
	}
}

// Scribble overwrites a buffer that goes back to its pool: who still uses it
// shall notice.
func Scribble(p []byte) {
	for i := range p {
		p[i] = 0xdb
	}
}
