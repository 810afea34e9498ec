// Package tokens is the offload provider: it turns ranges of a volume into a ROD token
// (OffloadRead) and a ROD token into ranges of a volume (OffloadWrite). A token stands
// for the bytes of its ranges as they were when it was made; it is backed by a snapshot
// of the extent store, which the token's record keeps pinned until the token expires or
// is deleted. The store creates record and snapshot in one atomic step, and both are
// durable before OffloadRead returns the token, so that every token survives a restart.
//
// The token itself is 512 bytes in the layout of SPC-4 r37 5.17.6.4, sealed with a MAC
// whose key never leaves the store: holding those bytes is the right to use them, and
// nothing less is.
//
// Lock order: entry.record, then Manager.mu. The store is never called with Manager.mu
// held.
package tokens
