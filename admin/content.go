package admin

import (
	"context"

	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
)

// The methods of this file are for what receives and sends the content of whole volumes and
// files: it works on hidden ones, which no name of an administrator reaches.

// ReadOnly reports whether the store was opened for reading alone.
func (s *Store) ReadOnly() bool { return s.readOnly }

// Pin returns all of v as it is now, which lives until the caller releases it or the process
// ends.
func (s *Store) Pin(ctx context.Context, v *backstore.Volume) (*backstore.Snapshot, error) {
	ranges := []backstore.Range{{Offset: 0, Length: v.Size()}}
	if s.readOnly {
		n, err := v.Snapshot(ctx, ranges, nil)
		if err != nil {
			return nil, err
		}
		return n, s.store.DeleteSnapshot(ctx, n.ID())
	}
	m, err := s.TokenManager(ctx)
	if err != nil {
		return nil, err
	}
	var pinned *backstore.Snapshot
	_, err = m.Engine().Transient(ctx, func(ctx context.Context, ranges []blockdev.Range, recs func(id uint64) []backstore.Record) (offload.Snapshot, error) {
		var err error
		pinned, err = v.Snapshot(ctx, ranges, recs)
		if err != nil {
			return nil, err
		}
		return pinned, nil
	}, ranges)
	return pinned, err
}

// CheckReplaceable returns why ReplaceContent would refuse to give a volume a content of size
// bytes: ErrInUse, and ErrLoggedIn without force.
func (s *Store) CheckReplaceable(name string, size int64, force bool) error {
	s.using.changing.RLock()
	defer s.using.changing.RUnlock()
	v, err := s.volume(name)
	if err != nil {
		return err
	}
	return s.checkRevert(v, size, force)
}

// ReplaceContent gives a volume the content and the size of another one, which share all
// data then, in one step, durably; initiators that have it as a LUN get unit attentions. The
// volume keeps its name and identity. ErrLoggedIn: some have it, and force is false.
func (s *Store) ReplaceContent(ctx context.Context, name string, from *backstore.Volume, force bool) error {
	s.using.changing.RLock()
	defer s.using.changing.RUnlock()
	_, err := s.revertTo(ctx, name, from, force)
	return err
}

// NameReceived gives a hidden volume or file a name that none has: backstore.ErrExists
// otherwise. It is durable on return.
func (s *Store) NameReceived(ctx context.Context, v *backstore.Volume, name string) error {
	s.using.changing.RLock()
	defer s.using.changing.RUnlock()
	if v.IsFile() {
		if err := CheckFileName(name); err != nil {
			return err
		}
		return s.store.NameFile(ctx, v.Name(), name)
	}
	if err := checkVolumeName(name); err != nil {
		return err
	}
	return s.store.RenameVolume(ctx, v.Name(), name)
}
