package vhdfile

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

// TestFile_Changes: the states of a disk of four blocks after each change, for each
// kind. A change is a letter and base-36 digits: see try.
func TestFile_Changes(t *testing.T) {
	for _, tt := range []struct {
		kind    disk.Kind
		changes string
		want    string
	}{
		{disk.Fixed, "", "F"},
		{disk.Fixed, "A0 C0 F0", "F"},
		{disk.Dynamic, "", "AAAA"},
		{disk.Dynamic, "A2", "AAFA"},
		{disk.Dynamic, "A20 C31", "FFFF"},
		{disk.Dynamic, "A012 F1 F1", "FAFA"},
		{disk.Dynamic, "A012 F012 C3", "AAAF"},
		{disk.Dynamic, "A00 F00 A11", "AFAA"},
		{disk.Differencing, "", "AAAA"},
		{disk.Differencing, "A2", "AAPA"},
		{disk.Differencing, "A2 C23", "AAFF"},
		{disk.Differencing, "A01 F12", "PFFA"},
		{disk.Differencing, "C3 F3 A3", "AAAF"},
	} {
		t.Run(tt.changes, func(t *testing.T) {
			f, c := made(t, spec(tt.kind, 4))
			for _, change := range strings.Fields(tt.changes) {
				apply(t, f, change)
			}
			if got := states(f); got != tt.want {
				t.Errorf("%q: %s, want %s", tt.changes, got, tt.want)
			}
			for i := range f.Info().Blocks() {
				if b := f.block(i); b.State != disk.Absent && b.Offset%4096 != 0 {
					t.Errorf("payload of block %d is at %d", i, b.Offset)
				}
			}
			must.Succeed(t, f.Close(t.Context()))
			again := opened(t, c)
			for i := range again.Info().Blocks() {
				_, _ = again.Present(t.Context(), i, 0, again.blockLength/512)
			}
			if got := states(again); got != tt.want {
				t.Errorf("%q: reopened: %s, want %s", tt.changes, got, tt.want)
			}
		})
	}
}

// apply applies a change.
func apply(t testing.TB, f *File, change string) {
	t.Helper()
	must.Succeed(t, try(t.Context(), f, change))
}

func try(ctx context.Context, f *File, change string) error {
	var blocks []int64
	for _, digit := range change[1:] {
		n, err := strconv.ParseInt(string(digit), 36, 64)
		if err != nil {
			return err
		}
		blocks = append(blocks, n)
	}
	switch change[0] {
	case 'A':
		return f.Allocate(ctx, blocks)
	case 'C':
		return f.Complete(ctx, blocks)
	case 'W': // the payload of a block
		return f.c.WriteAt(ctx, bytes.Repeat([]byte{'W'}, int(f.blockLength)), f.block(blocks[0]).Offset)
	case 'S': // block, first sector, count
		return f.SetPresent(ctx, blocks[0], blocks[1], blocks[2])
	}
	return f.Free(ctx, blocks)
}

// TestFile_Payload: new blocks are zeros, whatever the file had at their offset; other
// blocks keep their data.
func TestFile_Payload(t *testing.T) {
	f, c := made(t, spec(disk.Dynamic, 8))
	zeros := make([]byte, f.blockLength)
	apply(t, f, "A0123")
	for i := range int64(4) {
		fill(t, f, i, byte('a'+i))
	}
	was := f.block(1)
	size := c.Size()
	apply(t, f, "F12")
	apply(t, f, "A75")
	if got := f.block(7); got != was || c.Size() != size {
		t.Errorf("block 7 is at %+v of %d bytes; block 1 was at %+v of %d", got, c.Size(), was, size)
	}
	for _, i := range []int64{5, 7} {
		if !bytes.Equal(payload(t, f, i), zeros) {
			t.Errorf("block %d is not zeros", i)
		}
	}
	// A crash while the file was extended.
	must.Succeed(t, c.Truncate(t.Context(), size+100<<10))
	must.Succeed(t, c.WriteAt(t.Context(), bytes.Repeat([]byte{'x'}, 100<<10), size))
	f = opened(t, c)
	apply(t, f, "A456")
	for i, want := range map[int64]byte{0: 'a', 3: 'd', 4: 0, 5: 0, 6: 0, 7: 0} {
		if p := payload(t, f, i); !bytes.Equal(p, bytes.Repeat([]byte{want}, len(p))) {
			t.Errorf("block %d has %q", i, p[0])
		}
	}
	wantClean(t, c, "are unused")
}

// TestFile_Bitmaps: the present sectors of a block.
func TestFile_Bitmaps(t *testing.T) {
	f, c := made(t, spec(disk.Differencing, 4))
	ctx := t.Context()
	apply(t, f, "A013")
	must.Succeed(t, f.SetPresent(ctx, 1, 3, 6))
	must.Succeed(t, f.SetPresent(ctx, 1, 31, 1))
	for _, f := range []*File{f, opened(t, c)} {
		for _, tt := range []struct {
			block, first, count int64
			want                string
		}{
			{0, 0, 4, "0000"}, {2, 0, 4, "0000"},
			{1, 0, 12, "000111111000"}, {1, 3, 2, "11"}, {1, 8, 2, "10"}, {1, 5, 9, "111100000"},
			{1, 30, 2, "01"}, {1, 31, 1, "1"}, {1, 32, 0, ""},
		} {
			if got := present(t, f, tt.block, tt.first, tt.count); got != tt.want {
				t.Errorf("block %d, %d sectors from %d on: %s, want %s", tt.block, tt.count, tt.first, got, tt.want)
			}
		}
	}
	// The highest bit of a byte is the first.
	p := make([]byte, 4)
	must.Succeed(t, c.ReadAt(ctx, p, f.bitmapAt(1)))
	if !bytes.Equal(p, []byte{0x1F, 0x80, 0, 1}) {
		t.Errorf("the bitmap in the file is % x", p)
	}
	must.Succeed(t, f.SetPresent(ctx, 0, 0, 31))
	if f.block(0).State != disk.Partial {
		t.Error("block 0 is complete without its last sector")
	}
	must.Succeed(t, f.SetPresent(ctx, 0, 31, 1))
	must.Succeed(t, f.SetPresent(ctx, 0, 5, 1)) // already present
	must.Succeed(t, f.SetPresent(ctx, 3, 0, 16))
	if got := states(f); got != "FPAF" {
		t.Errorf("states %s: blocks 0 and 3 have all sectors of the disk", got)
	}
	if got := present(t, f, 0, 3, 5); got != "11111" {
		t.Errorf("a full block has sectors %s", got)
	}
	for says, err := range map[string]error{
		"block 2 is not allocated":        f.SetPresent(ctx, 2, 0, 1),
		"2 sectors from 31 on of block 1": f.SetPresent(ctx, 1, 31, 2),
		"1 sectors from -1 on":            f.SetPresent(ctx, 1, -1, 1),
		"block 4 of 4":                    f.SetPresent(ctx, 4, 0, 1),
	} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	if _, err := f.Present(ctx, 1, 1<<62, 1<<62); err == nil {
		t.Error("Present of sectors past the end of a block succeeds")
	}
	wantClean(t, c)
}

// TestFile_FreePayload: payload that cannot be freed reads as zeros.
func TestFile_FreePayload(t *testing.T) {
	f, c := made(t, disk.Spec{Kind: disk.Fixed, Geometry: disk.Geometry{Size: 5 * mib}})
	fillAll := bytes.Repeat([]byte{'x'}, 5*mib)
	must.Succeed(t, c.WriteAt(t.Context(), fillAll, 0))
	apply(t, f, "F20")
	want := bytes.Clone(fillAll)
	clear(want[:2*mib])
	clear(want[4*mib:])
	if !bytes.Equal(c.Bytes()[:5*mib], want) {
		t.Error("want blocks 0 and 2 zeros, and no others")
	}
	opened(t, c)

	f, c = made(t, spec(disk.Differencing, 4))
	apply(t, f, "A12")
	fill(t, f, 1, 'a')
	fill(t, f, 2, 'b')
	apply(t, f, "F012")
	for i := range int64(3) {
		if p := payload(t, f, i); !bytes.Equal(p, make([]byte, len(p))) {
			t.Errorf("block %d is not zeros", i)
		}
	}
	wantClean(t, c)
}

// TestOpen_ForeignLayout: files in other programs' layouts are read and written.
func TestOpen_ForeignLayout(t *testing.T) {
	for _, kind := range []disk.Kind{disk.Dynamic, disk.Differencing} {
		c := foreign(t, kind)
		f := opened(t, c)
		for i, want := range map[int64]string{0: "a", 1: "b", 3: "d"} {
			if p := payload(t, f, i); string(p) != strings.Repeat(want, len(p)) {
				t.Errorf("block %d has %q", i, p[0])
			}
		}
		if kind == disk.Dynamic {
			wantClean(t, c, "blocks 1, 3 are not at a multiple of 4 KiB", "block 1 has sectors that are absent by the bitmap")
			apply(t, f, "F1")
		} else {
			wantClean(t, c, "blocks 1, 3 are not at a multiple of 4 KiB")
			if got := present(t, f, 1, 6, 6); got != "111000" {
				t.Errorf("sectors of block 1: %s", got)
			}
			if got := f.Info().Parent.Paths; len(got) != 1 || got[0] != "base.vhd" {
				t.Errorf("parents %q", got)
			}
		}
		apply(t, f, "A2")
		fill(t, f, 2, 'c')
		f = opened(t, c)
		if p := payload(t, f, 2); string(p) != strings.Repeat("c", len(p)) {
			t.Errorf("block 2 has %q", p[0])
		}
		if p := payload(t, f, 3); string(p) != strings.Repeat("d", len(p)) {
			t.Errorf("block 3 has %q", p[0])
		}
	}
}

// TestOpenReadOnly: changes of a disk opened for reading fail and write nothing.
func TestOpenReadOnly(t *testing.T) {
	for _, kind := range []disk.Kind{disk.Fixed, disk.Dynamic, disk.Differencing} {
		_, c := made(t, spec(kind, 1))
		before := c.Bytes()
		f, err := OpenReadOnly(t.Context(), c)
		must.Succeed(t, err)
		ctx := t.Context()
		for name, err := range map[string]error{
			"Allocate": f.Allocate(ctx, []int64{0}), "Complete": f.Complete(ctx, []int64{0}),
			"Free": f.Free(ctx, []int64{0}), "SetPresent": f.SetPresent(ctx, 0, 0, 1), "Changing": f.Changing(ctx),
		} {
			if !errors.Is(err, blockdev.ErrReadOnly) {
				t.Errorf("%s: %v", name, err)
			}
		}
		must.Succeed(t, f.Close(ctx))
		if !bytes.Equal(c.Bytes(), before) {
			t.Error("the file is changed")
		}
	}
}

func TestFile_OutOfRange(t *testing.T) {
	for _, kind := range []disk.Kind{disk.Fixed, disk.Dynamic, disk.Differencing} {
		f, _ := made(t, spec(kind, 1))
		for _, i := range []int64{-1, 1, 1 << 62} {
			for _, change := range []func(context.Context, []int64) error{f.Allocate, f.Complete, f.Free} {
				if err := change(t.Context(), []int64{0, i}); !errors.Is(err, blockdev.ErrRange) {
					t.Errorf("block %d: %v", i, err)
				}
			}
		}
	}
}

// TestFile_ContainerFails: after an error of any call of the container the disk is
// usable, with and without reopening.
func TestFile_ContainerFails(t *testing.T) {
	broken := errors.New("broken")
	for _, kind := range []disk.Kind{disk.Dynamic, disk.Differencing} {
		for n := 0; n < 20; n++ {
			f, c := made(t, spec(kind, 9))
			apply(t, f, "C12")
			fill(t, f, 1, 'a')
			fill(t, f, 2, 'b')
			apply(t, f, "F2")
			calls := 0
			c.FailWith(func(string) error {
				if calls++; calls == n+1 {
					return broken
				}
				return nil
			})
			for _, change := range []string{"C34", "A5", "F3"} {
				if err := try(t.Context(), f, change); err != nil && !errors.Is(err, broken) {
					t.Fatal(err)
				}
			}
			c.FailWith(nil)
			apply(t, f, "C678")
			for _, f := range []*File{f, opened(t, c)} {
				if p := payload(t, f, 1); string(p) != strings.Repeat("a", len(p)) {
					t.Errorf("kind %d, call %d fails: block 1 has %q", kind, n, p[0])
				}
				for i := int64(6); i < 9; i++ {
					if p := payload(t, f, i); !bytes.Equal(p, make([]byte, len(p))) {
						t.Errorf("kind %d, call %d fails: block %d is not zeros", kind, n, i)
					}
				}
			}
			findings, err := Check(t.Context(), c)
			must.Succeed(t, err)
			for _, finding := range findings {
				if !finding.Harmless {
					t.Errorf("kind %d, call %d fails: %s", kind, n, finding.Text)
				}
			}
		}
	}
}

// TestFile_RetryExtend: bytes of a failed extension of the file do not become bits of a
// bitmap.
func TestFile_RetryExtend(t *testing.T) {
	const length = 16 * mib
	f, c := made(t, disk.Spec{Parent: aParent, Geometry: disk.Geometry{Size: 4 * length, BlockLength: length}})
	broken := errors.New("broken")
	c.FailWith(func(op string) error {
		if op == "barrier" {
			return broken
		}
		return nil
	})
	if err := f.Allocate(t.Context(), []int64{0}); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	c.FailWith(nil)
	apply(t, f, "A12")
	for i := range int64(3) {
		if got := present(t, f, i, 0, length/512); strings.Contains(got, "1") {
			t.Errorf("block %d has sectors", i)
		}
	}
}

// TestFile_BATLimit: a BAT entry cannot address offsets from 2 TiB on.
func TestFile_BATLimit(t *testing.T) {
	f, _ := made(t, spec(disk.Dynamic, 4))
	f.endAt = int64(unused) * sectorLength
	if err := f.Allocate(t.Context(), []int64{0}); err == nil || !strings.Contains(err.Error(), "add a block: the file is full") {
		t.Error(err)
	}
}

// counted counts calls. In the store a call takes about 15 µs.
type counted struct {
	*disktest.Memory
	calls int
}

func (c *counted) WriteAt(ctx context.Context, p []byte, off int64) error {
	c.calls++
	return c.Memory.WriteAt(ctx, p, off)
}

func (c *counted) Truncate(ctx context.Context, size int64) error {
	c.calls++
	return c.Memory.Truncate(ctx, size)
}

// TestFile_AllocateCalls: allocating many blocks makes at most one call per bitmap.
func TestFile_AllocateCalls(t *testing.T) {
	const blocks = 2560
	c := &counted{Memory: disktest.New(nil)}
	f, err := Create(t.Context(), c, disk.Spec{Geometry: disk.Geometry{Size: blocks << 12, BlockLength: 4096}})
	must.Succeed(t, err)
	var all []int64
	for i := range int64(blocks) {
		all = append(all, i*7%blocks)
	}
	c.calls = 0
	start := time.Now()
	must.Succeed(t, f.Allocate(t.Context(), all))
	if took := time.Since(start); c.calls > blocks+10 || took > 3*time.Second {
		t.Errorf("%d calls, %v", c.calls, took)
	}
	for k, i := range all[1:] {
		if f.block(i).Offset != f.block(all[k]).Offset+8192 {
			t.Fatalf("block %d does not follow block %d", i, all[k])
		}
	}
	wantClean(t, c)
}
