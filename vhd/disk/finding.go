package disk

// Finding is a fault in the file of a virtual disk.
type Finding struct {
	// Harmless reports that no data is at risk, for example for unused space.
	Harmless bool
	// Overlap reports that a range of the file belongs to two structures.
	Overlap bool
	Text    string
}
