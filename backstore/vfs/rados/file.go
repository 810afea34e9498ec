package rados

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"syscall"
)

const (
	// chunkBytes is the length of the objects of a file that is appended to.
	chunkBytes = 4 << 20
	// oneObject is the longest file that is written in place: an OSD takes no write beyond
	// 128 MiB.
	oneObject = 96 << 20
	// inFlight bounds the bytes that are on their way for a file.
	inFlight = 16 << 20
	// aheadBytes is how much is read at once of a file that is read from its beginning to
	// its end.
	aheadBytes = 256 << 10
)

// node is a file, with a name or without.
type node struct {
	fs     *FS
	number uint64
	chunk  int64 // length of its objects in bytes
	refs   int   // open files; guarded by fs.mu

	mu      sync.Mutex // guards what follows; held while changes are begun
	size    int64
	first   bool // the first object is there
	changes uint64
	epoch   uint64
	pending []write
	held    []byte // to be written at heldAt; see gather
	heldAt  int64
	flying  int64 // bytes in pending
	failed  error // of a change since the last Sync
}

// write is a write that was begun.
type write struct {
	Pending
	object string
	at     int64 // number of the object
	create bool
	data   []byte // to be sent again: kept where create
	off    int64
	length int64
}

func newNode(f *FS, number uint64, inPlace bool) *node {
	n := &node{fs: f, number: number, chunk: chunkBytes, epoch: f.epoch}
	if inPlace {
		n.chunk = oneObject
	}
	return n
}

func (n *node) object(chunk int64) string { return objectName(n.number, chunk) }

func objectName(number uint64, chunk int64) string { return fmt.Sprintf("f.%x.%x", number, chunk) }

// find finds the length of the file. With seal, the object of a file that is written in
// place takes no write of an earlier owner from here on. fs.mu is held.
func (n *node) find(seal bool) error {
	if n.chunk == oneObject && seal {
		if err := n.seal(); err != nil {
			return err
		}
	}
	last, length, err := n.lastChunk()
	n.first = err == nil
	if notThere(err) {
		return nil
	}
	n.size = last*n.chunk + length
	return err
}

// seal raises the epoch of the object, and makes it where a file was only named.
func (n *node) seal() error {
	c := &Change{Compare: NoLater, Epoch: n.epoch, SetEpoch: n.epoch}
	err := do(n.fs.pool, n.object(0), c)
	if notThere(err) {
		err = do(n.fs.pool, n.object(0), &Change{Create: true, SetEpoch: n.epoch})
		if errors.Is(err, fs.ErrExist) {
			err = do(n.fs.pool, n.object(0), c) // the earlier owner made it just now
		}
	}
	return n.fs.judge(err)
}

// lastChunk returns the last object of a file and its length: all before it are full.
func (n *node) lastChunk() (chunk, length int64, err error) {
	length, err = n.fs.pool.Length(n.object(0))
	if err != nil || length < n.chunk {
		return 0, length, err
	}
	// known is there and full, beyond is not there.
	known, step := int64(0), int64(1)
	beyond := int64(-1)
	for beyond < 0 || beyond > known+1 {
		try := known + step
		if beyond >= 0 {
			try = (known + beyond) / 2
		}
		now, err := n.fs.pool.Length(n.object(try))
		switch {
		case notThere(err):
			beyond = try
		case err != nil:
			return 0, 0, err
		case now < n.chunk:
			return try, now, nil
		default:
			known, step = try, step*2
		}
	}
	return known, n.chunk, nil
}

// open returns an open file. fs.mu is held.
func (n *node) open(name string, write bool) *file {
	n.refs++
	return &file{n: n, name: name, write: write}
}

// begin begins the write of a part that is in one object. n.mu is held.
func (n *node) begin(p []byte, off int64) {
	at := off / n.chunk
	w := write{object: n.object(at), at: at, length: int64(len(p)), off: off % n.chunk}
	c := &Change{SetEpoch: n.epoch, Data: p, Off: w.off, Compare: NoLater, Epoch: n.epoch}
	if w.create = !n.has(at); w.create {
		c.Create, c.Compare = true, Any
		w.data = append([]byte(nil), p...)
	}
	n.first = n.first || at == 0
	w.Pending = n.fs.pool.Begin(w.object, c)
	n.pending = append(n.pending, w)
	n.flying += w.length
	n.size = max(n.size, off+w.length)
	n.changes++
	for n.flying > inFlight {
		n.settle()
	}
}

// has reports whether an object of the file is there.
func (n *node) has(chunk int64) bool {
	if chunk == 0 {
		return n.first
	}
	return chunk*n.chunk < n.size
}

// settle waits for the oldest write. n.mu is held.
func (n *node) settle() {
	w := n.pending[0]
	n.pending = n.pending[1:]
	n.flying -= w.length
	err := w.Wait()
	if w.create && errors.Is(err, fs.ErrExist) {
		if n.chunk == oneObject {
			err = ErrRefused // another owner made it
		} else {
			// A write of an earlier owner came late. What it left is written over or beyond the end.
			err = do(n.fs.pool, w.object, &Change{Compare: NoLater, Epoch: n.epoch, SetEpoch: n.epoch, Data: w.data, Off: w.off})
		}
	}
	if err == nil {
		return
	}
	if w.create { // it is not there: what is written again makes it
		n.first = n.first && w.at > 0
		n.size = min(n.size, w.at*n.chunk)
	}
	if err = n.fs.judge(err); n.failed == nil {
		n.failed = err
	}
}

// sync waits for all writes. n.mu is held.
func (n *node) sync() error {
	n.send()
	n.held = nil
	for len(n.pending) > 0 {
		n.settle()
	}
	err := n.failed
	n.failed = nil
	if err == nil {
		err = n.fs.check()
	}
	return err
}

// fill makes all objects before a byte full, so that the length of the file can be found.
// n.mu is held.
func (n *node) fill(off int64) error {
	last := off / n.chunk
	if last == 0 || last*n.chunk < n.size {
		return nil
	}
	if err := n.sync(); err != nil {
		return err
	}
	for at := max(n.size-1, 0) / n.chunk; at < last; at++ {
		if n.has(at) && n.size >= (at+1)*n.chunk {
			continue
		}
		if err := n.resize(at, n.chunk); err != nil {
			return err
		}
	}
	return nil
}

// resize sets the length of an object, and makes it if it is not there. n.mu is held, and
// nothing is pending.
func (n *node) resize(chunk, length int64) error {
	c := &Change{SetEpoch: n.epoch, Compare: NoLater, Epoch: n.epoch, Truncate: true, Length: length}
	if !n.has(chunk) {
		c.Create, c.Compare = true, Any
	}
	err := do(n.fs.pool, n.object(chunk), c)
	if c.Create && errors.Is(err, fs.ErrExist) && n.chunk != oneObject {
		c.Create, c.Compare = false, NoLater
		err = do(n.fs.pool, n.object(chunk), c)
	}
	if err != nil {
		return n.fs.judge(err)
	}
	n.first = n.first || chunk == 0
	n.size = chunk*n.chunk + length
	n.changes++
	return nil
}

// truncate sets the size. n.mu is held.
func (n *node) truncate(size int64) error {
	if err := n.sync(); err != nil {
		return err
	}
	if size > n.size {
		if err := n.limit(size); err != nil {
			return err
		}
		if err := n.fill(size - 1); err != nil {
			return err
		}
		last := (size - 1) / n.chunk
		return n.resize(last, size-last*n.chunk)
	}
	for n.size > size {
		last := (n.size - 1) / n.chunk
		if start := last * n.chunk; start >= size && last > 0 {
			err := do(n.fs.pool, n.object(last), &Change{Compare: NoLater, Epoch: n.epoch, Remove: true})
			if err != nil && !notThere(err) {
				return n.fs.judge(err)
			}
			n.size = start
			n.changes++
			continue
		}
		if err := n.resize(last, size-last*n.chunk); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) limit(end int64) error {
	if n.chunk == oneObject && end > oneObject {
		return syscall.EFBIG
	}
	return nil
}

// remove removes the objects, the last one first. fs.mu is held.
func (n *node) remove() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.sync(); err != nil {
		return err
	}
	for at := max(n.size-1, 0) / n.chunk; at >= 0; at-- {
		if err := do(n.fs.pool, n.object(at), &Change{Compare: NoLater, Epoch: n.epoch, Remove: true}); err != nil && !notThere(err) {
			return n.fs.judge(err)
		}
	}
	return nil
}

// file is an open file.
type file struct {
	n     *node
	name  string
	write bool

	mu     sync.Mutex // guards what follows
	closed bool
	next   int64 // where a reader goes on that reads one part after the other
	ahead  []byte
	from   int64
	at     uint64 // node.changes when it was read
}

// use returns an error if the file is closed or may not be written.
func (f *file) use(op string, write bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return pathError(op, f.name, fs.ErrClosed)
	}
	if write && !f.write {
		return pathError(op, f.name, fs.ErrPermission)
	}
	if !write {
		return nil
	}
	return pathError(op, f.name, f.n.fs.check())
}

// ReadAt implements vfs.File.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.use("read", false); err != nil {
		return 0, err
	}
	f.n.mu.Lock()
	f.n.send()
	size, changes := f.n.size, f.n.changes
	f.n.mu.Unlock()
	if off >= size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), size-off)]
	if err := f.read(want, off, size, changes); err != nil {
		return 0, pathError("read", f.name, err)
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}

// read fills p, from what was read ahead where that has it.
func (f *file) read(p []byte, off, size int64, changes uint64) error {
	f.mu.Lock()
	inOrder := off == f.next
	f.next = off + int64(len(p))
	if f.at == changes && off >= f.from && off+int64(len(p)) <= f.from+int64(len(f.ahead)) {
		copy(p, f.ahead[off-f.from:])
		f.mu.Unlock()
		return nil
	}
	f.mu.Unlock()
	if !inOrder || len(p) >= aheadBytes {
		return f.n.read(p, off)
	}
	ahead := make([]byte, min(aheadBytes, size-off))
	if err := f.n.read(ahead, off); err != nil {
		return err
	}
	copy(p, ahead)
	f.mu.Lock()
	f.ahead, f.from, f.at = ahead, off, changes
	f.mu.Unlock()
	return nil
}

// read fills p. What is missing of an object are zeros.
func (n *node) read(p []byte, off int64) error {
	for len(p) > 0 {
		at := off / n.chunk
		part := p[:min(int64(len(p)), (at+1)*n.chunk-off)]
		k, err := n.fs.pool.Read(n.object(at), part, off%n.chunk)
		if err != nil && !notThere(err) {
			return err
		}
		clear(part[k:])
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

// WriteAt implements vfs.File. The data is on its way when it returns, or goes with what follows
// it.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.use("write", true); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n := f.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.limit(off + int64(len(p))); err != nil {
		return 0, pathError("write", f.name, err)
	}
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if !n.follows(at) {
			n.send()
		}
		if err := n.fill(at); err != nil {
			return done, pathError("write", f.name, err)
		}
		part := p[done:min(int64(len(p)), int64(done)+(at/n.chunk+1)*n.chunk-at)]
		if !n.gather(part, at) {
			n.send()
			if !n.gather(part, at) {
				n.begin(part, at)
			}
		}
		done += len(part)
	}
	return done, nil
}

// Sync implements vfs.File.
func (f *file) Sync() error {
	if err := f.use("sync", true); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	return pathError("sync", f.name, f.n.sync())
}

// WriteBack implements vfs.File: what was written is on its way.
func (f *file) WriteBack(int64, int64) error {
	if err := f.use("write back", false); err != nil {
		return err
	}
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	f.n.send()
	return nil
}

// Truncate implements vfs.File.
func (f *file) Truncate(size int64) error {
	if err := f.use("truncate", true); err != nil {
		return err
	}
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	return pathError("truncate", f.name, f.n.truncate(size))
}

// Allocate implements vfs.File: objects have no blocks of their own.
func (f *file) Allocate(int64) error { return f.use("allocate", true) }

// Size implements vfs.File.
func (f *file) Size() (int64, error) {
	if err := f.use("size", false); err != nil {
		return 0, err
	}
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	return f.n.end(), nil
}

// Close implements vfs.File. It waits for the writes of a file that no caller has open any more:
// an error is that of the next Sync, as with a file system.
func (f *file) Close() error {
	f.mu.Lock()
	closed := f.closed
	f.closed = true
	f.ahead = nil
	f.mu.Unlock()
	if closed {
		return pathError("close", f.name, fs.ErrClosed)
	}
	n := f.n
	n.mu.Lock()
	n.send()
	n.held = nil
	n.mu.Unlock()
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	n.refs--
	if n.refs == 0 && n.fs.gone[n.number] {
		_ = n.fs.purge(n.number) // the next owner removes what is left
	}
	return nil
}
