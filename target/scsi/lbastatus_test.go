package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"odx/backstore"
	"odx/blockdev"
	"odx/target/scsi/sense"
)

// mappedVolume is a volume that says which blocks of the store are mapped.
type mappedVolume struct {
	*memVolume
	mapped []bool
}

// newMappedVolume returns a volume with a letter for each block of the store:
// "m" is mapped.
func newMappedVolume(blocks string) *mappedVolume {
	v := &mappedVolume{memVolume: newMemVolume(len(blocks) * blockdev.BlockLength)}
	for _, letter := range blocks {
		v.mapped = append(v.mapped, letter == 'm')
	}
	return v
}

func (v *mappedVolume) Extents(_ context.Context, off, length int64, fn func(blockdev.Range, bool) bool) error {
	if err := v.check(off, length); err != nil {
		return err
	}
	for end := off + length; off < end; {
		mapped, start := v.mapped[off/blockdev.BlockLength], off
		for off < end && v.mapped[off/blockdev.BlockLength] == mapped {
			off = min(end, (off/blockdev.BlockLength+1)*blockdev.BlockLength)
		}
		if !fn(blockdev.Range{Offset: start, Length: off - start}, mapped) {
			return nil
		}
	}
	return nil
}

func getLBAStatus(lba uint64, length uint32) []byte {
	return cdb16(0x9E, 0x12, lba, length)
}

func newMappedFixture(t testing.TB, v blockdev.Volume, blockLength int) *fixture {
	return newFixture(t, func(c *LUConfig) { c.Volume, c.LogicalBlockLength = v, blockLength })
}

func TestGetLBAStatus(t *testing.T) {
	const volume = "mm..m..."
	tests := map[string]struct {
		blockLength int
		cdb         []byte
		want        string
	}{
		"all of it": {512, getLBAStatus(0, 1024), `
			00000044 00000000
			0000000000000000 00000010 00 000000
			0000000000000010 00000010 01 000000
			0000000000000020 00000008 00 000000
			0000000000000028 00000018 01 000000`},
		"4Kn": {4096, getLBAStatus(1, 1024), `
			00000044 00000000
			0000000000000001 00000001 00 000000
			0000000000000002 00000002 01 000000
			0000000000000004 00000001 00 000000
			0000000000000005 00000003 01 000000`},
		"an LBA inside a block of the store": {512, getLBAStatus(0x13, 1024), `
			00000034 00000000
			0000000000000013 0000000d 01 000000
			0000000000000020 00000008 00 000000
			0000000000000028 00000018 01 000000`},
		"the last LBA": {512, getLBAStatus(63, 1024), `
			00000014 00000000
			000000000000003f 00000001 01 000000`},
		"room for one descriptor": {512, getLBAStatus(1, 24), `
			00000014 00000000
			0000000000000001 0000000f 00 000000`},
		"room for two and a half": {512, getLBAStatus(0, 48), `
			00000024 00000000
			0000000000000000 00000010 00 000000
			0000000000000010 00000010 01 000000`},
		"no room for a whole descriptor": {512, getLBAStatus(0, 12), `
			00000014 00000000 00000000`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newMappedFixture(t, newMappedVolume(volume), tt.blockLength)
			wantHex(t, f.good(tt.cdb, nil), tt.want)
		})
	}
}

// With a larger OPTIMAL UNMAP GRANULARITY, only whole slabs are deallocated; a walk may
// begin inside one, and the medium may end inside one.
func TestGetLBAStatus_Slabs(t *testing.T) {
	const volume = "mm.. .... ...m .... ...." + " .."
	tests := map[string]struct {
		cdb  []byte
		want string
	}{
		"all of it": {getLBAStatus(0, 1024), `
			00000044 00000000
			0000000000000000 00000020 00 000000
			0000000000000020 00000020 01 000000
			0000000000000040 00000020 00 000000
			0000000000000060 00000050 01 000000`},
		"the rest of a slab whose beginning is mapped": {getLBAStatus(0x18, 24), `
			00000014 00000000
			0000000000000018 00000008 00 000000`},
		"the beginning of a slab whose rest is mapped": {getLBAStatus(0x41, 24), `
			00000014 00000000
			0000000000000041 0000001f 00 000000`},
		"the end": {getLBAStatus(0xA1, 24), `
			00000014 00000000
			00000000000000a1 0000000f 01 000000`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(c *LUConfig) {
				c.Volume, c.UnmapGranularity = newMappedVolume(strings.ReplaceAll(volume, " ", "")), 16<<10
			})
			wantHex(t, f.good(tt.cdb, nil), tt.want)
		})
	}
}

func TestGetLBAStatus_Refused(t *testing.T) {
	f := newMappedFixture(t, newMappedVolume("m.m."), 512)
	for _, lba := range []uint64{32, 33, 1 << 55, 1<<64 - 1} {
		f.do(getLBAStatus(lba, 24), nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCLBAOutOfRange)
	}
	full := newFixture(t, func(c *LUConfig) { c.Thin = false })
	full.do(getLBAStatus(0, 24), nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode)
}

func TestGetLBAStatus_NoMapper(t *testing.T) {
	f := newFixture(t)
	wantHex(t, f.good(getLBAStatus(5, 1024), nil), "00000014 00000000  0000000000000005 00000ffb 00 000000")
}

// The number of descriptors has a bound whatever the initiator has room for.
func TestGetLBAStatus_Bound(t *testing.T) {
	f := newMappedFixture(t, newMappedVolume(string(bytes.Repeat([]byte("m."), maximumLBAStatusDescriptors))), 512)
	d := f.good(getLBAStatus(0, 1<<32-1), nil)
	if want := lbaStatusHeader + maximumLBAStatusDescriptors*lbaStatusDescriptor; len(d) != want {
		t.Fatalf("%d bytes of parameter data, want %d", len(d), want)
	}
}

// bottomless is a volume of 64 TiB with nothing in it.
type bottomless struct{ hugeVolume }

func (bottomless) Extents(_ context.Context, off, length int64, fn func(blockdev.Range, bool) bool) error {
	fn(blockdev.Range{Offset: off, Length: length}, false)
	return nil
}

// A hole longer than the field, or than the time limit permits to map, is reported by
// one descriptor as far as it was mapped.
func TestGetLBAStatus_LargeHole(t *testing.T) {
	f := newMappedFixture(t, bottomless{hugeVolume{newMemVolume(512)}}, 512)
	d := f.good(getLBAStatus(0, 1024), nil)
	blocks := binary.BigEndian.Uint32(d[16:])
	if blocks == 0 || blocks > maximumLBAStatusBlocks || blocks%(blockdev.BlockLength/512) != 0 {
		t.Errorf("%x blocks", blocks)
	}
	wantHex(t, append(d[:16:16], d[20:]...), "00000014 00000000  0000000000000000 01 000000")
	if d := f.good(getLBAStatus(f.lu.Blocks()-8, 1024), nil); binary.BigEndian.Uint32(d[16:]) != 8 {
		t.Errorf("at the end: % x", d)
	}
}

// The descriptors cover the map, in segments as long as possible, from the requested
// LBA to the end.
func TestGetLBAStatus_Model(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		blocks := rapid.StringMatching(`[m.]{1,40}`).Draw(rt, "map")
		blockLength := rapid.SampledFrom([]int{512, 4096}).Draw(rt, "block length")
		v := newMappedVolume(blocks)
		slab := rapid.SampledFrom([]int64{4 << 10, 8 << 10, 64 << 10}).Draw(rt, "slab")
		f := newFixture(t, func(c *LUConfig) { c.Volume, c.LogicalBlockLength, c.UnmapGranularity = v, blockLength, slab })
		slabOf := func(lba uint64) []bool {
			n := int(slab / blockdev.BlockLength)
			first := int(lba) * blockLength / blockdev.BlockLength / n * n
			return v.mapped[first:min(first+n, len(v.mapped))]
		}
		lba := rapid.Uint64Range(0, f.lu.Blocks()-1).Draw(rt, "lba")
		room := rapid.IntRange(1, 50).Draw(rt, "descriptors")
		d := f.good(getLBAStatus(lba, uint32(lbaStatusHeader+room*lbaStatusDescriptor)), nil)

		listed := (len(d) - lbaStatusHeader) / lbaStatusDescriptor
		last := byte(0xFF)
		for d = d[lbaStatusHeader:]; len(d) > 0; d = d[lbaStatusDescriptor:] {
			first, count, status := binary.BigEndian.Uint64(d), uint64(binary.BigEndian.Uint32(d[8:])), d[12]
			if first != lba || count == 0 || status == last {
				rt.Fatalf("descriptor % x after status %d, where LBA %d comes next", d[:lbaStatusDescriptor], last, lba)
			}
			for ; lba < first+count; lba++ {
				if mapped := slices.Contains(slabOf(lba), true); mapped != (status == statusMapped) {
					rt.Fatalf("LBA %d has status %d, mapped is %v", lba, status, mapped)
				}
			}
			last = status
		}
		if listed < room && lba != f.lu.Blocks() {
			rt.Fatalf("%d of %d descriptors end at LBA %d", listed, room, lba)
		}
	})
}

// The volumes of the store know, and reads agree.
func TestGetLBAStatus_Store(t *testing.T) {
	f, _ := newStoreFixture(t, backstore.Options{}, 1<<20)
	f.good(cdb10(0x2A, 0, 16, 32), pattern(32*512, 3))
	f.unmap(unmapList([2]uint64{24, 8})).wantStatus(t, 0)
	wantHex(t, f.good(getLBAStatus(3, 1024), nil), `
		00000054 00000000
		0000000000000003 0000000d 01 000000
		0000000000000010 00000008 00 000000
		0000000000000018 00000008 01 000000
		0000000000000020 00000010 00 000000
		0000000000000030 000007d0 01 000000`)
	f.good(cdb10(0x2A, 0, 0, 16), make([]byte, 16*512)) // zeros take no space
	wantHex(t, f.good(getLBAStatus(0, 24), nil), "00000014 00000000  0000000000000000 00000010 01 000000")
}
