package backstore

import (
	"context"
	"errors"
	"fmt"

	"odx/backstore/dedupunit"
	"odx/backstore/layout"
)

// A store that has lost both copies of its superblock can be read all the same: its id
// is in the header of each file, and the dedup unit is the one by which the maps name
// blocks that exist. What is lost is the key of the fingerprints, which only
// deduplication and hash tokens need, and the identity, if it ever was another one than
// the id. Such a store is only read: a repair gives it a superblock.

// rebuildSuperblock returns a superblock from the headers of the other files. Its dedup
// unit is 0, until findUnit knows it.
func (s *Store) rebuildSuperblock(lost *layout.LostError) (layout.Superblock, error) {
	sb, err := s.opts.dir().Rebuild(lost)
	if err != nil {
		return sb, err
	}
	s.reader.superblockLost = true
	s.damage.Note("superblock", fmt.Errorf("%w; it is made again from the other files of store %x: if odx store new-identity was run, initiators see its LUNs as other disks, and hash tokens end",
		lost, sb.ID))
	return sb, nil
}

// findUnit finds the dedup unit, which a superblock made of other files lacks.
func (rc *recovery) findUnit(ctx context.Context) (unit int, err error) {
	unit, err = dedupunit.Find(ctx, rc.parts.kv, func(err error) error { return rc.life.tolerate("rows", err) })
	if unknown, ok := errors.AsType[*dedupunit.UnknownError](err); ok {
		return 0, fmt.Errorf("%w: the superblock is lost, and %w; restore %s from a copy", ErrCorrupt, unknown, layout.SuperblockName)
	}
	if err == nil && unit == 0 { // nothing is named by any unit
		unit = rc.opts.DedupUnit / BlockLength
	}
	return unit, err
}
