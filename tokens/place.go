package tokens

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"odx/backstore"
	"odx/blockdev"
)

// A token without a snapshot of its own says where its data is in a volume.
// Each use of it takes a snapshot, so that what one use sees is of one moment;
// the snapshot is deleted at once and lives as long as its handle. Its record
// lets the next start remove it when the process ends in between.

// openData opens what the token stands for now.
func (m *Manager) openData(ctx context.Context, e *entry) (Snapshot, error) {
	rec := &e.rec // the fields read here are constant since the entry was made
	switch rec.Type.holding() {
	case inVolume:
		space, err := m.store.Space([16]byte(rec.Volume))
		if err != nil {
			return nil, err
		}
		return m.snapshotForUse(ctx, space.Snapshot, rec.Ranges)
	case inUnchangedVolume:
		return m.snapshotForUse(ctx, e.watch.Snapshot, rec.Ranges)
	case whereFound:
		return m.openHashed(ctx, e)
	}
	return m.store.Snapshot(rec.Snapshot)
}

type takeSnapshot func(ctx context.Context, ranges []blockdev.Range, recs func(id uint64) []backstore.Record) (Snapshot, error)

// snapshotForUse takes a snapshot that ends with its handle.
func (m *Manager) snapshotForUse(ctx context.Context, take takeSnapshot, ranges []blockdev.Range) (Snapshot, error) {
	s, err := take(ctx, ranges, func(id uint64) []backstore.Record {
		return []backstore.Record{{Key: useKey(id), Value: []byte{}}}
	})
	if err != nil {
		return nil, err
	}
	if err := m.store.DeleteSnapshot(ctx, s.ID(), backstore.Record{Key: useKey(s.ID())}); err != nil {
		s.Release()
		return nil, err
	}
	return s, nil
}

func useKey(snapshot uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(usePrefix), snapshot)
}

// deleteUses removes the snapshots of uses that the end of the last process
// interrupted.
func (m *Manager) deleteUses(ctx context.Context) error {
	var keys [][]byte
	err := m.store.ScanRecords([]byte(usePrefix), func(key, _ []byte) error {
		keys = append(keys, append([]byte(nil), key...))
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	for _, key := range keys {
		gone := backstore.Record{Key: key}
		err := error(backstore.ErrNotFound)
		if len(key) == len(usePrefix)+8 {
			err = m.store.DeleteSnapshot(ctx, binary.BigEndian.Uint64(key[len(usePrefix):]), gone)
		}
		if errors.Is(err, backstore.ErrNotFound) {
			err = m.store.PutRecords(ctx, gone)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// rewatch watches again over the data of the change vulnerable tokens that were
// loaded. Nobody else has the store yet, so nothing has changed since: every
// change that the last process made is behind the end of its token.
func (m *Manager) rewatch(ctx context.Context) error {
	for _, e := range m.live {
		if e.rec.Type.holding() != inUnchangedVolume {
			continue
		}
		space, err := m.store.Space([16]byte(e.rec.Volume))
		if err == nil {
			e.watch, err = space.Watch(ctx, e.rec.Ranges, nil, m.endOnChange(e))
		}
		if err == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		m.log.WithError(err).WithField("token", e.id).Warn("a change vulnerable token is cancelled: its data can no longer be watched")
		if err := m.kill(ctx, e, Cancelled, DataGone); err != nil {
			return fmt.Errorf("cancel token %v: %w", e.id, err)
		}
	}
	return nil
}
