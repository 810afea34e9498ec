package vhdxfile

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"odx/blockdev"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

// Fixed identifiers.
var (
	dataID   = mustGUID("00112233-4455-6677-8899-aabbccddeeff")
	diskID   = mustGUID("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")
	parentID = mustGUID("83ed0ec3-24c8-49a6-a959-5e4bf1288bfb")
)

// spec returns the specification of a small disk with blocks of 1 MiB.
func spec(kind disk.Kind, size int64) disk.Spec {
	s := disk.Spec{Kind: kind, ID: dataID, DiskID: diskID}
	s.Size, s.BlockLength = size, 1*mib
	if kind == disk.Differencing {
		s.Parent = &disk.Parent{ID: parentID, Paths: []string{"../base/parent.vhdx"}}
	}
	return s
}

// newDisk creates a disk in a container in memory.
func newDisk(t testing.TB, s disk.Spec) (*disktest.Memory, *File) {
	t.Helper()
	m := disktest.New(nil)
	f, err := Create(t.Context(), m, s)
	if err != nil {
		t.Fatal(err)
	}
	return m, f
}

// reopen closes and opens a file.
func reopen(t testing.TB, c disk.Container, f *File) *File {
	t.Helper()
	closeFile(t, f)
	f, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func closeFile(t testing.TB, f *File) {
	t.Helper()
	if err := f.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// clean fails the test if Check has a finding that is not harmless, and returns the
// texts of all findings.
func clean(t testing.TB, r blockdev.Reader) string {
	t.Helper()
	found, err := Check(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, f := range found {
		texts = append(texts, f.Text)
		if !f.Harmless {
			t.Errorf("Check: %s", f.Text)
		}
	}
	return strings.Join(texts, "; ")
}

// states returns the states of the first blocks of a file, a letter each.
func states(f *File) string {
	var b strings.Builder
	for i := range f.table.blocks {
		b.WriteByte("-0FP"[f.block(i).State])
	}
	return b.String()
}

// sparse is a container that uses memory only for written data, and whose calls take
// the time of those of the store.
type sparse struct {
	size  int64
	limit int64 // of size, if not zero
	pages map[int64][]byte
	// shared has the pages that are shared with another container.
	shared map[int64]bool
	calls  int
	delay  time.Duration
}

const sparsePage = 64 * kib

func (s *sparse) call(off, n int64) error {
	s.calls++
	for began := time.Now(); time.Since(began) < s.delay; {
	}
	if off < 0 || off+n > s.size {
		return fmt.Errorf("%d bytes at %d of %d", n, off, s.size)
	}
	return nil
}

func (s *sparse) Size() int64 { return s.size }

func (s *sparse) each(p []byte, off int64, fn func(page int64, at int64, p []byte)) {
	for len(p) > 0 {
		n := min(int64(len(p)), sparsePage-off%sparsePage)
		fn(off/sparsePage, off%sparsePage, p[:n])
		p, off = p[n:], off+n
	}
}

func (s *sparse) ReadAt(_ context.Context, p []byte, off int64) error {
	s.each(p, off, func(page, at int64, p []byte) {
		clear(p)
		if data := s.pages[page]; data != nil {
			copy(p, data[at:])
		}
	})
	return s.call(off, int64(len(p)))
}

func (s *sparse) WriteAt(_ context.Context, p []byte, off int64) error {
	if s.pages == nil {
		s.pages = make(map[int64][]byte)
	}
	s.each(p, off, func(page, at int64, p []byte) {
		if s.pages[page] == nil {
			s.pages[page] = make([]byte, sparsePage)
		}
		copy(s.own(page)[at:], p)
	})
	return s.call(off, int64(len(p)))
}

// own returns a page for modification.
func (s *sparse) own(page int64) []byte {
	if s.shared[page] {
		delete(s.shared, page)
		s.pages[page] = bytes.Clone(s.pages[page])
	}
	return s.pages[page]
}

// copy returns a container with the same contents.
func (s *sparse) copy() *sparse {
	c := &sparse{size: s.size, limit: s.limit, pages: maps.Clone(s.pages), shared: make(map[int64]bool)}
	for page := range s.pages {
		c.shared[page] = true
	}
	return c
}

func (s *sparse) Unmap(_ context.Context, off, length int64) error {
	for page := range s.pages {
		from, to := max(off, page*sparsePage), min(off+length, (page+1)*sparsePage)
		if from < to {
			clear(s.own(page)[from-page*sparsePage : to-page*sparsePage])
		}
	}
	return s.call(off, length)
}

func (s *sparse) Truncate(_ context.Context, size int64) error {
	if s.limit > 0 && size > s.limit {
		return fmt.Errorf("%d bytes are too many", size)
	}
	for page := range s.pages {
		if from := max(size, page*sparsePage); from < (page+1)*sparsePage {
			clear(s.own(page)[from-page*sparsePage:])
		}
	}
	s.size = size
	return s.call(0, 0)
}

func (s *sparse) Barrier(context.Context) error { return s.call(0, 0) }
func (s *sparse) Flush(context.Context) error   { return s.call(0, 0) }

// block is Block of a file whose BAT is readable.
func (f *File) block(i int64) disk.Block {
	b, err := f.Block(context.Background(), i)
	if err != nil {
		panic(err)
	}
	return b
}
