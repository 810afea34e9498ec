package blockmap

import "odx/backstore/extent"

// LeafSlots returns the slots of a leaf, given its row, and nil for another node.
func LeafSlots(row []byte) ([]extent.Slot, error) {
	n, err := decodeNode(row)
	if err != nil || n.level > 0 {
		return nil, err
	}
	return n.slots[:], nil
}
