package backstore

// BlockLength is the unit of mapping in bytes. Copies between ranges aligned
// to it share extents; everything smaller is read, merged and written.
const BlockLength = 4096

// Range is a range of bytes of an address space.
type Range struct {
	Offset, Length int64
}

// Record is a small value that the store keeps durable beside its volumes, in
// one order with them; a nil Value deletes the key. Callers own the key space
// (first bytes of a key say whose it is).
type Record struct {
	Key, Value []byte
}
