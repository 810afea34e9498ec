package backstore

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"odx/backstore/vfs"
)

// TestDamagedDataIsStoredAgain: whoever writes the data once more that a read, a
// scrub or cleaning found damaged gets it back, and not the damage.
func TestDamagedDataIsStoredAgain(t *testing.T) {
	ctx := context.Background()
	for name, find := range map[string]func(*Store, *Volume) error{
		"a read": func(_ *Store, v *Volume) error {
			return v.ReadAt(ctx, make([]byte, 64<<10), 0)
		},
		"a write of less than a block": func(_ *Store, v *Volume) error {
			return v.WriteAt(ctx, make([]byte, 512), 5*BlockLength)
		},
		"a scrub": func(s *Store, _ *Volume) error {
			r, err := s.Scrub(ctx, ScrubOptions{})
			if err == nil && r.Damaged == 1 {
				err = ErrCorrupt
			}
			return err
		},
		"cleaning": func(s *Store, _ *Volume) error { return s.Clean(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk()
			s := d.open(t, 16<<10)
			v := createVolume(t, s, "v", 1<<20)
			data := randomBytes(1, 1<<20)
			if err := errors.Join(v.WriteAt(ctx, data, 0), v.Unmap(ctx, 512<<10, 512<<10)); err != nil {
				t.Fatal(err)
			}
			damageFiles(t, d, data[5*BlockLength:][:16])
			if err := find(s, v); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("it says %v, want %v", err, ErrCorrupt)
			}
			// The restart loads the fingerprints again.
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = d.open(t, 16<<10)
			defer s.Close()
			<-s.writer.indexLoaded
			v, _ = s.Volume("v")
			if err := v.WriteAt(ctx, data[:64<<10], 0); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 512<<10)
			if err := v.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, data[:len(got)]) {
				t.Errorf("read of what was written again: %v", err)
			}
			if live := s.LiveBytes(); live != 512<<10 {
				t.Errorf("%d bytes are live, want only the damaged extent to be stored again", live)
			}
		})
	}
}

// TestBlocksThatTheHostCannotRead: the first one of them is reported, and those
// before and behind it can be read.
func TestBlocksThatTheHostCannotRead(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 16<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	data := randomBytes(1, 1<<20)
	if err := v.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	// fail lets these reads of segments fail, counted from 1.
	fail := func(which ...int64) {
		var reads atomic.Int64
		d.fs.SetHook(func(kind vfs.OpKind, name string) error {
			if kind == vfs.OpRead && strings.HasSuffix(name, ".seg") && slices.Contains(which, reads.Add(1)) {
				return syscall.EIO
			}
			return nil
		})
	}
	p := make([]byte, 64<<10)
	fail(1)
	if err := v.ReadAt(ctx, p, 0); err != nil || !bytes.Equal(p, data[:len(p)]) {
		t.Errorf("read that works block by block: %v", err)
	}
	fail(1, 1+4) // that of all the blocks, then that of the fourth by itself
	var ce *CorruptError
	if err := v.ReadAt(ctx, p, 0); !errors.As(err, &ce) || !errors.Is(err, syscall.EIO) || ce.Offset != 3*BlockLength {
		t.Errorf("read of what the host cannot read: %v, want the damage at byte %d", err, 3*BlockLength)
	}
	d.fs.SetHook(nil)
	if err := v.ReadAt(ctx, p, 0); err != nil || !bytes.Equal(p, data[:len(p)]) {
		t.Errorf("read when the host can again: %v", err)
	}
}

// TestReadsLookAgain: between look-up and read cleaning can have moved the data
// and removed the segment.
func TestReadsLookAgain(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 16<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 1<<20)
	data := randomBytes(1, 1<<20)
	if err := v.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	// gone lets the first reads of segments find none.
	gone := func(reads int64) {
		if err := s.WriteOut(ctx); err != nil {
			t.Fatal(err)
		}
		var n atomic.Int64
		d.fs.SetHook(func(kind vfs.OpKind, name string) error {
			if kind == vfs.OpRead && strings.HasSuffix(name, ".seg") && n.Add(1) <= reads {
				return fs.ErrNotExist
			}
			return nil
		})
	}
	p := make([]byte, 64<<10)
	for name, read := range map[string]func() error{
		"read":                         func() error { return v.ReadAt(ctx, p, 0) },
		"write of less than a block":   func() error { return v.WriteAt(ctx, data[512:1024], 512) },
		"read of many blocks, at once": func() error { return v.readAtOnce(ctx, p, 0) },
	} {
		gone(2)
		if err := read(); err != nil {
			t.Errorf("%s while segments are removed: %v", name, err)
		}
		gone(1 << 40)
		if err := read(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s of a segment that is lost: %v, want %v", name, err, ErrCorrupt)
		}
	}
	d.fs.SetHook(nil)
	if err := v.ReadAt(ctx, p, 0); err != nil || !bytes.Equal(p, data[:len(p)]) {
		t.Errorf("read in the end: %v", err)
	}
}
