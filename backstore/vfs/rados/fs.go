package rados

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"odx/backstore/vfs"
	"odx/owner"
)

// Names of the omap of root that are no names of files, which begin with a slash.
const (
	rootObject = "root"
	rowNext    = "!next"  // the first number of a file that was not given out
	rowGone    = "!gone/" // and the number of a removed file, whose objects may be there
)

// numbersAtOnce is how many numbers of files are taken with one change of root.
const numbersAtOnce = 1000

// entry is a row of the directory.
type entry struct {
	dir    bool
	number uint64
}

func (e entry) encode() []byte {
	kind := byte('f')
	if e.dir {
		kind = 'd'
	}
	return binary.BigEndian.AppendUint64([]byte{kind}, e.number)
}

func decodeEntry(b []byte) (entry, error) {
	if len(b) != 9 || b[0] != 'f' && b[0] != 'd' {
		return entry{}, fmt.Errorf("row of %d bytes in the directory", len(b))
	}
	return entry{b[0] == 'd', binary.BigEndian.Uint64(b[1:])}, nil
}

// FS is the files of a store in a pool. Before it is claimed (Owner), names are read from
// root with each operation.
type FS struct {
	pool Pool

	fenced atomic.Pointer[error]

	mu      sync.Mutex // guards what follows; held while names are changed
	line    Line       // of this process
	claimed bool
	epoch   uint64
	rows    map[string]entry
	next    uint64 // number of the next file
	limit   uint64 // numbers below it can be given out
	nodes   map[uint64]*node
	gone    map[uint64]bool // removed files, whose objects are there

	said atomic.Pointer[spaceSaid] // nil unless KeepSpace runs
}

var _ vfs.FS = (*FS)(nil)

// New returns the files of the store in a pool.
func New(p Pool) *FS { return &FS{pool: p, nodes: make(map[uint64]*node)} }

// check returns why nothing may be changed, or nil.
func (f *FS) check() error {
	if err := f.fenced.Load(); err != nil {
		return *err
	}
	return nil
}

// judge returns the error of a change. One that was refused or may have been done is the
// end of all changes.
func (f *FS) judge(err error) error {
	if errors.Is(err, ErrRefused) || errors.Is(err, ErrUnknown) {
		fenced := fmt.Errorf("%w: %w", ErrFenced, err)
		f.fenced.CompareAndSwap(nil, &fenced)
		return f.check()
	}
	return err
}

// clean returns the name of a row.
func clean(name string) string { return path.Clean("/" + name) }

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// load reads the names, unless they are known. f.mu is held.
func (f *FS) load() error {
	if err := f.check(); err != nil {
		return err
	}
	if f.claimed {
		return nil
	}
	rows, epoch, err := f.pool.Rows(rootObject)
	if notThere(err) {
		rows, epoch, err = nil, 0, nil
	}
	if err != nil {
		return err
	}
	f.epoch, f.rows, f.gone = epoch, map[string]entry{"/": {dir: true}}, make(map[uint64]bool)
	f.next, f.limit = 1, 1
	for name, b := range rows {
		switch {
		case name == rowNext && len(b) == 8:
			f.next = binary.BigEndian.Uint64(b)
			f.limit = f.next
		case strings.HasPrefix(name, rowGone):
			var number uint64
			if _, err := fmt.Sscanf(name[len(rowGone):], "%x", &number); err != nil {
				return fmt.Errorf("directory: row %q", name)
			}
			f.gone[number] = true
		case strings.HasPrefix(name, "/"):
			e, err := decodeEntry(b)
			if err != nil {
				return fmt.Errorf("directory: %q: %w", name, err)
			}
			f.rows[name] = e
		default:
			return fmt.Errorf("directory: row %q", name)
		}
	}
	return nil
}

// change changes names durably, in one step. f.mu is held, and the names are loaded.
func (f *FS) change(set map[string]entry, unset []string, more func(c *Change)) error {
	c := &Change{Compare: Equal, Epoch: f.epoch, Unset: unset, Set: make(map[string][]byte)}
	for name, e := range set {
		c.Set[name] = e.encode()
	}
	if more != nil {
		more(c)
	}
	err := do(f.pool, rootObject, c)
	if notThere(err) && f.epoch == 0 {
		c.Create, c.Compare = true, Any
		if err = do(f.pool, rootObject, c); errors.Is(err, fs.ErrExist) {
			err = ErrRefused // another caller has made it
		}
	}
	if err != nil {
		return f.judge(err)
	}
	for _, name := range unset {
		delete(f.rows, name)
	}
	for name, e := range set {
		f.rows[name] = e
	}
	return nil
}

// parent proves that the directory of a name is there. f.mu is held.
func (f *FS) parent(name string) error {
	e, ok := f.rows[path.Dir(name)]
	if !ok {
		return fs.ErrNotExist
	}
	if !e.dir {
		return syscall.ENOTDIR
	}
	return nil
}

// Create implements vfs.FS.
func (f *FS) Create(name string) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := clean(name)
	if err := f.load(); err != nil {
		return nil, pathError("create", name, err)
	}
	if err := f.parent(key); err != nil {
		return nil, pathError("create", name, err)
	}
	if _, ok := f.rows[key]; ok {
		return nil, pathError("create", name, fs.ErrExist)
	}
	number, limit := f.next, f.limit
	if number >= limit {
		limit = number + numbersAtOnce
	}
	err := f.change(map[string]entry{key: {number: number}}, nil, func(c *Change) {
		if limit != f.limit {
			c.Set[rowNext] = binary.BigEndian.AppendUint64(nil, limit)
		}
	})
	if err != nil {
		return nil, pathError("create", name, err)
	}
	f.next, f.limit = number+1, limit
	n := newNode(f, number, inPlace(key))
	f.nodes[number] = n
	return n.open(name, true), nil
}

// Open implements vfs.FS.
func (f *FS) Open(name string) (vfs.File, error) { return f.opened(name, true) }

// OpenToRead implements vfs.Reader.
func (f *FS) OpenToRead(name string) (vfs.File, error) { return f.opened(name, false) }

func (f *FS) opened(name string, write bool) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := clean(name)
	if err := f.load(); err != nil {
		return nil, pathError("open", name, err)
	}
	e, ok := f.rows[key]
	if !ok {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	if e.dir {
		return nil, pathError("open", name, syscall.EISDIR)
	}
	n := f.nodes[e.number]
	if n == nil {
		n = newNode(f, e.number, inPlace(key))
		if err := n.find(f.claimed); err != nil {
			return nil, pathError("open", name, err)
		}
		f.nodes[e.number] = n
	}
	return n.open(name, write), nil
}

// inPlace reports whether a file is written in place. Files of data, which are only appended
// to, are not: what they hold counts when something durable names it.
func inPlace(key string) bool {
	return !strings.Contains(key, "/segments/") && !strings.HasSuffix(key, ".seg") && !strings.HasSuffix(key, ".sst") && !strings.Contains(key, "/made-")
}

// Remove implements vfs.FS.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := clean(name)
	if err := f.load(); err != nil {
		return pathError("remove", name, err)
	}
	e, ok := f.rows[key]
	if !ok {
		return pathError("remove", name, fs.ErrNotExist)
	}
	if e.dir {
		if key == "/" || len(f.below(key)) > 0 {
			return pathError("remove", name, syscall.ENOTEMPTY)
		}
		return pathError("remove", name, f.change(nil, []string{key}, nil))
	}
	if err := f.change(nil, []string{key}, f.leaves(e)); err != nil {
		return pathError("remove", name, err)
	}
	return pathError("remove", name, f.drop(e))
}

// leaves notes in a change of names that the objects of a file are not needed any more.
func (f *FS) leaves(e entry) func(c *Change) {
	return func(c *Change) { c.Set[goneRow(e.number)] = []byte{} }
}

func goneRow(number uint64) string { return fmt.Sprintf("%s%x", rowGone, number) }

// drop removes the objects of a file that has no name, now or when it is closed. f.mu is
// held.
func (f *FS) drop(e entry) error {
	f.gone[e.number] = true
	n := f.nodes[e.number]
	if n != nil && n.refs > 0 {
		return nil
	}
	return f.purge(e.number)
}

// purge removes the objects of a removed file. f.mu is held. Where it fails they are
// removed by the next owner.
func (f *FS) purge(number uint64) error {
	n := f.nodes[number]
	if n == nil {
		n = newNode(f, number, false)
		if err := n.find(false); err != nil {
			return nil
		}
	}
	delete(f.nodes, number)
	if n.remove() != nil {
		return f.check()
	}
	err := f.change(nil, []string{goneRow(number)}, nil)
	delete(f.gone, number)
	return err
}

// Rename implements vfs.FS.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.rename(clean(from), clean(to))
	return pathError("rename", from, err)
}

func (f *FS) rename(from, to string) error {
	if err := f.load(); err != nil {
		return err
	}
	e, ok := f.rows[from]
	if !ok {
		return fs.ErrNotExist
	}
	if err := f.parent(to); err != nil {
		return err
	}
	old, replaced := f.rows[to]
	switch {
	case from == to:
		return nil
	case replaced && old.dir:
		return fs.ErrExist
	case !e.dir && inPlace(from) != inPlace(to):
		// An appended file has another length of its objects.
		return fmt.Errorf("%s is written in place and %s is not, or the other way round", from, to)
	}
	set, unset := map[string]entry{to: e}, []string{from}
	if e.dir {
		if replaced {
			return syscall.ENOTDIR
		}
		for _, name := range f.below(from) {
			set[to+name[len(from):]] = f.rows[name]
			unset = append(unset, name)
		}
	}
	if !replaced {
		return f.change(set, unset, nil)
	}
	if err := f.change(set, unset, f.leaves(old)); err != nil {
		return err
	}
	return f.drop(old)
}

// below returns the names below a directory, sorted. f.mu is held.
func (f *FS) below(dir string) (names []string) {
	prefix := strings.TrimSuffix(dir, "/") + "/"
	for name := range f.rows {
		if strings.HasPrefix(name, prefix) && name != dir {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// List implements vfs.FS.
func (f *FS) List(dir string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := clean(dir)
	if err := f.isDir(key); err != nil {
		return nil, pathError("list", dir, err)
	}
	names := []string{}
	for _, name := range f.below(key) {
		if path.Dir(name) == key {
			names = append(names, path.Base(name))
		}
	}
	return names, nil
}

// isDir loads the names, and proves that there is a directory. f.mu is held.
func (f *FS) isDir(key string) error {
	if err := f.load(); err != nil {
		return err
	}
	e, ok := f.rows[key]
	if !ok {
		return fs.ErrNotExist
	}
	if !e.dir {
		return syscall.ENOTDIR
	}
	return nil
}

// MkdirAll implements vfs.FS.
func (f *FS) MkdirAll(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.load(); err != nil {
		return pathError("mkdir", dir, err)
	}
	set := map[string]entry{}
	for key := clean(dir); key != "/"; key = path.Dir(key) {
		e, ok := f.rows[key]
		if ok && !e.dir {
			return pathError("mkdir", dir, syscall.ENOTDIR)
		}
		if !ok {
			set[key] = entry{dir: true}
		}
	}
	if len(set) == 0 {
		return nil
	}
	return pathError("mkdir", dir, f.change(set, nil, nil))
}

// SyncDir implements vfs.FS: each change of a name was durable when it returned.
func (f *FS) SyncDir(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return pathError("sync", dir, f.isDir(clean(dir)))
}

// Place implements vfs.FS. A store is not moved within a pool.
func (f *FS) Place(dir string) (vfs.Place, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return vfs.Place{FileSystem: f.pool.ID()}, pathError("stat", dir, f.isDir(clean(dir)))
}

// Owner implements vfs.FS. All directories have one owner.
func (f *FS) Owner(dir string) owner.Driver { return driver{f, dir} }
