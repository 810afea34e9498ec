package backstore

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"odx/backstore/blockmap"
	"odx/backstore/record"
)

// A revert gives a volume the content and the size of another one by sharing its tree: two
// changes, of which a crash could leave the first one alone. So it begins with a snapshot
// of the other one and, in the same atomic step, a record that says what is to be done.
// Opening the store does that again. The record goes with the snapshot.

// revertPrefix begins the keys of the records of reverts that are under way, and
// revertVersion is their version.
const (
	revertPrefix  = "store/revert/"
	revertVersion = 1
)

// revertRecord is durable.
type revertRecord struct {
	Version int `json:"version"`
	// Volume is the identity of the volume in hexadecimal, Snapshot the number of the
	// snapshot whose content it gets.
	Volume   string `json:"volume"`
	Snapshot uint64 `json:"snapshot"`
}

// Revert gives the volume the content and the size of from as it is now; the two then share
// all data. It takes time in proportion to the map nodes of the highest level that both
// have, is one step for a crash, and durable on return. After an error the volume is as it
// was, unless metadata that the copy needs is damaged.
func (v *Volume) Revert(ctx context.Context, from *Volume) error {
	if v.file {
		return fmt.Errorf("%w: %v cannot be reverted to %v", ErrInvalid, v, from)
	}
	return v.replaceWith(ctx, from, v.checkWritable)
}

// Replace is Revert for the owner of the protection that freezes the volume, and for files
// too. Concurrent reads see all of it or nothing.
func (v *Volume) Replace(ctx context.Context, from *Volume) error {
	return v.replaceWith(ctx, from, func() error {
		if v.readOnly {
			return fmt.Errorf("%v: %w", v, ErrReadOnly)
		}
		return nil
	})
}

func (v *Volume) replaceWith(ctx context.Context, from *Volume, refuse func() error) error {
	if v == from || from.store != v.store {
		return fmt.Errorf("%w: %v cannot be reverted to %v", ErrInvalid, v, from)
	}
	s := v.store
	s.reverting.Lock()
	defer s.reverting.Unlock()
	if err := refuse(); err != nil {
		return err
	}
	size := from.Size()
	if err := v.checkNewSize(size); err != nil {
		return err
	}
	n, err := from.Snapshot(ctx, []Range{{Offset: 0, Length: size}}, func(id uint64) []Record {
		value, _ := json.Marshal(revertRecord{Version: revertVersion, Volume: hex.EncodeToString(v.id[:]), Snapshot: id}) // plain data cannot fail
		return []Record{{Key: v.revertKey(), Value: value}}
	})
	if err != nil {
		return err
	}
	defer n.Release()
	// From here on it is done or undone, also if ctx ends.
	ctx = context.WithoutCancel(ctx)
	old := v.Size()
	err = v.revertTo(ctx, n)
	if err != nil && v.Size() != old {
		err = errors.Join(err, v.setSize(ctx, old, admitted))
	}
	// With the record, the next start would do it again.
	if ended := v.endRevert(ctx, n.ID()); ended != nil {
		return s.life.fail(errors.Join(err, ended))
	}
	if err != nil {
		return err
	}
	return s.Flush(ctx)
}

// revertKey is the key of the record of a revert of the volume.
func (v *Volume) revertKey() []byte { return fmt.Appendf(nil, "%s%x", revertPrefix, v.id) }

// endRevert deletes the snapshot of a revert, and its record.
func (v *Volume) endRevert(ctx context.Context, snapshot uint64) error {
	return v.store.DeleteSnapshot(ctx, snapshot, Record{Key: v.revertKey()})
}

// revertTo gives the volume the content and the size of a snapshot of a whole volume.
func (v *Volume) revertTo(ctx context.Context, n *Snapshot) error {
	return v.changeWatched(ctx, 0, MaxVolumeBytes/BlockLength, func() error { return v.mapWhole(ctx, n) })
}

// admitted refuses nothing.
func admitted() error { return nil }

// mapWhole gives the volume the size and the blocks of a snapshot of a whole volume, for one
// turn of its lock. Where the size changes, that is a record of its own.
func (v *Volume) mapWhole(ctx context.Context, n *Snapshot) error {
	s := v.store
	rec := record.Map{Volume: v.number, Snapshot: n.state.id, Count: uint64((n.Length() + BlockLength - 1) / BlockLength)}
	resized, err := s.reserveMore(ctx, &record.ResizeVolume{Volume: v.number, Size: n.Length()})
	if err != nil {
		return err
	}
	defer resized.giveBack()
	op, err := s.begin(ctx, &rec)
	if err != nil {
		return err
	}
	defer op.End()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.admit(ctx, 0, 0); err != nil {
		return err
	}
	if err := v.watched.check(0, MaxVolumeBytes/BlockLength); err != nil {
		return err
	}
	old := v.size
	if n.Length() > old {
		if err := v.resize(n.Length()); err != nil {
			return err
		}
		resized.Commit()
	}
	if err := v.copyWhole(n, &rec, &op); err != nil {
		return err
	}
	if n.Length() < old {
		if err := v.resize(n.Length()); err != nil {
			return err
		}
		resized.Commit()
	}
	return nil
}

// copyWhole maps the blocks of rec. v.mu is held.
func (v *Volume) copyWhole(n *Snapshot, rec *record.Map, op *operation) (err error) {
	s := v.store
	var step *blockmap.StepError
	rec.Count, err = s.parts.forest.Copy(&v.root, 0, n.state.root, 0, rec.Count, math.MaxInt)
	switch {
	case errors.As(err, &step):
		err = s.life.unread(v.String(), int64(rec.Count)*BlockLength, step.Err)
	case err != nil:
		return s.life.fail(err)
	}
	v.atomicWrites.Add(1) // no read may see a part of it
	if rec.Count > 0 {
		op.revise(rec)
		v.commit(op, 0, rec.Count)
	}
	return err
}

// finishReverts ends the reverts that the end of a process has interrupted.
func (s *Store) finishReverts(ctx context.Context) error {
	var found []revertRecord
	err := s.ScanRecords([]byte(revertPrefix), func(key, value []byte) error {
		var r revertRecord
		if err := json.Unmarshal(value, &r); err != nil {
			return fmt.Errorf("%w: record %q: %w", ErrCorrupt, key, err)
		}
		if r.Version != revertVersion {
			return fmt.Errorf("record %q: version %d, not %d; use a version of odx that reads it", key, r.Version, revertVersion)
		}
		found = append(found, r)
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range found {
		if err := s.finishRevert(ctx, r); err != nil {
			return fmt.Errorf("interrupted revert of volume %s: %w", r.Volume, err)
		}
	}
	return nil
}

func (s *Store) finishRevert(ctx context.Context, r revertRecord) error {
	var id [16]byte
	if n, err := hex.DecodeString(r.Volume); err != nil || copy(id[:], n) != len(id) || len(n) != len(id) {
		return fmt.Errorf("%w: not an identity", ErrCorrupt)
	}
	v, err := s.VolumeByID(id)
	if err != nil {
		return err
	}
	n, err := s.Snapshot(r.Snapshot)
	if err != nil {
		return err
	}
	defer n.Release()
	if err := v.revertTo(ctx, n); err != nil {
		return err
	}
	if err := v.endRevert(ctx, r.Snapshot); err != nil {
		return err
	}
	s.log.WithField("volume", v.Name()).Info("revert of a volume, which the end of the process had interrupted, completed")
	return s.Flush(ctx)
}
