package vhdfile

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"
	"time"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

const mib = 1 << 20

var (
	someID   = disk.GUID{0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x41, 0xd1, 0x80, 0xb4, 0, 0xc0, 0x4f, 0xd4, 0x30, 0xc8}
	parentID = disk.GUID{1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}
	someTime = time.Date(2024, 2, 29, 12, 30, 0, 0, time.UTC)
	aParent  = &disk.Parent{ID: parentID, Paths: []string{"images/base.vhd", `C:\vm\images\base.vhd`, "/srv/vm images/base.vhd"}, Modified: someTime}
)

// spec is a disk of n blocks of 16 KiB, the last one half used.
func spec(kind disk.Kind, n int64) disk.Spec {
	s := disk.Spec{Kind: kind, ID: someID, Geometry: disk.Geometry{Size: n<<14 - 1<<13, BlockLength: 1 << 14}}
	if kind == disk.Differencing {
		s.Parent = aParent
	}
	return s
}

// made creates a disk in memory.
func made(t testing.TB, s disk.Spec) (*File, *disktest.Memory) {
	t.Helper()
	c := disktest.New(nil)
	f, err := create(t.Context(), c, s, someTime)
	if err != nil {
		t.Fatal(err)
	}
	return f, c
}

func opened(t testing.TB, c disk.Container) *File {
	t.Helper()
	f, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// fill writes the payload of an allocated block.
func fill(t testing.TB, f *File, i int64, value byte) {
	t.Helper()
	must.Succeed(t, f.c.WriteAt(t.Context(), bytes.Repeat([]byte{value}, int(f.blockLength)), f.block(i).Offset))
}

// payload returns the payload of an allocated block.
func payload(t testing.TB, f *File, i int64) []byte {
	t.Helper()
	p := make([]byte, f.blockLength)
	must.Succeed(t, f.r.ReadAt(t.Context(), p, f.block(i).Offset))
	return p
}

// wantClean fails unless Check has one harmless finding per text, in order, that
// contains it.
func wantClean(t testing.TB, r blockdev.Reader, harmless ...string) {
	t.Helper()
	findings, err := Check(t.Context(), r)
	must.Succeed(t, err)
	for i, f := range findings {
		if !f.Harmless || i >= len(harmless) || !bytes.Contains([]byte(f.Text), []byte(harmless[i])) {
			t.Errorf("found, harmless %v: %s", f.Harmless, f.Text)
		}
	}
	if len(findings) < len(harmless) {
		t.Errorf("found %v, not %q", findings, harmless[len(findings):])
	}
}

// foreign is a dynamic or differencing disk in another program's layout: the header
// after the BAT, payload at odd multiples of 512, blocks out of order, half the sectors
// of block 1 present, an old footer of 511 bytes.
func foreign(t testing.TB, kind disk.Kind) *disktest.Memory {
	t.Helper()
	const blocks, blockLength = 4, 1 << 14
	f := footer{
		version: version1, dataOffset: 1024, timeStamp: 1000, creator: [4]byte{'v', 's', ' ', ' '},
		currentSize: blocks * blockLength, geometry: geometryOf(blocks * blockLength), diskType: typeDynamic, uniqueID: someID,
	}
	h := header{dataOffset: noOffset, tableOffset: 512, version: version1, maxTableEntries: blocks + 3, blockSize: blockLength}
	if kind == disk.Differencing {
		f.diskType = typeDifferencing
		h.parentID, h.parentName = parentID, "base.vhd"
	}
	const place = 512 + blockLength
	first := int64(2048 + 512) // offset of the first block
	file := make([]byte, first+3*place+oldFooterLength)
	copy(file, f.encode())
	copy(file[1024:], h.encode())
	for i, n := range []int64{2, 0, -1, 1, -1, -1, -1} { // block i is the nth in the file
		sector := unused
		if n >= 0 {
			at := first + n*place
			sector = uint32(at / 512)
			copy(file[at:], []byte{0xFF, 0xFF, 0xFF, 0xFF})
			if i == 1 {
				copy(file[at:], []byte{0xFF, 0x80, 0x00, 0x01})
			}
			copy(file[at+512:], bytes.Repeat([]byte{byte('a' + i)}, blockLength))
		}
		binary.BigEndian.PutUint32(file[512+4*i:], sector)
	}
	copy(file[len(file)-oldFooterLength:], f.encode())
	return disktest.New(file)
}

// states returns the first letter of each block's state: Absent, Full, Partial.
func states(f *File) string {
	var s []byte
	for i := range f.Info().Blocks() {
		s = append(s, "AZFP"[f.block(i).State])
	}
	return string(s)
}

// bitString returns bits as digits.
func bitString(b disk.Bits, n int64) string {
	s := make([]byte, n)
	for i := range s {
		s[i] = '0'
		if b.Get(int64(i)) {
			s[i] = '1'
		}
	}
	return string(s)
}

func present(t testing.TB, f *File, i, first, count int64) string {
	t.Helper()
	b, err := f.Present(context.Background(), i, first, count)
	must.Succeed(t, err)
	return bitString(b, count)
}
