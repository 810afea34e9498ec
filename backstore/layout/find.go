package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"odx/backstore/journal"
	"odx/backstore/meta"
	"odx/backstore/segment"
	"odx/blockdev"
)

// BadCopy is a copy of the superblock that is not that of the store.
type BadCopy struct {
	Dir string
	Why error
}

// FindSuperblock returns the superblock from whichever copy is right, and the
// copies that are not. found is false where there is no store and nothing of one.
// For a store of another format it returns what it knows of it and a *FormatError.
func (d Directory) FindSuperblock() (sb Superblock, bad []BadCopy, found bool, err error) {
	f := finder{in: d}
	for _, in := range Superblocks(d.Path) {
		name := filepath.Join(in, SuperblockName)
		one, err := ReadSuperblock(d.FS, name)
		f.copies = append(f.copies, candidate{dir: in, name: name, sb: one, err: err})
	}
	if err := f.rejectForeign(); err != nil {
		return sb, nil, false, err
	}
	return f.choose()
}

// finder chooses among the copies of the superblock.
type finder struct {
	in     Directory
	copies []candidate
}

type candidate struct {
	dir, name string
	sb        Superblock
	err       error // why it cannot be used; a *FormatError where sb says more
}

// hasID reports whether the id of the copy is known.
func (c *candidate) hasID() bool {
	var other *FormatError
	return c.err == nil || errors.As(c.err, &other)
}

// rejectForeign finds the copies that are of another store: the headers of all other
// files tell which one this is. ErrCorrupt when that leaves none.
func (f *finder) rejectForeign() error {
	fsys, dir := f.in.FS, f.in.Path
	votes, err := headerVotes(
		func() (map[[16]byte]int, error) { return meta.StoreIDs(fsys, filepath.Join(dir, CheckpointDir)) },
		func() (map[[16]byte]int, error) { return journal.StoreIDs(fsys, filepath.Join(dir, JournalDir)) },
		func() (map[[16]byte]int, error) { return segment.StoreIDs(fsys, filepath.Join(dir, SegmentDir)) },
	)
	if err != nil {
		return err
	}
	best, known := 0, 0
	for i := range f.copies {
		if c := &f.copies[i]; c.hasID() {
			best, known = max(best, votes[c.sb.ID]), known+1
		}
	}
	if known == 0 || len(votes) == 0 {
		return nil // nothing to choose, or nothing to choose by
	}
	var foreign []error
	for i := range f.copies {
		c := &f.copies[i]
		if c.hasID() && (votes[c.sb.ID] < best || best == 0) {
			c.err = fmt.Errorf("%w: %s is the superblock of another store, %x", blockdev.ErrCorrupt, c.name, c.sb.ID)
			foreign = append(foreign, c.err)
		}
	}
	if best > 0 {
		return nil
	}
	return &LostError{fmt.Errorf("%w; the other files in %s are of store %x: put its own superblock back, from a copy of the store", errors.Join(foreign...), dir, mostVotes(votes))}
}

// headerVotes returns how many kinds of files have the id of each store in most of
// their headers.
func headerVotes(kinds ...func() (map[[16]byte]int, error)) (map[[16]byte]int, error) {
	votes := make(map[[16]byte]int)
	for _, ids := range kinds {
		found, err := ids()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if len(found) > 0 {
			votes[mostVotes(found)]++
		}
	}
	return votes, nil
}

// mostVotes returns the id with the most votes, the least of them in a tie.
func mostVotes(votes map[[16]byte]int) (id [16]byte) {
	most := 0
	for one, n := range votes {
		if n > most || n == most && string(one[:]) < string(id[:]) {
			id, most = one, n
		}
	}
	return id
}

// choose returns the newest of the copies that are of this store.
func (f *finder) choose() (sb Superblock, bad []BadCopy, found bool, err error) {
	best, older := -1, -1
	for i := range f.copies {
		c := &f.copies[i]
		var other *FormatError
		switch {
		case errors.As(c.err, &other) && other.Version < FormatVersion:
			// Its second copy is written when it is of this format: next to one of
			// those it is an older version of the file.
			if older < 0 {
				older = i
			}
		case other != nil:
			return sb, nil, false, c.err
		case c.err == nil && (best < 0 || f.newer(&c.sb, &f.copies[best].sb)):
			best = i
		}
	}
	if best < 0 && older >= 0 {
		return f.copies[older].sb, nil, false, f.copies[older].err
	}
	if best < 0 {
		return sb, nil, false, f.none()
	}
	sb = f.copies[best].sb
	for i := range f.copies {
		if c := &f.copies[i]; c.err != nil {
			bad = append(bad, BadCopy{c.dir, c.err})
		} else if c.sb != sb {
			bad = append(bad, BadCopy{c.dir, fmt.Errorf("%s is an older version of the superblock", c.name)})
		}
	}
	return sb, bad, true, nil
}

// newer reports whether one of two different superblocks counts: that of this
// directory rather than that of a copy of the store, else the one that was written
// later.
func (f *finder) newer(a, b *Superblock) bool {
	if now, err := f.in.FS.Place(f.in.Path); err == nil {
		if here, there := a.Place.Same(now), b.Place.Same(now); here != there {
			return here
		}
	}
	return a.Generation > b.Generation
}

// none returns why there is no superblock, nil where there is no store.
func (f *finder) none() error {
	if f.in.Exists(UnfinishedName) {
		return fmt.Errorf("%w: %s is what a repair that did not end has made, and no store: remove it, and repair once more", blockdev.ErrCorrupt, f.in.Path)
	}
	rest, err := f.in.remains()
	if err != nil {
		return err
	}
	var wrong []error
	damaged := false
	for i := range f.copies {
		wrong = append(wrong, f.copies[i].err)
		damaged = damaged || !errors.Is(f.copies[i].err, fs.ErrNotExist)
	}
	if damaged {
		return &LostError{fmt.Errorf("%w: neither copy of the superblock is right: %w", blockdev.ErrCorrupt, errors.Join(wrong...))}
	}
	if rest != "" {
		return &LostError{fmt.Errorf("%w: both copies of the superblock, %s and %s, are missing, but there is %s", blockdev.ErrCorrupt,
			f.copies[0].name, f.copies[1].name, rest)}
	}
	return nil
}
