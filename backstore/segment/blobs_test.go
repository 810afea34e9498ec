package segment

import (
	"bytes"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// conformance tests an implementation of Blobs, which must be empty.
func conformance(t *testing.T, blobs Blobs) {
	if ids, err := blobs.List(); err != nil || len(ids) != 0 {
		t.Fatalf("list of an empty Blobs: %v, %v", ids, err)
	}
	_, err := blobs.Open(5)
	wantErr(t, "open of a missing blob", err, fs.ErrNotExist)
	wantErr(t, "remove of a missing blob", blobs.Remove(5), fs.ErrNotExist)

	for _, id := range []ID{0xffffffff, 5, 0x2a} {
		b, err := blobs.Create(id)
		must.Succeed(t, err)
		_, err = b.WriteAt([]byte("hello"), 10)
		must.Succeed(t, err)
		must.Succeed(t, b.Sync())
		must.Succeed(t, b.Close())
	}
	_, err = blobs.Create(5)
	wantErr(t, "create of a blob that is there", err, fs.ErrExist)
	must.Succeed(t, blobs.SyncList())
	if ids, err := blobs.List(); err != nil || !slices.Equal(ids, []ID{5, 0x2a, 0xffffffff}) {
		t.Errorf("list: %v, %v", ids, err)
	}

	b, err := blobs.Open(5)
	must.Succeed(t, err)
	p := make([]byte, 20)
	if n, err := b.ReadAt(p, 0); n != 15 || err != io.EOF || !bytes.Equal(p[:n], []byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00hello")) {
		t.Errorf("read %d, %v: %q", n, err, p)
	}
	if size, err := b.Size(); err != nil || size != 15 {
		t.Errorf("size %d, %v", size, err)
	}
	must.Succeed(t, blobs.Remove(5))
	if n, err := b.ReadAt(p[:5], 10); n != 5 || err != nil {
		t.Errorf("read of a removed blob: %d, %v", n, err)
	}
	must.Succeed(t, b.Close())
	_, err = blobs.Open(5)
	wantErr(t, "open of a removed blob", err, fs.ErrNotExist)
	if r, ok := blobs.(Reuser); ok {
		reuse(t, blobs, r)
	}
}

// reuse tests a Reuser that has blob 0x2a.
func reuse(t *testing.T, blobs Blobs, r Reuser) {
	wantErr(t, "retire a missing blob", r.Retire(5), fs.ErrNotExist)
	_, err := r.Reuse(0x2a, 7)
	wantErr(t, "reuse a blob that is not retired", err, fs.ErrNotExist)
	must.Succeed(t, r.Retire(0x2a))
	_, err = blobs.Open(0x2a)
	wantErr(t, "open of a retired blob", err, fs.ErrNotExist)
	if ids, err := blobs.List(); err != nil || slices.Contains(ids, 0x2a) {
		t.Errorf("list with a retired blob: %v, %v", ids, err)
	}
	if ids, err := r.Retired(); err != nil || !slices.Equal(ids, []ID{0x2a}) {
		t.Errorf("retired: %v, %v", ids, err)
	}
	b, err := r.Reuse(0x2a, 7)
	must.Succeed(t, err)
	p := make([]byte, 5)
	if _, err := b.ReadAt(p, 10); err != nil || string(p) != "hello" {
		t.Errorf("reused: %q, %v", p, err)
	}
	must.Succeed(t, b.Close())
	must.Succeed(t, r.Retire(7))
	must.Succeed(t, r.Discard(7))
	wantErr(t, "discard what is gone", r.Discard(7), fs.ErrNotExist)
	if ids, err := r.Retired(); err != nil || len(ids) != 0 {
		t.Errorf("retired at the end: %v, %v", ids, err)
	}
}

func TestDir(t *testing.T) {
	t.Run("os", func(t *testing.T) {
		blobs, err := Dir(vfs.OS(), filepath.Join(t.TempDir(), "a", "b"))
		must.Succeed(t, err)
		conformance(t, blobs)
	})
	t.Run("mem", func(t *testing.T) {
		blobs, err := Dir(vfs.NewMem(), "/a/b")
		must.Succeed(t, err)
		conformance(t, blobs)
	})
}

func TestDir_IgnoresOtherFiles(t *testing.T) {
	m := vfs.NewMem()
	blobs, err := Dir(m, "/s")
	must.Succeed(t, err)
	for _, name := range []string{"0000002A.seg", "2a.seg", "00000000.seg", "0000002a.seg~", "0000002a", "lost+found", "-000002a.seg"} {
		f, err := m.Create("/s/" + name)
		must.Succeed(t, err)
		must.Succeed(t, f.Close())
	}
	if ids, err := blobs.List(); err != nil || len(ids) != 0 {
		t.Errorf("list: %v, %v", ids, err)
	}
	b, err := blobs.Create(0x2a)
	must.Succeed(t, err)
	must.Succeed(t, b.Close())
	f, err := m.Open("/s/0000002a.seg")
	must.Succeed(t, err)
	must.Succeed(t, f.Close())
}
