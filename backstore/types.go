package backstore

import "odx/blockdev"

// BlockLength is blockdev.BlockLength.
const BlockLength = blockdev.BlockLength

// Range is blockdev.Range.
type Range = blockdev.Range

// Record is a small value that the store keeps durable beside its volumes, in
// one order with them; a nil Value deletes the key. Callers own the key space
// (first bytes of a key say whose it is).
type Record struct {
	Key, Value []byte
}
