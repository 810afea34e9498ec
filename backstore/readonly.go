package backstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/journal"
	"odx/backstore/rows"
	"odx/backstore/segment"
)

// A store that is opened with Options.ReadOnly shows what is left of it: what is
// damaged is listed by Damage instead of refused.

// salvageState returns a state for rows that have lost theirs. Which records of the
// journal are in them is not known, so none is replayed: see comparison.
func (s *Store) salvageState() (st rows.Checkpoint, err error) {
	last := make(map[byte]uint64)
	err = s.parts.kv.Keys(nil, func(key []byte) error {
		switch len(key) {
		case 9:
			last[key[0]] = max(last[key[0]], binary.BigEndian.Uint64(key[1:]))
		case 5:
			last[key[0]] = max(last[key[0]], uint64(binary.BigEndian.Uint32(key[1:])))
		}
		return nil
	})
	if err = s.life.tolerate("rows", err); err != nil {
		return st, err
	}
	st.NextNode = last[blockmap.NodePrefix] + 1
	st.NextExtent = extent.ID(last[extent.PagePrefix]+1) * extent.PageExtents
	st.NextSegment = segment.ID(last[extent.UsagePrefix] + 1)
	st.LastVolume, st.LastSnapshot = last[rows.VolumePrefix], last[rows.SnapshotPrefix]
	found, err := journal.Read(context.Background(), s.journalOptions(1), func(journal.Record) error { return nil })
	if denied := deniedJournal(&journal.DamageError{Damages: found.Damages}); denied != nil {
		return st, denied
	}
	if err = s.life.tolerate("journal", err); err != nil {
		return st, err
	}
	st.FirstLSN, s.recovery.stateless = found.End+1, true
	s.damage.Note("journal", fmt.Errorf("%w: which records up to %d are not in the last checkpoint is not known; no block is read that is not as the last of them left it", ErrCorrupt, found.End))
	return st, nil
}

// replayUndamaged replays the records of a damaged journal, up to the first that
// is missing or cannot be applied.
func (s *Store) replayUndamaged(ctx context.Context, o journal.Options) error {
	next, p := o.First, salvage{replay: replay{s}}
	found, err := journal.Read(ctx, o, func(rec journal.Record) error {
		p.ended = p.ended || rec.LSN != next // Read continues to what else is damaged: what is shown stays the state before that
		next++
		return p.redo(rec)
	})
	err = errors.Join(err, s.noteTorn(ctx, found.Torn))
	for _, d := range found.Damages {
		s.damage.Note(d.File, errors.New(d.String()))
	}
	if len(found.Damages) > 0 {
		s.damage.Note("store", fmt.Errorf("%w: it is shown as it was before record %d of the journal; later changes are missing", ErrCorrupt, s.recovery.shownBefore(o.First)))
	}
	return s.life.tolerate("journal", err)
}

// shownBefore returns the first record that is not in what a store shows whose first
// one that is not in the rows is first.
func (rc *recovery) shownBefore(first journal.LSN) journal.LSN { return max(first, rc.redone+1) }
