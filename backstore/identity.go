package backstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
)

// A store has two numbers of its own. HeaderID is in the header of every file and
// never changes. Its identity is what initiators and tokens see of it, at first
// the same number: a copy of a store gets another one by writing its superblock
// alone, and everything that is derived from it follows.

// HeaderID returns the random number that the store was made with. Two copies of a
// store have the same one.
func (s *Store) HeaderID() [16]byte { return s.parts.sb.ID }

// ID returns the store's identity.
func (s *Store) ID() [16]byte { return s.parts.sb.Identity }

// Identify returns the identity that initiators see of something whose own number,
// or what is derived from HeaderID, is id: the same number until the store gets
// another identity.
func (s *Store) Identify(id [16]byte) [16]byte {
	for i := range id {
		id[i] ^= s.parts.sb.ID[i] ^ s.parts.sb.Identity[i]
	}
	return id
}

// Moved reports whether the directory of the store is not the one that it was
// given its identity in: it is a copy, and the other one may be served as well,
// or it was moved to another file system. SetIdentity says which.
func (s *Store) Moved() bool { return s.moved }

// checkPlace notes whether the store is where it was.
func (s *Store) checkPlace() {
	now, err := s.opts.FS.Place(s.opts.Dir)
	if err != nil {
		s.log.WithError(err).Warn("it is not known whether the store is a copy")
		return
	}
	if s.moved = !s.parts.sb.Place.Same(now); s.moved {
		s.log.WithField("dir", s.opts.Dir).Warn("the store is not where it was made: if the other one is still in use, initiators take the two for one disk. " +
			"Run odx store new-identity for a copy, or odx store new-identity --keep if it was moved")
	}
}

// CheckFormat returns an error for a store in dir whose format this program cannot write,
// such as one that odx store upgrade has to be run on. It changes nothing, and does not
// need the store's lock.
func CheckFormat(dir string) error {
	o := Options{Dir: dir}
	if err := o.setDefaults(); err != nil {
		return err
	}
	return (&Store{opts: o, log: o.Log}).refuseFormat()
}

// SetIdentity gives the store in o.Dir, which no process has open, its place: with
// keep, the one that it had somewhere else, else another identity, so that
// initiators see other disks, and tokens of the other store are foreign. The
// tokens of this one that clients hold end by it. It returns the identity.
func SetIdentity(ctx context.Context, o Options, keep bool) (identity [16]byte, err error) {
	if err := errors.Join(o.refuseOwner(), o.setDefaults()); err != nil {
		return identity, err
	}
	s := &Store{opts: o, log: o.Log}
	if err := s.refuseFormat(); err != nil {
		return identity, err
	}
	if err := s.own(ctx); err != nil {
		return identity, err
	}
	defer func() { err = errors.Join(err, s.closeFiles()) }()
	sb, _, found, err := s.opts.dir().FindSuperblock()
	if err != nil {
		return identity, err
	}
	if !found {
		return identity, fmt.Errorf("%w: there is no store in %s", ErrNotFound, o.Dir)
	}
	if err := ctx.Err(); err != nil {
		return identity, err
	}
	if sb.Place, err = s.opts.FS.Place(o.Dir); err != nil {
		return identity, err
	}
	if !keep {
		rand.Read(sb.Identity[:])
	}
	sb.Generation++
	return sb.Identity, sb.WriteBoth(s.opts.FS, o.Dir)
}
