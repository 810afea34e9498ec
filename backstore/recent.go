package backstore

import (
	"context"

	"odx/backstore/journal"
)

// A store that machines share goes on at another one in the middle of what clients see: there, a
// change that is not durable yet has never been. So a read that finds one waits until it is
// durable, and is answered then: no client sees data that is gone later. On a machine of its own a store
// has a write cache that its clients know of, and reads do not wait.

// recentBlocks is how many neighboring blocks are kept apart. A read may wait for the change of
// a block with the same place, which is none that it has found.
const recentBlocks = 1024

// recent has the records of the last changes of a volume's blocks, by block modulo recentBlocks.
// It changes with Volume.mu held, together with the map.
type recent struct {
	at  [recentBlocks]journal.LSN
	all journal.LSN // the last one of more blocks than there are places
}

// note notes a change of blocks.
func (r *recent) note(block, blocks uint64, lsn journal.LSN) {
	if blocks >= recentBlocks {
		r.all = lsn
		return
	}
	for b := block; b < block+blocks; b++ {
		r.at[b%recentBlocks] = lsn
	}
}

// last returns the last record that has changed one of the blocks, or a later one of others; 0: none.
func (r *recent) last(block, blocks uint64) journal.LSN {
	lsn := r.all
	for b := block; b < block+min(blocks, recentBlocks); b++ {
		lsn = max(lsn, r.at[b%recentBlocks])
	}
	return lsn
}

// commit appends the record of a change of blocks, which is complete. v.mu is held.
func (v *Volume) commit(op *operation, block, blocks uint64) {
	lsn := op.Commit()
	if !v.store.opts.Shared {
		return
	}
	if v.recent == nil {
		v.recent = new(recent)
	}
	v.recent.note(block, blocks, lsn)
}

// lastChange returns the record that has to be durable before blocks are shown; 0: none. v.mu
// is held, for reading at least.
func (v *Volume) lastChange(block, blocks uint64) journal.LSN {
	if v.recent == nil {
		return 0
	}
	return v.recent.last(block, blocks)
}

// settle waits until a record is durable; 0: for nothing, as in a store that is only read, which
// has no journal.
func (rd *reader) settle(ctx context.Context, lsn journal.LSN) error {
	if lsn == 0 || lsn <= rd.parts.journal.Durable() {
		return nil
	}
	return rd.parts.journal.Commit(ctx, lsn)
}
