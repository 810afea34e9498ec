package vhdfile

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"odx/internal/kit/must"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

// sizedFooter is a footer written byte by byte from the specification, independent of
// footer.encode: Original Size at 40, Current Size at 48.
func sizedFooter(original, current uint64, creator string, g geometry, diskType uint32, dataOffset uint64) []byte {
	p := make([]byte, 512)
	be := binary.BigEndian
	copy(p, "conectix")
	be.PutUint32(p[8:], 2)
	be.PutUint32(p[12:], 0x00010000)
	be.PutUint64(p[16:], dataOffset)
	copy(p[28:], creator)
	be.PutUint64(p[40:], original)
	be.PutUint64(p[48:], current)
	be.PutUint16(p[56:], g.cylinders)
	p[58], p[59] = g.heads, g.track
	be.PutUint32(p[60:], diskType)
	copy(p[68:], someID[:])
	sum := uint32(0)
	for _, b := range p {
		sum += uint32(b)
	}
	be.PutUint32(p[64:], ^sum)
	return p
}

// sizedFixed is a fixed disk with that footer after payload bytes.
func sizedFixed(payload int64, footer []byte) *disktest.Memory {
	p := bytes.Repeat([]byte{'x'}, int(payload))
	return disktest.New(append(p, footer...))
}

// sizedDynamic is a dynamic disk with entries blocks of 2 MiB, none allocated.
func sizedDynamic(entries int, footer []byte) *disktest.Memory {
	h := header{dataOffset: noOffset, tableOffset: 1536, version: version1, maxTableEntries: uint32(entries), blockSize: 2 * mib}
	p := append(bytes.Clone(footer), h.encode()...)
	p = append(p, bytes.Repeat([]byte{0xFF}, 512)...)
	return disktest.New(append(p, footer...))
}

// TestOpen_Size: the capacity is the Current Size, not the Original Size. For creators
// that use the geometry it is the geometry's size, if that is larger and the file has
// room for it.
func TestOpen_Size(t *testing.T) {
	g := geometryOf
	for name, tt := range map[string]struct {
		original, current uint64
		creator           string
		geometry          geometry
		payload           int64 // of a fixed disk
		want              int64
		finding           string
	}{
		"as made":                         {8 * mib, 8 * mib, "win ", g(8 * mib), 8 * mib, 8 * mib, ""},
		"grown":                           {4 * mib, 8 * mib, "win ", g(8 * mib), 8 * mib, 8 * mib, ""},
		"grown, old geometry":             {4 * mib, 8 * mib, "win ", g(4 * mib), 8 * mib, 8 * mib, "size and geometry disagree"},
		"shrunk":                          {8 * mib, 4 * mib, "win ", g(4 * mib), 4 * mib, 4 * mib, ""},
		"shrunk, old geometry":            {8 * mib, 4 * mib, "win ", g(8 * mib), 4 * mib, 4 * mib, "its geometry is that of one with"},
		"not whole sectors":               {8 * mib, 8*mib + 100, "vs  ", g(8 * mib), 8 * mib, 8 * mib, "the last 100 bytes are not part of the disk"},
		"larger than Virtual PC geometry": {8 * mib, 8 * mib, "vpc ", g(8 * mib), 8 * mib, 8 * mib, "Virtual PC and qemu show only"},
		"larger than qemu geometry":       {4 * mib, 8 * mib, "qemu", g(4 * mib), 8 * mib, 8 * mib, "Virtual PC and qemu show only"},
		"geometry of qemu is larger":      {6800 * 512, 2 * mib, "qemu", geometry{100, 4, 17}, 6800 * 512, 6800 * 512, "the file has room for them"},
		"geometry of qemu, no room":       {6800 * 512, 2 * mib, "qemu", geometry{100, 4, 17}, 2 * mib, 2 * mib, "its geometry is that of one with"},
		"largest geometry":                {8 * mib, 8 * mib, "qemu", maximumGeometry, 8 * mib, 8 * mib, ""},
		"no geometry":                     {8 * mib, 8 * mib, "vpc ", geometry{}, 8 * mib, 8 * mib, "size and geometry disagree"},
	} {
		check := func(t *testing.T, c *disktest.Memory) {
			f := opened(t, c)
			if got := f.Info().Size; got != tt.want {
				t.Errorf("%d bytes, want %d", got, tt.want)
			}
			if tt.finding == "" {
				wantClean(t, c)
			} else {
				wantClean(t, c, tt.finding)
			}
		}
		t.Run(name+"/fixed", func(t *testing.T) {
			check(t, sizedFixed(tt.payload, sizedFooter(tt.original, tt.current, tt.creator, tt.geometry, typeFixed, noOffset)))
		})
		t.Run(name+"/dynamic", func(t *testing.T) {
			entries := int((tt.payload + 2*mib - 1) / (2 * mib))
			check(t, sizedDynamic(entries, sizedFooter(tt.original, tt.current, tt.creator, tt.geometry, typeDynamic, 512)))
		})
	}
}

// TestCreate_Sizes: Original Size and Current Size are the capacity.
func TestCreate_Sizes(t *testing.T) {
	for _, kind := range []disk.Kind{disk.Fixed, disk.Dynamic} {
		_, c := made(t, disk.Spec{Kind: kind, Geometry: disk.Geometry{Size: 3*mib + 512}})
		p := c.Bytes()
		p = p[len(p)-512:]
		for _, at := range []int{40, 48} {
			if got := binary.BigEndian.Uint64(p[at:]); got != 3*mib+512 {
				t.Errorf("kind %d: %d at %d", kind, got, at)
			}
		}
	}
}

// appendForeign adds a block of zeros as other programs do: at the old offset of the
// footer.
func appendForeign(p []byte, block int) []byte {
	footer := bytes.Clone(p[len(p)-footerLength:])
	p = p[:len(p)-footerLength]
	header := p[footerLength:]
	table, length := binary.BigEndian.Uint64(header[16:]), int64(binary.BigEndian.Uint32(header[32:]))
	binary.BigEndian.PutUint32(p[table+4*uint64(block):], uint32(len(p)/sectorLength))
	p = append(p, bytes.Repeat([]byte{0xFF}, int(bitmapLength(length)))...)
	return append(append(p, make([]byte, length)...), footer...)
}

// TestCheck_ForeignBlocks: another program adds a block at the end of the last one. Its
// payload, which follows the bitmap, is at a multiple of 4 KiB if the length of a
// bitmap is, for blocks of 16 MiB or more, and for the first block. Check names the
// others.
func TestCheck_ForeignBlocks(t *testing.T) {
	const places = " not at a multiple of 4 KiB"
	for name, tt := range map[string]struct {
		blockLength int64
		own         []int64 // blocks allocated by this package
		want        string  // finding about blocks 1 and 2
	}{
		"an empty disk":            {mib, nil, "block 2 is" + places},
		"a disk with blocks":       {mib, []int64{0}, "blocks 1, 2 are" + places},
		"blocks of 16 MiB, empty":  {16 * mib, nil, ""},
		"blocks of 16 MiB":         {16 * mib, []int64{0}, ""},
		"blocks of 512 KiB, empty": {mib / 2, nil, "block 2 is" + places},
	} {
		t.Run(name, func(t *testing.T) {
			f, c := made(t, disk.Spec{Kind: disk.Dynamic, Geometry: disk.Geometry{Size: 4 * tt.blockLength, BlockLength: tt.blockLength}})
			must.Succeed(t, f.Complete(t.Context(), tt.own))
			must.Succeed(t, f.Close(t.Context()))
			c = disktest.New(appendForeign(appendForeign(c.Bytes(), 1), 2))
			findings, err := Check(t.Context(), c)
			must.Succeed(t, err)
			got := ""
			for _, f := range findings {
				if !f.Harmless {
					t.Errorf("harmful: %s", f.Text)
				}
				got += f.Text
			}
			if !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}

// TestFile_FooterOffset: another program adds the first block at the offset of the
// footer, after the BAT, and its payload can be mapped. After blocks are freed, Close
// moves the footer to the end of the last block, where other programs add the next one,
// and leaves no bytes after it.
func TestFile_FooterOffset(t *testing.T) {
	for _, s := range []disk.Spec{
		spec(disk.Dynamic, 9), spec(disk.Differencing, 9), {Kind: disk.Dynamic, Geometry: disk.Geometry{Size: 1 << 30}},
		{Kind: disk.Dynamic, Geometry: disk.Geometry{Size: 1 << 30, BlockLength: 32 * mib}}, {Kind: disk.Dynamic, Geometry: disk.Geometry{Size: 33 << 30}},
	} {
		f, c := made(t, s)
		footer := c.Size() - footerLength
		if payload := footer + bitmapLength(f.blockLength); payload%pageLength != 0 {
			t.Errorf("kind %d: payload would be at %d", f.kind, payload)
		}
		if end := int64(f.header.tableOffset) + roundUp(4*int64(f.header.maxTableEntries), sectorLength); end != footer {
			t.Errorf("kind %d: the BAT ends at %d, the footer is at %d", f.kind, end, footer)
		}
		wantClean(t, c)
	}
	f, c := made(t, spec(disk.Dynamic, 9))
	must.Succeed(t, f.Allocate(t.Context(), []int64{0, 1, 2}))
	must.Succeed(t, f.Free(t.Context(), []int64{1, 2}))
	must.Succeed(t, f.Close(t.Context()))
	if want := f.bitmapAt(0) + f.placeLength() + footerLength; c.Size() != want {
		t.Errorf("the file has %d bytes, want %d", c.Size(), want)
	}
	wantClean(t, c)
	must.Succeed(t, f.Allocate(t.Context(), []int64{3, 4}))
	wantClean(t, c)
}
