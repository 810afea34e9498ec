package disk

// Finding is a fault in the file of a virtual disk.
type Finding struct {
	// Harmless reports that no data is at risk, for example for unused space.
	Harmless bool
	Text     string
}
