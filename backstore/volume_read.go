package backstore

import (
	"context"
	"errors"
	"io/fs"

	"odx/backstore/extent"
	"odx/backstore/journal"
)

// ReadAt fills p from off. Ranges never written read as zeros. Data that does
// not match its checksum gives a CorruptError, never wrong bytes.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	v.mu.RLock()
	err := v.checkRange(off, int64(len(p)))
	v.mu.RUnlock()
	if err != nil {
		return err
	}
	if blocksTouched(off, len(p)) <= readBatch {
		return v.store.reader.readTree(ctx, tree{volume: v}, p, off)
	}
	// Such a read looks the map up more than once.
	seen := v.atomicWrites.Load()
	if err := v.store.reader.readTree(ctx, tree{volume: v}, p, off); err != nil {
		return err
	}
	if v.atomicWrites.Load() == seen {
		return nil
	}
	return v.readAtOnce(ctx, p, off)
}

// readBlocks fills p with whole blocks from off, a multiple of 4096, and slots
// with what the map said of them. It may reach beyond the volume's end. changed is the record that
// has to be durable before the data is shown.
func (v *Volume) readBlocks(ctx context.Context, p []byte, off int64, slots []extent.Slot) (changed journal.LSN, _ error) {
	var locs [readBatch]extent.Location
	for tries := 0; len(p) > 0; {
		n := min(len(slots), readBatch)
		t := tree{volume: v}
		lsn, err := t.lookup(&v.store.reader, uint64(off/BlockLength), locs[:n], slots[:n])
		if err != nil {
			return 0, v.store.reader.lookupError(t, off, n, err)
		}
		changed = max(changed, lsn)
		bad, err := v.store.reader.fetch(locs[:n], p[:n*BlockLength])
		if err != nil {
			if tries++; errors.Is(err, fs.ErrNotExist) && tries < readTries && ctx.Err() == nil {
				continue
			}
			return 0, v.store.reader.readError(ctx, tree{volume: v}, off+int64(bad)*BlockLength, slots[bad], err)
		}
		p, slots, off = p[n*BlockLength:], slots[n:], off+int64(n)*BlockLength
	}
	return changed, nil
}
