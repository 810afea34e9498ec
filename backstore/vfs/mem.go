package vfs

import (
	"context"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"odx/owner"
)

// OpKind is the operation that a hook is called for.
type OpKind int

// The operations of FS and File.
const (
	OpCreate OpKind = iota
	OpOpen
	OpRemove
	OpRename
	OpList
	OpMkdirAll
	OpSyncDir
	OpLock
	OpRead
	OpWrite
	OpSync
	OpTruncate
	OpSize
	OpAllocate
)

// Changes reports whether the operation can change the state after a power failure.
// These are the points at which crash tests fail the power.
func (k OpKind) Changes() bool {
	switch k {
	case OpOpen, OpList, OpLock, OpRead, OpSize:
		return false
	}
	return true
}

// Hook is called before each operation of a Mem, with no lock held. If it returns an
// error, the operation fails with that error and has no effect, except for ShortWrite,
// and for Sync: after a failed Sync, writes since the last successful one may never
// become durable, even if a later Sync succeeds, as on a kernel that drops dirty pages
// after a write error.
type Hook func(kind OpKind, name string) error

// ShortWrite is an error of a Hook for OpWrite: the first N bytes are written, and the
// write fails with Err.
type ShortWrite struct {
	N   int
	Err error
}

func (s *ShortWrite) Error() string { return s.Err.Error() }
func (s *ShortWrite) Unwrap() error { return s.Err }

// Mem is an FS in memory that simulates power failures.
//
// Lock order: world, names, inode.mu.
type Mem struct {
	// world is held shared by every operation, and exclusively by CrashClone and
	// ProcessClone, which thus see an instant of all files.
	world sync.RWMutex

	names   sync.Mutex               // guards the fields below
	current map[string]*inode        // by clean path
	durable map[string]*inode        // current as of the last SyncDirs
	pending []nameOp                 // transforms durable into current
	owners  map[string]*owner.Memory // by directory
	hook    Hook
	full    bool

	space space
}

// nameOp is an atomic change of names.
type nameOp []nameSet

type nameSet struct {
	name string
	node *inode // nil removes the name
}

// NewMem returns an empty Mem with the directories "/" and ".".
func NewMem() *Mem {
	root := map[string]*inode{"/": {dir: true}, ".": {dir: true}}
	m := &Mem{current: root, durable: map[string]*inode{}, owners: map[string]*owner.Memory{}}
	for name, node := range root {
		m.durable[name] = node
	}
	return m
}

// SetHook sets the hook of later operations; nil removes it.
func (m *Mem) SetHook(h Hook) {
	m.names.Lock()
	m.hook = h
	m.names.Unlock()
}

// SetFull makes Free return 0, or restores it. It does not affect writes; use a Hook
// for those.
func (m *Mem) SetFull(full bool) {
	m.names.Lock()
	m.full = full
	m.names.Unlock()
}

// Free implements FS.
func (m *Mem) Free(string) (int64, error) {
	m.names.Lock()
	defer m.names.Unlock()
	if m.full {
		return 0, nil
	}
	return m.space.free(), nil
}

// Place implements FS. The place is unknown.
func (m *Mem) Place(string) (Place, error) { return Place{}, nil }

// Total implements FS.
func (m *Mem) Total(string) (int64, error) {
	if capacity := m.space.capacity.Load(); capacity > 0 {
		return capacity, nil
	}
	return math.MaxInt64, nil
}

func (m *Mem) callHook(kind OpKind, name string) error {
	m.names.Lock()
	h := m.hook
	m.names.Unlock()
	if h == nil {
		return nil
	}
	return h(kind, name)
}

// enter calls the hook and takes the locks of an operation on names. The caller must
// call leave unless enter returns an error.
func (m *Mem) enter(kind OpKind, name string) error {
	if err := m.callHook(kind, name); err != nil {
		return err
	}
	m.world.RLock()
	m.names.Lock()
	return nil
}

func (m *Mem) leave() {
	m.names.Unlock()
	m.world.RUnlock()
}

// change applies op to the current names and adds it to pending.
func (m *Mem) change(op nameOp) {
	op.applyTo(m.current)
	m.pending = append(m.pending, op)
}

func (op nameOp) applyTo(names map[string]*inode) {
	for _, set := range op {
		if set.node == nil {
			delete(names, set.name)
		} else {
			names[set.name] = set.node
		}
	}
}

func (op nameOp) in(dir string) bool {
	return slices.ContainsFunc(op, func(s nameSet) bool { return filepath.Dir(s.name) == dir })
}

// syncDir makes the names in dir durable. A rename between two directories is atomic,
// so syncing either of them makes it durable.
func (m *Mem) syncDir(dir string) {
	left := m.pending[:0]
	for _, op := range m.pending {
		if op.in(dir) {
			op.applyTo(m.durable)
		} else {
			left = append(left, op)
		}
	}
	clear(m.pending[len(left):])
	m.pending = left
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	name = filepath.Clean(name)
	if err := m.enter(OpCreate, name); err != nil {
		return nil, err
	}
	defer m.leave()
	if m.current[name] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	if err := m.checkDir("create", filepath.Dir(name)); err != nil {
		return nil, err
	}
	node := &inode{}
	m.change(nameOp{{name, node}})
	return &memFile{fs: m, name: name, node: node}, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) {
	name = filepath.Clean(name)
	if err := m.enter(OpOpen, name); err != nil {
		return nil, err
	}
	defer m.leave()
	node := m.current[name]
	if node == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if node.dir {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	}
	return &memFile{fs: m, name: name, node: node}, nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	name = filepath.Clean(name)
	if err := m.enter(OpRemove, name); err != nil {
		return err
	}
	defer m.leave()
	node := m.current[name]
	if node == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	if !node.dir {
		m.change(nameOp{{name, nil}})
		node.unlink(&m.space)
		return nil
	}
	if len(m.list(name)) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	// The removal is durable only after the removals in the directory.
	m.syncDir(name)
	m.change(nameOp{{name, nil}})
	m.syncDir(filepath.Dir(name))
	return nil
}

// Rename implements FS.
func (m *Mem) Rename(from, to string) error {
	from, to = filepath.Clean(from), filepath.Clean(to)
	if err := m.enter(OpRename, from); err != nil {
		return err
	}
	defer m.leave()
	node := m.current[from]
	if node == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	if err := m.checkDir("rename", filepath.Dir(to)); err != nil {
		return err
	}
	if node.dir {
		return m.renameDir(from, to)
	}
	if old := m.current[to]; old != nil && old.dir {
		return &fs.PathError{Op: "rename", Path: from, Err: syscall.EISDIR}
	}
	if from != to {
		if old := m.current[to]; old != nil && old != node {
			old.unlink(&m.space)
		}
		m.change(nameOp{{from, nil}, {to, node}})
	}
	return nil
}

// renameDir moves a directory with its contents atomically. A power failure that keeps
// the move keeps all names in it that were durable, so the caller syncs the directory
// first.
func (m *Mem) renameDir(from, to string) error {
	if m.current[to] != nil {
		return &fs.PathError{Op: "rename", Path: to, Err: syscall.ENOTEMPTY}
	}
	op := nameOp{}
	for _, name := range slices.Sorted(maps.Keys(m.current)) {
		rest, in := strings.CutPrefix(name, from+"/")
		switch {
		case name == from:
			op = append(op, nameSet{from, nil}, nameSet{to, m.current[name]})
		case in:
			op = append(op, nameSet{name, nil}, nameSet{filepath.Join(to, rest), m.current[name]})
		}
	}
	m.change(op)
	return nil
}

// List implements FS.
func (m *Mem) List(dir string) ([]string, error) {
	dir = filepath.Clean(dir)
	if err := m.enter(OpList, dir); err != nil {
		return nil, err
	}
	defer m.leave()
	if err := m.checkDir("list", dir); err != nil {
		return nil, err
	}
	return m.list(dir), nil
}

func (m *Mem) list(dir string) []string {
	names := []string{}
	for name := range m.current {
		if name != dir && filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	slices.Sort(names)
	return names
}

func (m *Mem) checkDir(op, dir string) error {
	switch node := m.current[dir]; {
	case node == nil:
		return &fs.PathError{Op: op, Path: dir, Err: fs.ErrNotExist}
	case !node.dir:
		return &fs.PathError{Op: op, Path: dir, Err: syscall.ENOTDIR}
	}
	return nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(dir string) error {
	dir = filepath.Clean(dir)
	if err := m.enter(OpMkdirAll, dir); err != nil {
		return err
	}
	defer m.leave()
	return m.mkdirAll(dir)
}

func (m *Mem) mkdirAll(dir string) error {
	switch node := m.current[dir]; {
	case node != nil && node.dir:
		return nil
	case node != nil:
		return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
	}
	if err := m.mkdirAll(filepath.Dir(dir)); err != nil {
		return err
	}
	m.change(nameOp{{dir, &inode{dir: true}}})
	m.syncDir(filepath.Dir(dir))
	return nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	dir = filepath.Clean(dir)
	if err := m.enter(OpSyncDir, dir); err != nil {
		return err
	}
	defer m.leave()
	if err := m.checkDir("sync", dir); err != nil {
		return err
	}
	m.syncDir(dir)
	return nil
}

// Owner implements FS.
func (m *Mem) Owner(dir string) owner.Driver { return memOwner{m, filepath.Clean(dir)} }

// memOwner decides who owns a directory of a Mem.
type memOwner struct {
	fs  *Mem
	dir string
}

// RenewEvery implements owner.Driver.
func (o memOwner) RenewEvery() time.Duration { return time.Second }

// Claim implements owner.Driver.
func (o memOwner) Claim(ctx context.Context) (owner.Holding, error) {
	m, err := o.memory()
	if err != nil {
		return nil, err
	}
	return m.Claim(ctx)
}

// Wait implements owner.Driver.
func (o memOwner) Wait(ctx context.Context) (owner.Holding, error) {
	m, err := o.memory()
	if err != nil {
		return nil, err
	}
	return m.Wait(ctx)
}

// memory returns the place where claims of the directory are decided.
func (o memOwner) memory() (*owner.Memory, error) {
	if err := o.fs.enter(OpLock, o.dir); err != nil {
		return nil, err
	}
	defer o.fs.leave()
	if err := o.fs.checkDir("lock", o.dir); err != nil {
		return nil, err
	}
	if o.fs.owners[o.dir] == nil {
		o.fs.owners[o.dir] = owner.NewMemory(0, 0, 0, nil)
	}
	return o.fs.owners[o.dir], nil
}

// copyOwners gives a clone the epochs, and no owner. m.names is held.
func (m *Mem) copyOwners(clone *Mem) {
	for dir, o := range m.owners {
		clone.owners[dir] = owner.NewMemory(o.Epoch(), 0, 0, nil)
	}
}
