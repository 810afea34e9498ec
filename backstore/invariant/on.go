//go:build invariants

package invariant

import "sync/atomic"

// Enabled reports whether invariants are checked.
const Enabled = true

// Held asserts that the value that embeds it has at most one holder. Without the
// build tag it has size 0.
type Held struct{ held atomic.Bool }

// Take acquires the value, which must not be held.
func (h *Held) Take() {
	if h.held.Swap(true) {
		Violated("acquired while held")
	}
}

// Return releases the value.
func (h *Held) Return() {
	if !h.held.Swap(false) {
		Violated("released twice")
	}
}

// Use asserts that the value is held.
func (h *Held) Use() {
	if !h.held.Load() {
		Violated("used after release")
	}
}

// Scribble overwrites a buffer that is returned to its pool, to expose a use after
// release.
func Scribble(p []byte) {
	for i := range p {
		p[i] = 0xdb
	}
}
