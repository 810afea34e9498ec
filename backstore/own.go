package backstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"odx/backstore/vfs"
	"odx/owner"
)

// own makes this process the owner of the store. From here on its files are changed and
// read for as long as it is.
func (s *Store) own(ctx context.Context) (err error) {
	fsys, dir := s.opts.FS, s.opts.Dir
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	if s.life.owner == nil {
		s.life.owner, err = owner.Claim(ctx, fsys.Owner(dir))
	}
	if errors.Is(err, owner.ErrHeld) {
		return fmt.Errorf("%w (%s)", ErrLocked, filepath.Join(dir, owner.LockName))
	}
	if errors.Is(err, syscall.EISDIR) || errors.Is(err, owner.ErrNotFile) || errors.Is(err, fs.ErrNotExist) { // of a link
		return fmt.Errorf("%w; nothing is in %s that is needed: remove what has that name", err, filepath.Join(dir, owner.LockName))
	}
	if err != nil {
		return err
	}
	s.opts.FS = vfs.Fenced(fsys, s.life.owner.Check)
	return nil
}

// releaseOwner releases a claim that was made before.
func (o *Options) releaseOwner() error {
	if o.Owner == nil {
		return nil
	}
	return o.Owner.Release()
}

// refuseOwner refuses a claim that was made before, where it would be released too early.
func (o *Options) refuseOwner() error {
	if o.Owner == nil {
		return nil
	}
	return fmt.Errorf("%w: only Open takes over a claim of the store", ErrInvalid)
}

// Owned returns nil while this process owns the store, and an owner.ErrLost once that is
// not certain. It takes no lock and allocates nothing.
func (s *Store) Owned() error { return s.life.owner.Check() }

// ShareClaim returns files that hold the store for the process that is to own it next, after
// Close too (owner.Share). The caller closes or passes them on.
func (s *Store) ShareClaim() ([]*os.File, error) { return s.life.owner.Share() }

// Lost is closed when this process does not own the store any more: because it was closed,
// or because another one may have it. Then nothing of it may be answered.
func (s *Store) Lost() <-chan struct{} { return s.life.owner.Lost() }

// Epoch is the epoch of the claim: see owner.Holding. Of a store that is only read it is
// that of the last process that could change it.
func (s *Store) Epoch() uint64 { return s.life.owner.Epoch() }

// closeFiles closes what open has opened, in the order of dependence, and gives the store
// back.
func (s *Store) closeFiles() error {
	err := s.parts.close()
	if s.life.owner != nil {
		err = errors.Join(err, s.life.owner.Release())
	}
	return err
}
