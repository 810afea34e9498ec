package backstore

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"odx/backstore/rows"
)

// catalog has the tables of volumes and snapshots, and which of their rows the next
// checkpoint has to store. What a volume or a snapshot is made of, its tree, has locks of
// its own.
type catalog struct {
	// mu guards all that follows. While a store opens, nothing else uses it, and it is
	// not held.
	mu           sync.Mutex
	volumes      map[uint64]*Volume
	byName       map[rows.Name]*Volume
	snapshots    map[uint64]*snapshotState
	changedSnaps map[uint64]bool // since the last cut
	deletedVols  map[uint64]bool // since the last cut
	lastVolume   uint64
	lastSnapshot uint64
}

func newCatalog() catalog {
	return catalog{
		volumes: make(map[uint64]*Volume), byName: make(map[rows.Name]*Volume),
		snapshots: make(map[uint64]*snapshotState), changedSnaps: make(map[uint64]bool),
		deletedVols: make(map[uint64]bool),
	}
}

// nameOf returns the name of the volume or file with a number.
func (c *catalog) nameOf(number uint64) (rows.Name, bool) {
	v := c.volumes[number]
	if v == nil {
		return rows.Name{}, false
	}
	return v.key(), true
}

// enter puts a volume that a record made into the tables.
func (c *catalog) enter(v *Volume) {
	c.volumes[v.number], c.byName[v.key()] = v, v
	c.lastVolume = max(c.lastVolume, v.number)
}

// volume returns the volume that a record names.
func (c *catalog) volume(number uint64) (*Volume, error) {
	v := c.volumes[number]
	if v == nil {
		return nil, fmt.Errorf("%w: number %d", errLostVolume, number)
	}
	return v, nil
}

// snapshot returns the snapshot that a record names.
func (c *catalog) snapshot(id uint64) (*snapshotState, error) {
	st := c.snapshots[id]
	if st == nil {
		return nil, fmt.Errorf("%w: it names snapshot %d, which does not exist", ErrCorrupt, id)
	}
	return st, nil
}

func (c *catalog) snapshotIDs() []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.snapshots))
}

// all returns all volumes and files, the volumes first, each by name.
func (c *catalog) all() []*Volume {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.Collect(maps.Values(c.volumes))
	slices.SortFunc(all, func(a, b *Volume) int {
		return cmp.Or(cmp.Compare(a.flags()&rows.FlagFile, b.flags()&rows.FlagFile), strings.Compare(a.Name(), b.Name()))
	})
	return all
}

// standsAs reports whether the files are still what they were. c.mu is held.
func (c *catalog) standsAs(r *replacement) bool {
	now := c.byName[rows.Name{Name: r.to, File: r.file.file}]
	if c.volumes[r.file.number] != r.file || now != r.old && now != r.file {
		return false
	}
	return !slices.ContainsFunc(r.deleted, func(old *Volume) bool { return c.volumes[old.number] != old })
}

// rename takes the names of what is deleted out of the table and gives the file its
// new one. c.mu is held.
func (c *catalog) rename(r *replacement) {
	for _, old := range r.deleted {
		delete(c.byName, old.key())
	}
	delete(c.byName, r.file.key())
	r.file.named.Store(&r.to)
	c.byName[r.file.key()] = r.file
}

// errLostVolume: a record names a volume that does not exist.
var errLostVolume = fmt.Errorf("%w: the volume that it names does not exist", ErrCorrupt)

// replacement is a file or a volume that gets another name, and what is deleted for it.
type replacement struct {
	file    *Volume
	to      string
	old     *Volume   // has the name, or nil; in deleted, too
	deleted []*Volume // by number
}
