package segment

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var store = [16]byte{1, 2, 3}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func open(t testing.TB, fsys vfs.FS, dir string, o Options) *Set {
	t.Helper()
	blobs, err := Dir(fsys, dir)
	must.Succeed(t, err)
	o.Blobs, o.StoreID = blobs, store
	s, err := Open(o)
	must.Succeed(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// blocks is n blocks, each with unique contents.
func blocks(seed, n int) []byte {
	p := make([]byte, n*BlockLength)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], uint64(seed)<<32|uint64(i))
	}
	return p
}

func appendTo(t testing.TB, s *Set, p []byte) Addr {
	t.Helper()
	a, err := s.Append(p)
	must.Succeed(t, err)
	return a
}

func wantData(t testing.TB, s *Set, a Addr, want []byte) {
	t.Helper()
	p := make([]byte, len(want))
	if err := s.ReadAt(a, p); err != nil {
		t.Error(err)
	} else if !bytes.Equal(p, want) {
		t.Errorf("%v: other bytes", a)
	}
}

func TestSet_AppendRead(t *testing.T) {
	s := open(t, vfs.NewMem(), "/s", Options{SegmentBlocks: 8})
	if _, ok := s.Current(); ok || s.NextID() != 1 {
		t.Error("Current returns a segment before the first append")
	}
	for i, test := range []struct {
		blocks int
		want   Addr
	}{
		{3, Addr{1, 1}}, {4, Addr{1, 4}}, {1, Addr{2, 1}}, {6, Addr{2, 2}}, {7, Addr{3, 1}}, {2, Addr{4, 1}}, {7, Addr{5, 1}},
	} {
		if a := appendTo(t, s, blocks(i, test.blocks)); a != test.want {
			t.Errorf("append of %d blocks went to %v, want %v", test.blocks, a, test.want)
		}
		wantData(t, s, test.want, blocks(i, test.blocks))
	}
	p := make([]byte, 5000)
	must.Succeed(t, s.ReadAtOffset(Addr{2, 2}, 4097, p))
	if !bytes.Equal(p, blocks(3, 6)[4097:9097]) {
		t.Error("read at an offset gives other bytes")
	}
	if got := s.List(); !slices.Equal(got, []ID{1, 2, 3, 4, 5}) || s.NextID() != 6 {
		t.Errorf("segments %v, next %d", got, s.NextID())
	}
	if id, ok := s.Current(); !ok || id != 5 {
		t.Errorf("current segment %d, %v", id, ok)
	}
	for id, want := range map[ID]int64{1: 8, 4: 3, 9: 0} {
		if got := s.Bytes(id); got != want*BlockLength {
			t.Errorf("segment %d has %d bytes, want %d blocks", id, got, want)
		}
	}
}

func TestSet_InvalidArguments(t *testing.T) {
	s := open(t, vfs.NewMem(), "/s", Options{SegmentBlocks: 8})
	for _, n := range []int{0, 1, BlockLength + 512, 8 * BlockLength} {
		if _, err := s.Append(make([]byte, n)); err == nil {
			t.Errorf("append of %d bytes succeeded", n)
		}
	}
	for _, a := range []Addr{{0, 1}, {1, 0}, {1, 1<<32 - 1}} {
		if s.WriteAt(a, blocks(0, 2)) == nil {
			t.Errorf("write at %v succeeded", a)
		}
	}
	if s.WriteAt(Addr{1, 1}, make([]byte, 100)) == nil || s.WriteAt(Addr{1, 1}, nil) == nil {
		t.Error("write of a part of a block succeeded")
	}
	if _, err := Open(Options{Blobs: s.o.Blobs, SegmentBlocks: 1}); err == nil {
		t.Error("segments without a data block were accepted")
	}
}

func TestSet_ReadMissing(t *testing.T) {
	s := open(t, vfs.NewMem(), "/s", Options{})
	a := appendTo(t, s, blocks(1, 1))
	p := make([]byte, 2*BlockLength)
	wantErr(t, "read past the end", s.ReadAt(a, p), ErrCorrupt)
	wantErr(t, "read of a missing segment", s.ReadAt(Addr{7, 1}, p), fs.ErrNotExist)
}

func TestOpen_StartsNewSegment(t *testing.T) {
	m := vfs.NewMem()
	s := open(t, m, "/s", Options{})
	a := appendTo(t, s, blocks(1, 2))
	must.Succeed(t, s.Close())
	s = open(t, m, "/s", Options{Next: 1})
	wantData(t, s, a, blocks(1, 2))
	if b := appendTo(t, s, blocks(2, 1)); b != (Addr{2, 1}) {
		t.Errorf("append went to %v", b)
	}
	must.Succeed(t, s.Close())
	s = open(t, m, "/s", Options{Next: 40})
	if b := appendTo(t, s, blocks(3, 1)); b != (Addr{40, 1}) {
		t.Errorf("append went to %v", b)
	}
}

func TestHeader_Layout(t *testing.T) {
	const want = "6f64787365676d74" + "01000000" + "03020100" + "01010101010101010101010101010101" + "3cc86c5c"
	b := encodeHeader([16]byte(bytes.Repeat([]byte{1}, 16)), 0x010203)
	if got := hex.EncodeToString(b[:headerLength]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !bytes.Equal(b[headerLength:], make([]byte, BlockLength-headerLength)) {
		t.Error("the header's block has bytes after the header")
	}
}

func TestSet_Headers(t *testing.T) {
	name := func(id ID) string { return fmt.Sprintf("/s/%08x.seg", uint32(id)) }
	for _, test := range []struct {
		name  string
		spoil func(f vfs.File) error
	}{
		{"nothing", nil},
		{"a changed byte", func(f vfs.File) error { _, err := f.WriteAt([]byte{9}, 20); return err }},
		{"other magic", func(f vfs.File) error { _, err := f.WriteAt([]byte("GIF89a.."), 0); return err }},
		{"another store", func(f vfs.File) error { return writeHeader(f, [16]byte{7}, 1) }},
		{"another segment", func(f vfs.File) error { return writeHeader(f, store, 2) }},
		{"a later version", func(f vfs.File) error {
			b := encodeHeader(store, 1)
			b[8]++
			binary.LittleEndian.PutUint32(b[32:], crc(b[:32]))
			_, err := f.WriteAt(b, 0)
			return err
		}},
		{"header before reuse", func(f vfs.File) error { return writeHeader(f, store, 0) }},
		{"no header", func(f vfs.File) error { _, err := f.WriteAt(make([]byte, BlockLength), 0); return err }},
		{"an empty file", func(f vfs.File) error { return f.Truncate(0) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := vfs.NewMem()
			s := open(t, m, "/s", Options{})
			a := appendTo(t, s, blocks(1, 1))
			must.Succeed(t, s.Close())
			if test.spoil != nil {
				f, err := m.Open(name(1))
				must.Succeed(t, err)
				must.Succeed(t, test.spoil(f))
				must.Succeed(t, f.Close())
			}
			s = open(t, m, "/s", Options{})
			err := s.ReadAt(a, make([]byte, BlockLength))
			if test.spoil == nil {
				must.Succeed(t, err)
			} else {
				wantErr(t, "read", err, ErrCorrupt)
			}
			if test.name == "another store" || test.name == "a later version" {
				wantErr(t, "remove", s.Remove(1), ErrCorrupt)
				f, err := m.Open(name(1))
				must.Succeed(t, err, f.Close())
			}
			// Replay repairs only the effects of a power cut on a file.
			err = s.WriteAt(a, blocks(5, 1))
			lost := test.name == "no header" || test.name == "an empty file" || test.name == "header before reuse"
			if lost || test.spoil == nil {
				must.Succeed(t, err)
				wantData(t, s, a, blocks(5, 1))
			} else {
				wantErr(t, "write", err, ErrCorrupt)
			}
		})
	}
}

func TestSet_WriteAtMissingSegment(t *testing.T) {
	m := vfs.NewMem()
	s := open(t, m, "/s", Options{SegmentBlocks: 8})
	must.Succeed(t, s.WriteAt(Addr{3, 5}, blocks(1, 2)))
	wantData(t, s, Addr{3, 5}, blocks(1, 2))
	if s.NextID() != 4 {
		t.Errorf("next segment %d", s.NextID())
	}
	if a := appendTo(t, s, blocks(2, 1)); a != (Addr{4, 1}) {
		t.Errorf("append went to %v", a)
	}
	must.Succeed(t, s.Sync())
	c := open(t, m.CrashClone(rand.New(rand.NewPCG(1, 1))), "/s", Options{})
	wantData(t, c, Addr{3, 5}, blocks(1, 2))
}

func TestSet_Remove(t *testing.T) {
	m := vfs.NewMem()
	s := open(t, m, "/s", Options{SegmentBlocks: 4})
	a, b := appendTo(t, s, blocks(1, 3)), appendTo(t, s, blocks(2, 1))
	h, err := s.cache.acquire(a.Segment) // a reader
	must.Succeed(t, err)
	must.Succeed(t, s.Remove(a.Segment))
	must.Succeed(t, s.Remove(a.Segment))
	wantErr(t, "read", s.ReadAt(a, make([]byte, 1)), fs.ErrNotExist)
	p := make([]byte, BlockLength)
	if _, err := h.blob.ReadAt(p, BlockLength); err != nil || !bytes.Equal(p, blocks(1, 1)) {
		t.Error("read after Remove:", err)
	}
	h.release()
	if _, err := h.blob.ReadAt(p, 0); !errors.Is(err, fs.ErrClosed) {
		t.Error("file not closed after the last reader:", err)
	}

	must.Succeed(t, s.Remove(b.Segment)) // the current one
	if _, ok := s.Current(); ok || s.Unsynced() != 0 || len(s.List()) != 0 {
		t.Errorf("after Remove: %d bytes unsynced, segments %v", s.Unsynced(), s.List())
	}
	if c := appendTo(t, s, blocks(3, 1)); c != (Addr{3, 1}) {
		t.Errorf("append went to %v", c)
	}
	must.Succeed(t, s.Sync())
}

func TestSet_Closed(t *testing.T) {
	s := open(t, vfs.NewMem(), "/s", Options{})
	a := appendTo(t, s, blocks(1, 1))
	must.Succeed(t, s.Close())
	_, err := s.Append(blocks(1, 1))
	wantErr(t, "append", err, ErrClosed)
	wantErr(t, "write", s.WriteAt(a, blocks(1, 1)), ErrClosed)
	wantErr(t, "read", s.ReadAt(a, make([]byte, 1)), ErrClosed)
	wantErr(t, "sync", s.Sync(), ErrClosed)
	wantErr(t, "remove", s.Remove(1), ErrClosed)
	wantErr(t, "close", s.Close(), ErrClosed)
}

// countingBlobs counts open blobs, Syncs and the bytes of WriteBacks.
type countingBlobs struct {
	Blobs
	open, syncs, begun atomic.Int64
	more               chan struct{} // capacity 1; receives when begun has grown
}

type countingBlob struct {
	Blob
	of *countingBlobs
}

func (c *countingBlobs) count(b Blob, err error) (Blob, error) {
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return countingBlob{b, c}, nil
}

func (c *countingBlobs) Create(id ID) (Blob, error) { return c.count(c.Blobs.Create(id)) }
func (c *countingBlobs) Open(id ID) (Blob, error)   { return c.count(c.Blobs.Open(id)) }
func (b countingBlob) Close() error                 { b.of.open.Add(-1); return b.Blob.Close() }
func (b countingBlob) Sync() error                  { b.of.syncs.Add(1); return b.Blob.Sync() }
func (b countingBlob) WriteBack(off, n int64) error {
	b.of.begun.Add(n)
	select {
	case b.of.more <- struct{}{}:
	default:
	}
	return b.Blob.WriteBack(off, n)
}

func openCounting(t *testing.T, o Options) (*Set, *countingBlobs) {
	blobs, err := Dir(vfs.NewMem(), "/s")
	must.Succeed(t, err)
	c := &countingBlobs{Blobs: blobs, more: make(chan struct{}, 1)}
	o.Blobs, o.StoreID = c, store
	s, err := Open(o)
	must.Succeed(t, err)
	t.Cleanup(func() {
		s.Close()
		if n := c.open.Load(); n != 0 {
			t.Errorf("%d blobs are open after Close", n)
		}
	})
	return s, c
}

func TestSet_MaxOpen(t *testing.T) {
	for _, limit := range []int{1, 3, 20} {
		s, c := openCounting(t, Options{SegmentBlocks: 2, MaxOpen: limit})
		var places []Addr
		for i := range 100 {
			places = append(places, appendTo(t, s, blocks(i, 1)))
		}
		must.Succeed(t, s.Sync())
		var readers sync.WaitGroup
		for r := range 4 {
			readers.Go(func() {
				rng := rand.New(rand.NewPCG(1, uint64(r)))
				for range 300 {
					i := rng.IntN(len(places))
					wantData(t, s, places[i], blocks(i, 1))
				}
			})
		}
		readers.Wait()
		if n := c.open.Load(); n > int64(limit)+1 { // and the current one
			t.Errorf("%d blobs open, limit %d", n, limit)
		}
		must.Succeed(t, s.Close())
	}
}

func crc(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

func TestSet_DiskErrors(t *testing.T) {
	for _, kind := range []vfs.OpKind{vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpSyncDir} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			m := vfs.NewMem()
			s := open(t, m, "/s", Options{SegmentBlocks: 4})
			good := map[Addr]int{}
			var broken atomic.Bool
			m.SetHook(func(k vfs.OpKind, _ string) error {
				if k != kind || !broken.Load() {
					return nil
				}
				if k == vfs.OpWrite {
					return &vfs.ShortWrite{N: 1000, Err: syscall.ENOSPC}
				}
				return syscall.ENOSPC
			})
			for i := range 60 {
				broken.Store(i%20 >= 10)
				a, err := s.Append(blocks(i, 1+i%3))
				if err == nil {
					good[a] = i
				} else if !broken.Load() || !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("append %d: %v", i, err)
				}
				err = s.Sync()
				if err != nil && (!broken.Load() || !errors.Is(err, syscall.ENOSPC)) {
					t.Fatalf("sync %d: %v", i, err)
				}
				if err == nil && s.Unsynced() != 0 || err != nil && kind == vfs.OpSync && s.Unsynced() == 0 {
					t.Fatalf("sync %d: %v, %d bytes unsynced", i, err, s.Unsynced())
				}
			}
			broken.Store(false)
			must.Succeed(t, s.Sync())
			for seed := range uint64(10) {
				c := open(t, m.CrashClone(rand.New(rand.NewPCG(1, seed))), "/s", Options{})
				for a, i := range good {
					wantData(t, c, a, blocks(i, 1+i%3))
				}
				must.Succeed(t, c.Close())
			}
		})
	}
}

// TestSet_FailedConcurrentAppend: a failed append returns its blocks only if no other
// append has the following ones.
func TestSet_FailedConcurrentAppend(t *testing.T) {
	m := vfs.NewMem()
	s := open(t, m, "/s", Options{})
	appendTo(t, s, blocks(0, 1))
	writing, fail := make(chan struct{}), make(chan struct{})
	var writes atomic.Int64
	m.SetHook(func(k vfs.OpKind, _ string) error {
		if k == vfs.OpWrite && writes.Add(1) == 1 {
			close(writing)
			<-fail
			return syscall.EIO
		}
		return nil
	})
	failed := make(chan error)
	go func() {
		_, err := s.Append(blocks(1, 2))
		failed <- err
	}()
	<-writing
	second := appendTo(t, s, blocks(2, 2))
	close(fail)
	wantErr(t, "append", <-failed, syscall.EIO)
	third := appendTo(t, s, blocks(3, 2))
	wantData(t, s, second, blocks(2, 2))
	wantData(t, s, third, blocks(3, 2))
	if second != (Addr{1, 4}) || third != (Addr{1, 6}) {
		t.Errorf("appended to %v and %v", second, third)
	}
}

func TestSet_OSFiles(t *testing.T) {
	dir := t.TempDir()
	s := open(t, vfs.OS(), dir, Options{SegmentBlocks: 8, MaxOpen: 2})
	var places []Addr
	for i := range 20 {
		places = append(places, appendTo(t, s, blocks(i, 1+i%4)))
	}
	must.Succeed(t, s.Remove(places[0].Segment))
	must.Succeed(t, s.Close())
	s = open(t, vfs.OS(), dir, Options{SegmentBlocks: 8, MaxOpen: 2})
	for i, a := range places {
		if a.Segment != places[0].Segment {
			wantData(t, s, a, blocks(i, 1+i%4))
		}
	}
}

// TestSet_PowerCut cuts the power at every operation that changes the disk: synced data
// exists, and other data can be rewritten by WriteAt.
func TestSet_PowerCut(t *testing.T) {
	type extent struct {
		a    Addr
		seed int
	}
	// removed is the last removed segment. It and those before are full, so that later
	// segments reuse their files.
	run := func(m *vfs.Mem) (synced, all []extent, removed ID) {
		blobs, err := Dir(m, "/s")
		if err != nil {
			return
		}
		s, err := Open(Options{Blobs: blobs, StoreID: store, SegmentBlocks: 6})
		if err != nil {
			return
		}
		defer s.Close()
		for i := range 22 {
			a, err := s.Append(blocks(i, 1+i%4))
			if err != nil {
				return
			}
			all = append(all, extent{a, i})
			if i%3 == 2 {
				if s.Sync() != nil {
					return
				}
				synced = slices.Clone(all)
			}
			if i == 9 || i == 15 {
				for range 2 {
					removed++
					if s.Remove(removed) != nil {
						return
					}
				}
			}
		}
		return
	}
	off := errors.New("power is off")
	for cut := 0; ; cut++ {
		m := vfs.NewMem()
		n := 0
		m.SetHook(func(k vfs.OpKind, _ string) error {
			if !k.Changes() {
				return nil
			}
			if n++; n > cut {
				return off
			}
			return nil
		})
		synced, all, removed := run(m)
		for seed := range uint64(6) {
			s := open(t, m.CrashClone(rand.New(rand.NewPCG(uint64(cut), seed))), "/s", Options{})
			for _, e := range synced {
				if e.a.Segment > removed {
					wantData(t, s, e.a, blocks(e.seed, 1+e.seed%4))
				}
			}
			all := slices.DeleteFunc(slices.Clone(all), func(e extent) bool { return e.a.Segment <= removed })
			for _, e := range all {
				must.Succeed(t, s.WriteAt(e.a, blocks(e.seed, 1+e.seed%4)))
			}
			for id := range removed { // remove those that reappeared
				must.Succeed(t, s.Remove(id+1))
			}
			for i := range 8 {
				all = append(all, extent{appendTo(t, s, blocks(100+i, 1+i%4)), 100 + i})
			}
			must.Succeed(t, s.Sync())
			for _, e := range all {
				wantData(t, s, e.a, blocks(e.seed, 1+e.seed%4))
			}
			must.Succeed(t, s.Close())
		}
		if n <= cut {
			t.Logf("%d power cuts", n)
			return
		}
	}
}

func TestSet_Concurrent(t *testing.T) {
	s, _ := openCounting(t, Options{SegmentBlocks: 32, MaxOpen: 4, WriteBackBytes: 64 << 10})
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			var mine []Addr
			for i := range 150 {
				a, err := s.Append(blocks(w<<16|i, 1+i%5))
				if err != nil {
					t.Error(err)
					return
				}
				mine = append(mine, a)
				j := i * 7 % len(mine)
				wantData(t, s, mine[j], blocks(w<<16|j, 1+j%5))
				if i%10 == 0 {
					if err := s.Sync(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	must.Succeed(t, s.Sync())
	if s.Unsynced() != 0 {
		t.Errorf("%d bytes unsynced", s.Unsynced())
	}
}

func FuzzHeader_Decode(f *testing.F) {
	f.Add(encodeHeader(store, 1))
	f.Add(encodeHeader(store, 2))
	f.Add(make([]byte, BlockLength))
	f.Add([]byte(headerMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := decodeHeader(b, store, 1)
		if err == nil && !bytes.Equal(b[:headerLength], encodeHeader(store, 1)[:headerLength]) {
			t.Error("decodeHeader accepts other bytes than the header")
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
}
