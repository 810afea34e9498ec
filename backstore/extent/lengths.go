package extent

// Lengths returns the number of blocks of each extent of a page, given its row. It is 0
// for an extent that does not exist.
func Lengths(row []byte) (lengths [PageExtents]uint8, err error) {
	p, err := decodePage(MaxUnit, row)
	if err != nil {
		return lengths, err
	}
	for i := range p.entries {
		lengths[i] = p.entries[i].blocks
	}
	return lengths, nil
}
