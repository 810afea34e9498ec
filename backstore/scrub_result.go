package backstore

// ScrubProgress says how far a Scrub is.
type ScrubProgress struct {
	// TotalBytes is what was live when it began.
	TotalBytes int64
	// ReadBytes is what was read and verified so far, damaged or not.
	ReadBytes int64
	// Damaged is the number of damaged extents so far.
	Damaged int
}

// ScrubResult is what a Scrub found.
type ScrubResult struct {
	ScrubProgress
	// Damages describes the damaged extents, the first 1000 of them.
	Damages []Damage
	// Metadata says what is wrong with the files of the store and was not mended: what is
	// lost in all copies, a copy that cannot be written, a file that was removed.
	Metadata []string
	// MendedBytes is how much of the metadata was mended by the scrub itself.
	MendedBytes int64
	// Mended are the files that were mended since the store began to open, at most
	// 100.
	Mended []Mended
}

// Damage is an extent that cannot be read as it was written.
type Damage struct {
	Extent uint64
	// Segment is the number of the segment, in hexadecimal as its file is named;
	// Block is where the extent begins in it and Blocks how long it is, in
	// blocks of 4096 bytes.
	Segment string
	Block   uint32
	Blocks  int
	Reason  string
	// Uses are the ranges of address spaces that show the damaged blocks, the
	// first 1000 of them.
	Uses []Use
	// MoreUses is how many are not in Uses.
	MoreUses int

	bad uint32 // bit k: block k of the extent is damaged
}

// Use is a range of bytes of a volume or of a snapshot.
type Use struct {
	// Volume or File is the name of the one that it is.
	Volume string
	File   string
	// Snapshot is the snapshot's number, 0 where it is neither.
	Snapshot uint64
	// Offset and Length are in bytes. Those of a snapshot are bytes of the
	// volume that it was taken of.
	Offset int64
	Length int64
}
