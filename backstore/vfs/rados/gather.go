package rados

// gatherBytes is how much of small writes, each where the one before ended, is sent at once. An
// OSD does the writes to one object one after the other, so that each costs about the same,
// whatever its length: what a takeover writes again of a journal is one block at a time.
const gatherBytes = 128 << 10

// gather keeps a write that others may follow, and reports whether it has. A file in place is a
// journal or a list: what is written there is waited for. n.mu is held, and what was kept before
// is sent unless p follows it.
func (n *node) gather(p []byte, off int64) bool {
	if n.chunk == oneObject || len(n.held)+len(p) > gatherBytes {
		return false
	}
	if len(n.held) == 0 {
		n.heldAt = off
	}
	n.held = append(n.held, p...)
	n.changes++
	return true
}

// follows reports whether a write at off goes with what is kept: it is in the same object.
func (n *node) follows(off int64) bool {
	return len(n.held) > 0 && off == n.heldAt+int64(len(n.held)) && off%n.chunk != 0
}

// send begins the write of what is kept. n.mu is held.
func (n *node) send() {
	if len(n.held) == 0 {
		return
	}
	held := n.held
	n.held = nil
	n.begin(held, n.heldAt)
	n.held = held[:0]
}

// end is the length of the file, with what is kept. n.mu is held.
func (n *node) end() int64 {
	if len(n.held) == 0 {
		return n.size
	}
	return max(n.size, n.heldAt+int64(len(n.held)))
}
