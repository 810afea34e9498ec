package backstore

// Lost is something that a repair could not save.
type Lost struct {
	// What names a volume, file, snapshot, row or part of the journal.
	What string
	// Offset and Length say which bytes of it; both are 0 when it is all of it.
	Offset int64
	Length int64
	Reason string
}

// Repaired says what Repair found.
type Repaired struct {
	Volumes   int // with files
	Snapshots int
	Records   int
	LostBytes int64  // of volumes, files and snapshots
	DataRead  bool   // and verified: what is damaged of it is in LostBytes and Lost
	Lost      []Lost // the first 10000 things
	More      int
	// Unused are the changes of the journal that can be read and are not in the
	// store that was made, since what is before them is damaged: the first 1000.
	Unused     []UnusedChange
	MoreUnused int
}
