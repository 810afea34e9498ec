package vhdfile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"odx/internal/kit/must"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

// damage returns the damaged bytes of a file.
type damage func(p []byte) []byte

// patch overwrites bytes at an offset, from the end if it is negative.
func patch(off int, with string) damage {
	return func(p []byte) []byte {
		if off < 0 {
			off += len(p)
		}
		copy(p[off:], with)
		return p
	}
}

// inFooter overwrites bytes of the footer, or of its copy, and makes the checksum right.
func inFooter(end, copied bool, off int, with string) damage {
	return func(p []byte) []byte {
		for at, wanted := range map[int]bool{0: copied, len(p) - footerLength: end} {
			if wanted {
				copy(p[at+off:], with)
				binary.BigEndian.PutUint32(p[at+64:], checksum(p[at:at+footerLength], 64))
			}
		}
		return p
	}
}

func inHeader(off int, with string) damage {
	return func(p []byte) []byte {
		q := p[footerLength : footerLength+headerLength]
		copy(q[off:], with)
		binary.BigEndian.PutUint32(q[36:], checksum(q, 36))
		return p
	}
}

// batEntry sets the entry of a block to that of another one plus more sectors.
func batEntry(block, from int, more uint32) damage {
	return func(p []byte) []byte {
		table := p[binary.BigEndian.Uint64(p[512+16:]):]
		sector := binary.BigEndian.Uint32(table[4*from:])
		binary.BigEndian.PutUint32(table[4*block:], sector+more)
		return p
	}
}

// asDynamic writes a footer of a dynamic disk at the start of a fixed one, as a guest
// can.
func asDynamic(p []byte) []byte {
	f, err := decodeFooter(p[len(p)-footerLength:])
	if err != nil {
		panic(err)
	}
	f.diskType = typeDynamic
	copy(p, f.encode())
	return p
}

func cut(n int) damage { return func(p []byte) []byte { return p[:len(p)-n] } }

func both(a, b damage) damage { return func(p []byte) []byte { return b(a(p)) } }

// TestCheck_Damage: the finding for each kind of damage, and whether the file can be
// opened, for reading only or not at all. Blocks 0 and 1 of nine are allocated.
func TestCheck_Damage(t *testing.T) {
	const (
		opens    = "read and write"
		readable = "read"
		invalid  = "not valid"
		unknown  = "not supported"
	)
	for name, tt := range map[string]struct {
		kind     disk.Kind
		damage   damage
		finding  string
		harmless bool
		can      string
	}{
		"footer cookie":                 {disk.Dynamic, patch(-512, "konectix"), `the footer at the end of the file does not begin with "conectix"`, true, opens},
		"footer bit":                    {disk.Dynamic, patch(-400, "\x01"), "the footer at the end of the file has the checksum FFFF", true, opens},
		"footer copy bit":               {disk.Dynamic, patch(100, "\x01"), "the copy of the footer at the start of the file has the checksum FFFF", true, opens},
		"both footers":                  {disk.Dynamic, both(patch(100, "\x01"), patch(-400, "\x01")), "the footer at the end has the checksum", false, invalid},
		"fixed disk footer":             {disk.Fixed, patch(-400, "\x01"), "the footer at the end has the checksum", false, invalid},
		"footers differ, original size": {disk.Dynamic, inFooter(true, false, 40+4, "\x01"), "", true, opens}, // original size
		"footers differ, unique id":     {disk.Dynamic, inFooter(true, false, 68, "\x01"), "differ (unique id)", false, opens},
		"footers differ, current size":  {disk.Dynamic, inFooter(false, true, 54, "\x00"), "differ (current size)", false, opens},
		"footer copy of a fixed disk":   {disk.Dynamic, inFooter(false, true, 63, "\x02"), "is that of a fixed disk", true, opens},
		"end truncated, free":           {disk.Dynamic, cut(512), "the footer at the end of the file", true, opens},
		"end truncated, used":           {disk.Dynamic, cut(1024), "block 1 is beyond the end of the file", false, invalid},
		"all blocks truncated":          {disk.Dynamic, cut(2 << 14), "blocks 0, 1 are beyond the end of the file", false, invalid},
		"truncated in header":           {disk.Dynamic, func(p []byte) []byte { return p[:800] }, "the dynamic disk header at 512 does not fit", false, invalid},
		"truncated in BAT":              {disk.Dynamic, func(p []byte) []byte { return p[:3076] }, "the BAT, with 9 entries at 3072, does not fit", false, invalid},
		"fixed disk truncated":          {disk.Fixed, func(p []byte) []byte { return p[512:] }, "the file only 138752 before the footer", false, invalid},
		"fixed disk with tail":          {disk.Fixed, func(p []byte) []byte { return append(p, make([]byte, 5<<20+77)...) }, "5242957 bytes follow the footer", true, opens},
		"tail too long":                 {disk.Fixed, func(p []byte) []byte { return append(p, make([]byte, 65<<20)...) }, "the footer at the end does not", false, invalid},
		"tail and footer copy":          {disk.Fixed, func(p []byte) []byte { return append(asDynamic(p), make([]byte, 4096)...) }, "the kind is ambiguous", false, invalid},
		"bytes before the footer":       {disk.Fixed, func(p []byte) []byte { return append(make([]byte, 8192), p...) }, "8192 bytes between the end of the disk", true, opens},
		"version 2":                     {disk.Dynamic, inFooter(true, true, 12, "\x00\x02"), "version 2.0 of the format", false, unknown},
		"disk type":                     {disk.Dynamic, inFooter(true, true, 60, "\x00\x00\x00\x05"), "VHD of disk type 5", false, unknown},
		"no sectors":                    {disk.Dynamic, inFooter(true, true, 48, "\x00\x00\x00\x00\x00\x00\x01\xFF"), "a size of no sectors", false, invalid},
		"too many sectors":              {disk.Dynamic, inFooter(true, true, 48, "\xFF"), "the maximum is 4278190080, 2040 GiB", false, invalid},
		"geometry too large":            {disk.Dynamic, inFooter(true, true, 56, "\xFF"), "its geometry is that of one with", true, opens},
		"size by geometry":              {disk.Dynamic, both(inFooter(true, true, 28, "qemu"), inFooter(true, true, 56, "\x00\x03")), `by its geometry 104448; Virtual PC and qemu show only those of a disk made by "qemu"`, true, opens},
		"header bit":                    {disk.Dynamic, patch(600, "\x01"), "the dynamic disk header has the checksum", false, invalid},
		"header cookie":                 {disk.Dynamic, patch(512, "x"), `the dynamic disk header does not begin with "cxsparse"`, false, invalid},
		"header offset":                 {disk.Dynamic, inFooter(true, true, 16, "\x7F"), "the dynamic disk header at", false, invalid},
		"header version":                {disk.Dynamic, inHeader(24, "\x00\x03"), "version 3.0 of the dynamic disk header", false, unknown},
		"BAT offset":                    {disk.Dynamic, inHeader(16, "\xFF"), "the BAT, with 9 entries at", false, invalid},
		"BAT too small":                 {disk.Dynamic, inHeader(28, "\x00\x00\x00\x08"), "the BAT has 8 entries, the disk 9 blocks", false, invalid},
		"BAT too large":                 {disk.Dynamic, inHeader(28, "\xFF"), "does not fit", false, invalid},
		"block length 0":                {disk.Dynamic, inHeader(32, "\x00\x00\x00\x00"), "blocks of 0 bytes", false, invalid},
		"block length odd":              {disk.Dynamic, inHeader(32, "\x00\x00\x06\x00"), "blocks of 1536 bytes, which is not a power of two", false, invalid},
		"block length small":            {disk.Dynamic, inHeader(32, "\x00\x00\x08\x00"), "powers of two from 4096", false, unknown},
		"block outside":                 {disk.Dynamic, batEntry(1, 1, 1<<31), "block 1 is beyond the end", false, invalid},
		"block over the footer":         {disk.Dynamic, batEntry(1, 1, 1), "block 1 is beyond the end", false, invalid},
		"many outside":                  {disk.Dynamic, patch(3072, strings.Repeat("\x7F", 36)), "blocks 0, 1, 2, 3, 4 and 4 more are beyond", false, invalid},
		"blocks at the same offset":     {disk.Dynamic, batEntry(5, 1, 0), "belong to block 1 and to block 5", false, readable},
		"blocks that overlap":           {disk.Dynamic, batEntry(5, 0, 7), "belong to block 0 and to block 5", false, readable},
		"block over the header":         {disk.Dynamic, batEntry(5, 0, ^uint32(6)+1), "belong to the dynamic disk header and to block 5", false, readable},
		"bitmap":                        {disk.Dynamic, patch(3584, "\x7F"), "block 0 has sectors", true, opens},
		"bitmap of a differencing disk": {disk.Differencing, patch(1<<13, "\x7F"), "", true, opens},
		"locator offset":                {disk.Differencing, inHeader(576+16, "\x7F"), `parent locator 0, of platform "W2ru"`, true, opens},
		"locator length":                {disk.Differencing, inHeader(576+8, "\x00\x01\x00\x00"), `parent locator 0, of platform "W2ru"`, true, opens},
		"locators overwritten":          {disk.Differencing, inHeader(64, strings.Repeat("\x00", 704)), "does not say where its parent is", false, opens},
		"block over a locator":          {disk.Differencing, batEntry(5, 0, ^uint32(3)+1), "belong to a parent locator and to block 5", false, readable},
	} {
		t.Run(name, func(t *testing.T) {
			f, c := made(t, spec(tt.kind, 9))
			must.Succeed(t, f.Complete(t.Context(), []int64{0, 1}[:min(2, len(f.bat))]))
			c = disktest.New(tt.damage(c.Bytes()))
			findings, err := Check(t.Context(), c)
			must.Succeed(t, err)
			if tt.finding == "" {
				if len(findings) > 0 {
					t.Errorf("found %+v", findings)
				}
			} else if !found(findings, tt.finding, tt.harmless) {
				t.Errorf("found %+v, not %q, harmless %v", findings, tt.finding, tt.harmless)
			}
			_, readErr := OpenReadOnly(t.Context(), c)
			_, writeErr := Open(t.Context(), c)
			if got := howOpened(readErr, writeErr); got != tt.can {
				t.Errorf("%s, want %s: %v; %v", got, tt.can, readErr, writeErr)
			}
			if tt.can == opens && strings.Contains(tt.finding, "footer") && tt.kind != disk.Fixed {
				wantClean(t, c) // Open has repaired the footer
			}
		})
	}
}

func found(findings []disk.Finding, text string, harmless bool) bool {
	for _, f := range findings {
		if strings.Contains(f.Text, text) && f.Harmless == harmless {
			return true
		}
	}
	return false
}

func howOpened(read, write error) string {
	switch {
	case read == nil && write == nil:
		return "read and write"
	case read == nil && errors.Is(write, disk.ErrFormat):
		return "read"
	case errors.Is(read, disk.ErrFormat) && errors.Is(write, disk.ErrFormat):
		return "not valid"
	case errors.Is(read, errors.ErrUnsupported) && errors.Is(write, errors.ErrUnsupported):
		return "not supported"
	}
	return fmt.Sprint(read, "; ", write)
}

// TestOpen_RepairsFooter: Open writes a missing footer where it overwrites nothing in
// use.
func TestOpen_RepairsFooter(t *testing.T) {
	f, c := made(t, spec(disk.Dynamic, 9))
	apply(t, f, "C012")
	fill(t, f, 2, 'c')
	file := c.Bytes()
	for _, missing := range []int{2, 511, 512} {
		c := disktest.New(file[:len(file)-missing])
		f := opened(t, c)
		if c.Size() != int64(len(file)) || f.endAt != int64(len(file))-512 {
			t.Errorf("%d bytes missing: %d bytes, the footer at %d", missing, c.Size(), f.endAt)
		}
		apply(t, f, "C3")
		if p := payload(t, opened(t, c), 2); string(p) != strings.Repeat("c", len(p)) {
			t.Errorf("%d bytes missing: block 2 has %q", missing, p[0])
		}
		wantClean(t, c)
	}
	// After unused bytes.
	c = disktest.New(append(file, make([]byte, 10<<10+77)...))
	f = opened(t, c)
	apply(t, f, "C345678")
	wantClean(t, c, "are unused")
}

func TestOpen_NotVHD(t *testing.T) {
	for _, p := range []string{"", "conectix", strings.Repeat("x", 511), strings.Repeat("x", 5000), strings.Repeat("conecti", 1000)} {
		if _, err := Open(t.Context(), disktest.New([]byte(p))); !errors.Is(err, disk.ErrFormat) {
			t.Errorf("%.20q: %v", p, err)
		}
		if findings, err := Check(t.Context(), disktest.New([]byte(p))); len(findings) != 1 || findings[0].Harmless || err != nil {
			t.Errorf("%.20q: %v, %v", p, findings, err)
		}
	}
}

// TestOpen_HostileSize: memory is bounded for a sparse file of a size that the format
// does not allow.
func TestOpen_HostileSize(t *testing.T) {
	f, c := made(t, spec(disk.Dynamic, 9))
	apply(t, f, "C0")
	p := inFooter(true, true, 48, "\x00\x00\x01\x00\x00\x00\x00\x00")(inHeader(28, "\xFF\xFF\xFF\xFF")(c.Bytes()))
	if _, err := OpenReadOnly(t.Context(), hole{p, 1 << 45}); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

// hole is a sparse file with a footer at its end.
type hole struct {
	file []byte
	size int64
}

func (h hole) Size() int64 { return h.size }

func (h hole) ReadAt(_ context.Context, p []byte, off int64) error {
	clear(p)
	if off < int64(len(h.file)) {
		copy(p, h.file[off:])
	}
	if off == h.size-footerLength {
		copy(p, h.file)
	}
	return nil
}

// FuzzOpen passes arbitrary bytes to all readers: a copy of the footer and a header,
// padded with zeros, more bytes, zeros, and the footer at the end, which defaults to
// that at the start.
func FuzzOpen(f *testing.F) {
	add := func(c *disktest.Memory) {
		p := c.Bytes()
		part := func(from, to int) []byte { return bytes.TrimRight(p[from:min(to, len(p))], "\x00") }
		f.Add(part(0, 512), part(512, 1536), part(1536, 3136), uint32(len(p)-3136), []byte{})
		f.Add(part(0, 512), part(512, 1536), part(1536, 3136), uint32(len(p)-3136-512), part(len(p)-512, len(p)))
	}
	for _, kind := range []disk.Kind{disk.Fixed, disk.Dynamic, disk.Differencing} {
		file, c := made(f, spec(kind, 2))
		must.Succeed(f, file.Complete(f.Context(), []int64{1, 0}[:min(2, len(file.bat))]))
		add(c)
		if kind != disk.Fixed {
			add(foreign(f, kind))
		}
	}
	f.Fuzz(func(t *testing.T, start, header, more []byte, hole uint32, end []byte) {
		if len(end) == 0 {
			end = start
		}
		pad := func(p []byte, length int) []byte { return append(p, make([]byte, max(0, length-len(p)))...) }
		p := withChecksums(slices.Concat(pad(start, 512), pad(header, 1024), more, make([]byte, hole%(128<<10)), pad(end, 512)))
		ctx, c := t.Context(), disktest.New(p)
		if _, err := Check(ctx, c); err != nil {
			t.Fatal(err)
		}
		file, err := OpenReadOnly(ctx, c)
		if err != nil {
			return
		}
		length := file.blockLength
		for i := range min(file.Info().Blocks(), 1000) {
			b := file.block(i)
			if b.State != disk.Absent && (b.Offset < 0 || b.Offset > c.Size() || file.kind != disk.Fixed && length > c.Size()-b.Offset) {
				t.Fatalf("block %d: %+v of %d bytes", i, b, c.Size())
			}
			if _, err := file.Present(ctx, i, 0, length/sectorLength); err != nil {
				t.Fatal(err)
			}
		}
		if file, err = Open(ctx, c); err != nil {
			return
		}
		change(t, file, c)
	})
}

// change adds a block to an open disk and frees it.
func change(t *testing.T, f *File, c *disktest.Memory) {
	if f.blockLength > mib || f.kind == disk.Fixed {
		return
	}
	ctx := t.Context()
	must.Succeed(t, f.Allocate(ctx, []int64{0}))
	must.Succeed(t, f.SetPresent(ctx, 0, 0, 1))
	must.Succeed(t, f.Free(ctx, []int64{0}))
	must.Succeed(t, f.Complete(ctx, []int64{0}))
	if _, err := Open(ctx, c); err != nil {
		t.Fatalf("Open after a change: %v", err)
	}
}

// withChecksums corrects the checksums of footers and header, so that inputs pass their
// verification.
func withChecksums(p []byte) []byte {
	sum := func(at, length, skip int) {
		if at >= 0 && at+length <= len(p) {
			binary.BigEndian.PutUint32(p[at+skip:], checksum(p[at:at+length], skip))
		}
	}
	sum(512, headerLength, 36)
	sum(1024, headerLength, 36)
	sum(0, footerLength, 64)
	sum(len(p)-footerLength, footerLength, 64)
	return p
}
