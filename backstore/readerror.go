package backstore

import "odx/backstore/extent"

// unread returns the error of an operation on a tree that could not read the rows
// for blocks from byte off on, and has changed nothing. It is a CorruptError if
// that is damage.
func (rd *reader) unread(name string, off int64, err error) error {
	if !metadataDamage(err) {
		return err
	}
	err = &CorruptError{Name: name, Offset: off, Err: err}
	rd.damage.Note(name, err)
	return err
}

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
		if one := t.lookup(rd, uint64(at/BlockLength), loc[:], slot[:]); one != nil {
			return rd.unread(t.name(), at, one)
		}
	}
	return rd.unread(t.name(), off, err)
}
