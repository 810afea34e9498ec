package backstore

import "odx/backstore/extent"

// lookupError is unread for a look-up of n blocks: it finds the first of them
// that cannot be looked up.
func (rd *reader) lookupError(t tree, off int64, n int, err error) error {
	if !metadataDamage(err) {
		return err
	}
	first := off &^ (BlockLength - 1)
	var loc [1]extent.Location
	var slot [1]extent.Slot
	for i := range n {
		at := first + int64(i)*BlockLength
		if _, one := t.lookup(rd, uint64(at/BlockLength), loc[:], slot[:]); one != nil {
			return rd.life.unread(t.name(), at, one)
		}
	}
	return rd.life.unread(t.name(), off, err)
}
