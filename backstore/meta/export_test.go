package meta

// What the tests of all engines share with those of this one.
var (
	StoreOps  = storeOps
	Changes   = changes
	SameRows  = sameRows
	RandomOps = randomOps
	WantErr   = wantErr
	NewRand   = newRand
	MakeOp    = op
	MakeDel   = del
	Numbered  = numbered
	TestStore = testStore
)
