package vfs

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"odx/owner"
)

// Overlay returns an FS with the contents of base that does not modify base: writes go
// to memory, and created files to unnamed ones in the directory for temporary files.
// Its contents end with the process. Files of a base that is a Reader need not be
// writable. A store in base is owned there.
func Overlay(base FS) FS {
	if o, ok := base.(osFS); ok {
		base = osReadOnly{o}
	}
	return &overlay{base: base, nodes: make(map[string]*overlaid), gone: make(map[string]bool), dirs: make(map[string]bool), owned: make(map[string]*owner.Memory)}
}

// osReadOnly claims stores for those who only read.
type osReadOnly struct{ osFS }

func (osReadOnly) Owner(dir string) owner.Driver { return owner.ReadDirectory(dir) }

type overlay struct {
	base FS

	mu    sync.Mutex
	nodes map[string]*overlaid     // open files, and files that differ from base
	gone  map[string]bool          // removed names of base
	dirs  map[string]bool          // created
	owned map[string]*owner.Memory // directories that are not in base
}

// overlaid is a file. overlay.mu guards it, except for the fields below mu.
type overlaid struct {
	handles int
	base    string // name in base, or "" if it was created here

	mu      sync.RWMutex // guards the fields below
	file    File         // in base, nil while no handle is open; or the created file
	size    int64
	kept    int64            // length of the file in base after truncation
	pages   map[int64][]byte // written pages of overlayPage bytes
	changed bool
}

const overlayPage = 4096

func (o *overlay) Create(name string) (File, error) {
	name = filepath.Clean(name)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.checkDir("create", filepath.Dir(name)); err != nil {
		return nil, err
	}
	if o.exists(name) || o.checkDir("create", name) == nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	f, err := os.CreateTemp("", "odx-overlay-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	n := &overlaid{file: osFile{f}, changed: true, handles: 1}
	o.nodes[name] = n
	return &overlayFile{o: o, n: n}, nil
}

// checkDir returns an error if dir is not a directory. The caller holds o.mu.
func (o *overlay) checkDir(op, dir string) error {
	if o.dirs[dir] {
		return nil
	}
	if o.gone[dir] {
		return &fs.PathError{Op: op, Path: dir, Err: fs.ErrNotExist}
	}
	_, err := o.base.List(dir)
	return err
}

// exists reports whether the file exists. The caller holds o.mu.
func (o *overlay) exists(name string) bool {
	if o.nodes[name] != nil {
		return true
	}
	if o.gone[name] {
		return false
	}
	f, err := o.openBase(name)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// openBase opens a file of base, which is only read.
func (o *overlay) openBase(name string) (File, error) {
	if r, ok := o.base.(Reader); ok {
		return r.OpenToRead(name)
	}
	return o.base.Open(name)
}

func (o *overlay) Open(name string) (File, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.node(filepath.Clean(name))
	if err != nil {
		return nil, err
	}
	return &overlayFile{o: o, n: n}, nil
}

// node returns the file and counts a handle. The caller holds o.mu.
func (o *overlay) node(name string) (*overlaid, error) {
	n := o.nodes[name]
	if n == nil {
		if o.gone[name] {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		n = &overlaid{base: name}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		f, err := o.openBase(n.base)
		if err != nil {
			return nil, err
		}
		n.file = f
		if !n.changed {
			if n.size, err = f.Size(); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			n.kept = n.size
		}
	}
	n.handles++
	o.nodes[name] = n
	return n, nil
}

// close releases a handle.
func (o *overlay) close(n *overlaid) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n.handles--; n.handles > 0 {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.base == "" && o.named(n) {
		return nil // it could not be opened again
	}
	err := n.file.Close()
	n.file = nil
	if !n.changed {
		maps.DeleteFunc(o.nodes, func(_ string, other *overlaid) bool { return other == n })
	}
	return err
}

func (o *overlay) Remove(name string) error {
	name = filepath.Clean(name)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.checkDir("remove", name) == nil {
		if names, err := o.list(name); err != nil || len(names) > 0 {
			return &fs.PathError{Op: "remove", Path: name, Err: unix.ENOTEMPTY}
		}
		delete(o.dirs, name)
		o.gone[name] = true
		return nil
	}
	if !o.exists(name) {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	o.forget(name)
	return nil
}

// forget removes a name. The caller holds o.mu.
func (o *overlay) forget(name string) {
	n := o.nodes[name]
	delete(o.nodes, name)
	o.gone[name] = true
	if n != nil && n.base == "" && n.handles == 0 {
		n.file.Close() // its content is discarded
	}
}

// named reports whether the file has a name. The caller holds o.mu.
func (o *overlay) named(n *overlaid) bool {
	for _, other := range o.nodes {
		if other == n {
			return true
		}
	}
	return false
}

func (o *overlay) Rename(from, to string) error {
	from, to = filepath.Clean(from), filepath.Clean(to)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.checkDir("rename", filepath.Dir(to)); err != nil {
		return err
	}
	n, err := o.node(from)
	if err != nil {
		return err
	}
	n.handles--
	n.mu.Lock()
	n.changed = true // its name has changed
	n.mu.Unlock()
	if from != to {
		delete(o.nodes, from)
		o.gone[from] = true
		o.forget(to)
	}
	o.nodes[to] = n
	return nil
}

func (o *overlay) List(dir string) ([]string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.list(filepath.Clean(dir))
}

// list is List. The caller holds o.mu.
func (o *overlay) list(dir string) ([]string, error) {
	if err := o.checkDir("list", dir); err != nil {
		return nil, err
	}
	names, err := o.base.List(dir)
	if err != nil && !o.dirs[dir] {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return o.gone[filepath.Join(dir, name)] })
	for name := range o.nodes {
		if filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	for name := range o.dirs {
		if filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (o *overlay) MkdirAll(dir string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var missing []string
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		if o.exists(dir) && !o.dirs[dir] && o.checkDir("mkdir", dir) != nil {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: unix.ENOTDIR}
		}
		if o.checkDir("mkdir", dir) == nil || filepath.Dir(dir) == dir {
			break
		}
		missing = append(missing, dir)
	}
	for _, dir := range missing {
		o.dirs[dir] = true
	}
	return nil
}

func (o *overlay) SyncDir(dir string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.checkDir("sync", filepath.Clean(dir))
}

// Owner implements FS: a directory that is not in base has owners of its own.
func (o *overlay) Owner(dir string) owner.Driver {
	dir = filepath.Clean(dir)
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.dirs[dir] {
		return o.base.Owner(dir)
	}
	if o.owned[dir] == nil {
		o.owned[dir] = owner.NewMemory(0, 0, 0, nil)
	}
	return o.owned[dir]
}

func (o *overlay) Free(dir string) (int64, error) { return o.base.Free(dir) }

func (o *overlay) Total(dir string) (int64, error) { return o.base.Total(dir) }

func (o *overlay) Place(dir string) (Place, error) { return o.base.Place(dir) }

// overlayFile is an open file.
type overlayFile struct {
	o      *overlay
	n      *overlaid
	closed atomic.Bool
}

func (f *overlayFile) Close() error {
	if f.closed.Swap(true) {
		return fs.ErrClosed
	}
	return f.o.close(f.n)
}

// open returns fs.ErrClosed if the handle is closed.
func (f *overlayFile) open() error {
	if f.closed.Load() {
		return fs.ErrClosed
	}
	return nil
}

func (f *overlayFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.open(); err != nil {
		return 0, err
	}
	n := f.n
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.base == "" {
		return n.file.ReadAt(p, off)
	}
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	if off >= n.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > n.size-off {
		p, end = p[:n.size-off], io.EOF
	}
	if err := n.read(p, off); err != nil {
		return 0, err
	}
	return len(p), end
}

// read reads a range within the file. The caller holds n.mu.
func (n *overlaid) read(p []byte, off int64) error {
	if len(n.pages) == 0 {
		return n.readBase(p, off)
	}
	for len(p) > 0 {
		in := int(off % overlayPage)
		part := p[:min(len(p), overlayPage-in)]
		if page := n.pages[off/overlayPage]; page != nil {
			copy(part, page[in:])
		} else if err := n.readBase(part, off); err != nil {
			return err
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

// readBase reads from base, and zeros beyond its length.
func (n *overlaid) readBase(p []byte, off int64) error {
	have := p[:max(0, min(int64(len(p)), n.kept-off))]
	clear(p[len(have):])
	if len(have) == 0 {
		return nil
	}
	_, err := n.file.ReadAt(have, off)
	return err
}

func (f *overlayFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.open(); err != nil {
		return 0, err
	}
	n := f.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.base == "" {
		return n.file.WriteAt(p, off)
	}
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	if n.pages == nil {
		n.pages = make(map[int64][]byte)
	}
	n.changed = true
	done := 0
	for done < len(p) {
		at := off + int64(done)
		in := int(at % overlayPage)
		page := n.pages[at/overlayPage]
		if page == nil {
			page = make([]byte, overlayPage)
			if err := n.readBase(page, at-int64(in)); err != nil {
				return done, err
			}
			n.pages[at/overlayPage] = page
		}
		done += copy(page[in:], p[done:])
	}
	n.size = max(n.size, off+int64(len(p)))
	return len(p), nil
}

func (f *overlayFile) Truncate(size int64) error {
	if err := f.open(); err != nil {
		return err
	}
	n := f.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.base == "" {
		return n.file.Truncate(size)
	}
	n.changed = true
	n.kept = min(n.kept, size)
	for at, page := range n.pages {
		if at*overlayPage >= size {
			delete(n.pages, at)
		} else if end := size - at*overlayPage; end < overlayPage {
			clear(page[end:])
		}
	}
	n.size = size
	return nil
}

func (f *overlayFile) Size() (int64, error) {
	if err := f.open(); err != nil {
		return 0, err
	}
	n := f.n
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.base == "" {
		return n.file.Size()
	}
	return n.size, nil
}

func (f *overlayFile) Sync() error { return f.open() }

func (f *overlayFile) WriteBack(int64, int64) error { return f.open() }

func (f *overlayFile) Allocate(int64) error { return f.open() }
