package disk

// Finding is something that is wrong with the file of a virtual disk.
type Finding struct {
	// Harmless: no data is in danger, such as where space is used by nothing.
	Harmless bool
	Text     string
}
