package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
)

// RevertRequest says which volume gets the content of which.
type RevertRequest struct {
	// Snapshot is a snapshot, or any other volume.
	Snapshot string
	// Volume gets its content and size; empty: the volume that it is a snapshot of.
	Volume string
	// Force also reverts a LUN that initiators are logged in to. What they have cached of
	// it is wrong then.
	Force bool
}

// ErrLoggedIn: initiators are logged in to a LUN on the volume.
var ErrLoggedIn = fmt.Errorf("%w by initiators", ErrInUse)

// RenameVolume gives a volume that is no LUN of the configuration, and below no view,
// another name. Its identity stays. It is durable on return.
func (s *Store) RenameVolume(ctx context.Context, old, name string) (Volume, error) {
	s.using.changing.RLock()
	defer s.using.changing.RUnlock()
	if err := checkVolumeName(name); err != nil {
		return Volume{}, err
	}
	v, err := s.volume(old)
	if err != nil {
		return Volume{}, err
	}
	if IsScratchVolume(old) {
		return Volume{}, fmt.Errorf("%w: %s is not finished", blockdev.ErrInvalid, old)
	}
	// Which volume is a LUN is decided by its name: with both names in the configuration
	// and in the store, a start between the two changes would create an empty volume.
	if err := errors.Join(s.checkNoLUN(volumeMedium(old)), s.checkServed(old)); err != nil {
		return Volume{}, err
	}
	if err := s.checkSameRules(old, name); err != nil {
		return Volume{}, err
	}
	if err := s.store.RenameVolume(ctx, old, name); err != nil {
		return Volume{}, err
	}
	s.log.WithField("volume", name).WithField("before", old).Info("volume renamed")
	return s.describe(v), nil
}

// checkSameRules returns ErrInUse for a volume that another copy rule would concern by another
// name.
func (s *Store) checkSameRules(old, name string) error {
	for _, cfg := range s.using.configurations() {
		for i, r := range cfg.CopyRules {
			for _, list := range [][]string{r.From, r.To} {
				if named(list, old) != named(list, name) {
					return fmt.Errorf("volume %s: %w by copy.rules[%d], which would not be the same for %s; change the rule first", old, ErrInUse, i, name)
				}
			}
		}
	}
	return nil
}

// named reports whether a name is one of a list of names and prefixes with an asterisk.
func named(list []string, name string) bool {
	return slices.ContainsFunc(list, func(p string) bool {
		prefix, cut := strings.CutSuffix(p, "*")
		return name == p || cut && strings.HasPrefix(name, prefix)
	})
}

// RevertVolume gives a volume the content and size of a snapshot. The volume keeps its
// name and identity, the snapshot stays. Initiators that have the volume as a LUN get unit
// attentions. ErrLoggedIn: some have it, and the request has no Force.
func (s *Store) RevertVolume(ctx context.Context, r RevertRequest) (Volume, error) {
	s.using.changing.RLock()
	defer s.using.changing.RUnlock()
	from, err := s.volume(r.Snapshot)
	if err != nil {
		return Volume{}, err
	}
	origin, _ := from.Origin()
	name := cmp.Or(r.Volume, origin)
	if name == "" {
		return Volume{}, fmt.Errorf("%w: volume %s is a snapshot of no volume that there is; name the volume that is to be reverted", blockdev.ErrInvalid, r.Snapshot)
	}
	v, err := s.revertTo(ctx, name, from, r.Force)
	if err != nil {
		return Volume{}, err
	}
	s.log.WithField("volume", name).WithField("to", r.Snapshot).Info("volume reverted")
	return s.describe(v), nil
}

// revertTo gives a volume the content and size of another one, and notifies initiators.
func (s *Store) revertTo(ctx context.Context, name string, from *backstore.Volume, force bool) (*backstore.Volume, error) {
	v, err := s.volume(name)
	if err != nil {
		return nil, err
	}
	if err := s.checkRevert(v, from.Size(), force); err != nil {
		return nil, err
	}
	if err := v.Revert(ctx, from); err != nil {
		return nil, err
	}
	if s.server != nil {
		s.server.Renewed(name)
	}
	return v, nil
}

// checkRevert returns why a volume cannot get another content, of size bytes.
func (s *Store) checkRevert(v *backstore.Volume, size int64, force bool) error {
	if err := s.checkServed(v.Name()); err != nil {
		return err
	}
	for _, l := range s.lunsOn(volumeMedium(v.Name())) {
		if size%int64(l.BlockSize) != 0 {
			return fmt.Errorf("%w: %d bytes are not a multiple of the block size %d of LUN %d of %s", blockdev.ErrInvalid, size, l.BlockSize, l.Number, l.target)
		}
		if l.Size > size {
			return fmt.Errorf("%w: the snapshot has %s, and the configuration says that LUN %d of %s has %s, so that the next start would not serve it; change or remove its size first",
				blockdev.ErrInvalid, conf.FormatSize(size), l.Number, l.target, conf.FormatSize(l.Size))
		}
	}
	if force || s.server == nil {
		return nil
	}
	for _, session := range s.server.Status().Sessions {
		for _, l := range session.LUNs {
			if slices.Contains(l.Over, v.Name()) {
				return fmt.Errorf("volume %s: %w: LUN %d of %s, by %s; log out there, or force it", v.Name(), ErrLoggedIn, l.Number, session.Target, session.Initiator)
			}
		}
	}
	return nil
}
