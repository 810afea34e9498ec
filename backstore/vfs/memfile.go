package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
)

const (
	// pageLength is the granularity at which images and clones share data, in bytes.
	pageLength = 4096
	// sectorLength is the atomic write size of a disk in bytes.
	sectorLength = 512
)

// page is immutable once it is shared.
type page struct {
	shared bool
	data   [pageLength]byte
}

// image is the content of a file; a nil page is all zeros.
type image struct {
	pages []*page
	size  int64
}

// update is a write that may not be durable; nil data means zeros.
type update struct {
	off, length int64
	data        []byte
}

// inode is a file, or a directory, which has only a name.
type inode struct {
	dir bool

	mu      sync.RWMutex // guards the fields below
	current image
	durable image
	pending []update // since the last successful Sync, in order
	inDoubt []update // earlier ones, which a failed Sync left in doubt
	sizes   []int64  // all sizes since the last successful Sync
	blocks  blocks
}

type memFile struct {
	fs     *Mem
	name   string
	node   *inode
	closed atomic.Bool
}

func (f *memFile) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

func (f *memFile) enter(kind OpKind, op string) error {
	if f.closed.Load() {
		return f.fail(op, fs.ErrClosed)
	}
	if err := f.fs.callHook(kind, f.name); err != nil {
		return err
	}
	f.fs.world.RLock()
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, f.fail("read", errors.New("negative offset"))
	}
	if err := f.enter(OpRead, "read"); err != nil {
		return 0, err
	}
	defer f.fs.world.RUnlock()
	f.node.mu.RLock()
	defer f.node.mu.RUnlock()
	n := f.node.current.readAt(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, f.fail("write", errors.New("negative offset"))
	}
	err := f.enter(OpWrite, "write")
	var short *ShortWrite
	if errors.As(err, &short) {
		p = p[:min(len(p), short.N)]
		f.fs.world.RLock()
	} else if err != nil {
		return 0, err
	}
	defer f.fs.world.RUnlock()
	f.node.mu.Lock()
	defer f.node.mu.Unlock()
	if err := f.node.blocks.assign(&f.fs.space, off, off+int64(len(p))); err != nil {
		return 0, f.fail("write", err)
	}
	f.node.write(update{off, int64(len(p)), copyOf(p)})
	if short != nil {
		return len(p), short.Err
	}
	return len(p), nil
}

// copyOf returns a copy of the bytes of a write, or nil if all are zero, so that a file
// of zeros takes no memory.
func copyOf(p []byte) []byte {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), pageLength)
		if !bytes.Equal(rest[:n], zeros[:n]) {
			return append([]byte{}, p...)
		}
		rest = rest[n:]
	}
	return nil
}

var zeros [pageLength]byte

func (f *memFile) Truncate(size int64) error {
	if size < 0 {
		return f.fail("truncate", errors.New("negative size"))
	}
	if err := f.enter(OpTruncate, "truncate"); err != nil {
		return err
	}
	defer f.fs.world.RUnlock()
	n := f.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if removed := n.current.size - size; removed > 0 {
		n.write(update{size, removed, nil})
	}
	n.blocks.truncate(&f.fs.space, size)
	n.current.resize(size)
	n.sizes = append(n.sizes, size)
	return nil
}

func (f *memFile) Sync() error {
	if f.closed.Load() {
		return f.fail("sync", fs.ErrClosed)
	}
	err := f.fs.callHook(OpSync, f.name)
	f.fs.world.RLock()
	defer f.fs.world.RUnlock()
	n := f.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.inDoubt = append(n.inDoubt, n.pending...)
		n.pending = nil
		return err
	}
	n.sync()
	return nil
}

// WriteBack has no effect: unsynced data may be durable at any time.
func (f *memFile) WriteBack(int64, int64) error {
	if f.closed.Load() {
		return f.fail("write back", fs.ErrClosed)
	}
	return nil
}

// Allocate implements File.
func (f *memFile) Allocate(size int64) error {
	if err := f.enter(OpAllocate, "allocate"); err != nil {
		return err
	}
	defer f.fs.world.RUnlock()
	f.node.mu.Lock()
	defer f.node.mu.Unlock()
	if err := f.node.blocks.assign(&f.fs.space, 0, size); err != nil {
		return f.fail("allocate", err)
	}
	return nil
}

func (f *memFile) Size() (int64, error) {
	if err := f.enter(OpSize, "stat"); err != nil {
		return 0, err
	}
	defer f.fs.world.RUnlock()
	f.node.mu.RLock()
	defer f.node.mu.RUnlock()
	return f.node.current.size, nil
}

func (f *memFile) Close() error {
	if f.closed.Swap(true) {
		return f.fail("close", fs.ErrClosed)
	}
	return nil
}

func (n *inode) write(u update) {
	if end := u.off + u.length; end > n.current.size && u.length > 0 {
		n.current.resize(end)
		n.sizes = append(n.sizes, end)
	}
	n.current.apply(u)
	n.pending = append(n.pending, u)
}

// sync makes the current image durable, except for sectors that only have updates in
// doubt.
func (n *inode) sync() {
	n.durable.resize(n.current.size)
	for _, u := range n.pending {
		n.settle(u)
	}
	n.pending, n.sizes = nil, nil
}

func (n *inode) settle(u update) {
	if len(n.inDoubt) > 0 {
		n.settleSectors(u)
		return
	}
	last := min(u.off+u.length, n.current.size)
	for i := u.off / pageLength; i*pageLength < last; i++ {
		n.durable.pages[i] = n.current.pages[i].share()
	}
}

// settleSectors settles the sectors of u one by one, and removes them from the updates
// in doubt.
func (n *inode) settleSectors(u update) {
	first, end := sectors(u.off, u.length)
	for s := first; s < end; s++ {
		var b [sectorLength]byte
		n.current.readAt(b[:], s*sectorLength)
		n.durable.apply(update{s * sectorLength, sectorLength, b[:]})
	}
	var left []update
	for _, d := range n.inDoubt {
		if before := min(d.off+d.length, first*sectorLength) - d.off; before > 0 {
			left = append(left, d.part(d.off, before))
		}
		if from := max(d.off, end*sectorLength); from < d.off+d.length {
			left = append(left, d.part(from, d.off+d.length-from))
		}
	}
	n.inDoubt = left
}

// part returns the part of u of the given length from off.
func (u update) part(off, length int64) update {
	if u.data == nil {
		return update{off, length, nil}
	}
	from := off - u.off
	return update{off, length, u.data[from : from+length]}
}

// sectors returns the half-open range of sectors that contain the bytes.
func sectors(off, length int64) (first, end int64) {
	return off / sectorLength, (off + length + sectorLength - 1) / sectorLength
}

func (p *page) share() *page {
	if p != nil && !p.shared {
		p.shared = true
	}
	return p
}

func (im *image) readAt(p []byte, off int64) int {
	if off >= im.size {
		return 0
	}
	p = p[:min(int64(len(p)), im.size-off)]
	for n := 0; n < len(p); {
		i, in := (off+int64(n))/pageLength, (off+int64(n))%pageLength
		part := p[n:min(len(p), n+pageLength-int(in))]
		if pg := im.pages[i]; pg != nil {
			copy(part, pg.data[in:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return len(p)
}

// resize keeps the bytes after the size zero.
func (im *image) resize(size int64) {
	if size < im.size {
		im.apply(update{size, im.size - size, nil})
	}
	im.size = size
	pages := int((size + pageLength - 1) / pageLength)
	for len(im.pages) < pages {
		im.pages = append(im.pages, nil)
	}
	clear(im.pages[pages:])
	im.pages = im.pages[:pages]
}

// apply writes the part of u within the image.
func (im *image) apply(u update) {
	end := min(u.off+u.length, im.size)
	for off := u.off; off < end; {
		i, in := off/pageLength, off%pageLength
		n := min(pageLength-in, end-off)
		im.patch(i, int(in), u.part(off, n))
		off += n
	}
}

func (im *image) patch(i int64, in int, u update) {
	pg := im.pages[i]
	if u.data == nil {
		if pg == nil {
			return
		}
		if u.length == pageLength {
			im.pages[i] = nil
			return
		}
	}
	if pg == nil {
		pg = &page{}
	} else if pg.shared {
		pg = &page{data: pg.data}
	}
	im.pages[i] = pg
	if u.data == nil {
		clear(pg.data[in : in+int(u.length)])
	} else {
		copy(pg.data[in:], u.data)
	}
}

func (im *image) clone() image {
	c := image{pages: make([]*page, len(im.pages)), size: im.size}
	for i, pg := range im.pages {
		c.pages[i] = pg.share()
	}
	return c
}
