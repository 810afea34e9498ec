package backstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"odx/backstore/extent"
	"odx/backstore/journal"
	"odx/backstore/layout"
	"odx/backstore/meta"
	"odx/backstore/rows"
	"odx/backstore/vfs"
)

// An upgrade makes the rows of the new format next to those of the old one,
// proves them, and replaces the superblock, which is the point from which the
// store has the new format. Until then nothing that the old program reads has
// changed; afterwards what the old one alone needs is removed, by the first that
// opens the store for writing.

// Upgraded says what Upgrade did.
type Upgraded struct {
	From int // formats
	To   int
	Rows int // of metadata
}

// Upgrade gives the store in o.Dir, which no process has open, the format of this
// program. A power cut leaves the old or the new one. ErrCorrupt when the store
// contradicts itself: then it keeps its format.
func Upgrade(ctx context.Context, o Options) (u Upgraded, err error) {
	if err := errors.Join(o.refuseOwner(), o.setDefaults()); err != nil {
		return u, err
	}
	s := newStore(o)
	if err := s.refuseFormat(); err != nil && !upgradable(err) {
		return u, err
	}
	if err := s.own(ctx); err != nil {
		return u, err
	}
	u.From, u.Rows, err = s.upgrade(ctx)
	u.To = layout.FormatVersion
	if err = errors.Join(err, s.closeFiles()); err != nil {
		return u, fmt.Errorf("upgrade of store %s: %w", o.Dir, spaceError(err))
	}
	// The rest is what opening it does.
	s, err = Open(ctx, o)
	if err != nil {
		return u, err
	}
	return u, s.Close()
}

func (s *Store) upgrade(ctx context.Context) (from, rows int, err error) {
	sb, _, found, err := s.opts.dir().FindSuperblock()
	switch {
	case err == nil && found:
		return layout.FormatVersion, 0, nil
	case err == nil:
		return 0, 0, fmt.Errorf("%w: there is no store in %s", ErrNotFound, s.opts.Dir)
	case !upgradable(err):
		return 0, 0, err
	}
	old, _ := errors.AsType[*layout.FormatError](err)
	s.parts.sb = sb
	s.parts.sb.Generation = 1
	if s.parts.sb.Place, err = s.opts.FS.Place(s.opts.Dir); err != nil {
		return old.Version, 0, err
	}
	if rows, err = s.convertRows(ctx); err != nil {
		return old.Version, 0, err
	}
	if err := s.proveUpgrade(ctx); err != nil {
		return old.Version, 0, err
	}
	if err := ctx.Err(); err != nil {
		return old.Version, 0, err
	}
	return old.Version, rows, s.parts.sb.WriteBoth(s.opts.FS, s.opts.Dir)
}

// upgradable reports whether an error is about a format that Upgrade reads.
func upgradable(err error) bool {
	old, ok := errors.AsType[*layout.FormatError](err)
	return ok && layout.OldestFormat <= old.Version && old.Version < layout.FormatVersion
}

// convertRows stores the rows of format 2 as the first checkpoint, and leaves them
// open.
func (s *Store) convertRows(ctx context.Context) (n int, err error) {
	fsys, in := s.opts.FS, filepath.Join(s.opts.Dir, layout.CheckpointDir)
	old, err := s.opts.tuning.openOld(s.opts.Dir, s.log)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	// What an upgrade that did not end has left.
	if err := s.opts.dir().Empty(layout.CheckpointDir); err != nil {
		return 0, err
	}
	if err := fsys.MkdirAll(in); err != nil {
		return 0, err
	}
	if s.parts.kv, err = s.openRows(nil); err != nil {
		return 0, err
	}
	var last []byte
	err = s.parts.kv.Store(0, func(put func(meta.Op) error) error {
		stated := false
		err := old.Scan(nil, func(key, value []byte) error {
			if slices.Compare(last, key) >= 0 && n > 0 {
				return fmt.Errorf("%w: metadata is not in the order of its keys", ErrCorrupt)
			}
			last = append(last[:0], key...)
			stated = stated || string(key) == rows.CheckpointKey
			n++
			op, err := extent.UpgradeRow(meta.Op{Key: key, Value: value}, s.parts.sb.Unit)
			if err != nil {
				return err
			}
			return errors.Join(put(op), ctx.Err())
		})
		if err != nil || stated {
			return err
		}
		return fmt.Errorf("%w: the metadata has no checkpoint", ErrCorrupt)
	})
	return n, err
}

// proveUpgrade opens the store as it will be, over files that stay as they are,
// and proves it: one that was upgraded and cannot be opened would be no store any
// more.
func (s *Store) proveUpgrade(ctx context.Context) (err error) {
	if err := s.parts.kv.Close(); err != nil {
		return err
	}
	s.parts.kv = nil
	o := s.opts
	o.FS = vfs.Overlay(o.FS)
	p := newStore(o)
	p.parts.sb, p.life.owner = s.parts.sb, s.life.owner
	defer func() { err = errors.Join(err, p.parts.close()) }()
	if err := p.openParts(ctx); errors.As(err, new(*journal.DamageError)) {
		return fmt.Errorf("%w; after a power cut, start and stop it once with the version that it is of; otherwise restore it from a copy, or run odx store repair", err)
	} else if err != nil {
		return err
	}
	findings, err := p.Check(ctx)
	if err != nil {
		return err
	}
	if len(findings) > 0 {
		return fmt.Errorf("%w: it contradicts itself; restore it from a copy, or run odx store repair: %s", ErrCorrupt, strings.Join(findings[:min(len(findings), 3)], "; "))
	}
	return nil
}

// endUpgrade gives a store that was just upgraded a journal of this format, and
// removes what only an older program needs.
func (s *Store) endUpgrade(ctx context.Context) error {
	if err := s.Checkpoint(ctx); err != nil {
		return err
	}
	if err := s.opts.dir().Empty(layout.MetadataDirV2); err != nil {
		return err
	}
	err := s.opts.FS.Remove(filepath.Join(s.opts.Dir, layout.MetadataDirV2))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.opts.FS.SyncDir(s.opts.Dir); err != nil {
		return err
	}
	// Last: it is what makes the next program that opens the store do the rest.
	s.parts.sb.OldJournal = false
	s.parts.sb.Generation++
	return s.parts.sb.WriteBoth(s.opts.FS, s.opts.Dir)
}
