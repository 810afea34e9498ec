package backstore

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"

	"odx/backstore/journal"
	"odx/backstore/record"
	"odx/backstore/segment"
)

// verifyWrite reads the data of the new extents of a record that was not durable. The
// kernel writes records and data to the disk in any order until they are synced:
// after a power cut the record counts only if its data is there, and is
// journal.ErrCut else. What is there is synced when the journal is open.
func (rc *recovery) verifyWrite(r *record.Write) error {
	if r.Inline != nil {
		return nil
	}
	buf := make([]byte, r.FreshBytes())
	for i := 0; i < len(r.Fresh); {
		from, n := i, 0
		for i < len(r.Fresh) && record.Follows(r.Fresh, from, i) {
			n += int(r.Fresh[i].Blocks)
			i++
		}
		if rc.aliases.is(r.Fresh[from].Addr.Segment) {
			continue // it was durable before it was lent
		}
		if err := rc.verifyRun(r.Fresh[from:i], buf[:n*BlockLength]); err != nil {
			return err
		}
	}
	return nil
}

// verifyRun is verifyWrite for extents that lie one after the other.
func (rc *recovery) verifyRun(run []record.FreshExtent, data []byte) error {
	addr := run[0].Addr
	err := rc.parts.segments.ReadAt(addr, data)
	switch {
	case errors.Is(err, segment.ErrCorrupt), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", journal.ErrCut, err)
	case err != nil:
		// It was there: what cannot be read is damage, which its readers get as an error.
		rc.log.WithError(err).Error("data of a write that was acknowledged and not flushed cannot be read")
		return nil
	}
	block := 0
	for i := range run {
		for k := range int(run[i].Blocks) {
			if crc32.Checksum(data[block*BlockLength:(block+1)*BlockLength], castagnoli) != run[i].CRC[k] {
				return fmt.Errorf("%w: block %d of %v holds something else", journal.ErrCut, block, addr)
			}
			block++
		}
	}
	rc.durable.segmentDirty.Store(true)
	return rc.parts.segments.NoteUnsynced(addr, uint32(block))
}
