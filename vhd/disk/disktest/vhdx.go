package disktest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
)

// VHDX describes a VHDX file written byte by byte from MS-VHDX, independent of package
// vhdxfile, as another program could write it. Lengths and offsets are bytes.
type VHDX struct {
	Size       int64
	Block      int64 // default 1 MiB
	LogLength  int64 // default 1 MiB
	Sector     uint32
	BAT        map[int64]uint64 // entries
	Payload    map[int64][]byte // by offset in the file
	FileLength int64            // minimum length of the file
	// Log is the entries of a log that is not replayed, contiguous.
	Log []LogEntry
	// Parent is the relative path of the parent of a differencing disk, ParentID its
	// identifier.
	Parent   string
	ParentID [16]byte
	// Torn names the copies that are damaged: "header 1", "region table 2".
	Torn []string
}

// LogEntry is an entry of the log.
type LogEntry struct {
	// Last is LastFileOffset.
	Last int64
	// Sectors are the new contents of 4 KiB sectors by file offset; Zeros are lengths
	// of zeros by file offset.
	Sectors map[int64][]byte
	Zeros   map[int64]int64
}

// Layout of the file: headers, log, metadata, BAT, payload.
const xMiB = 1 << 20

func (x *VHDX) logLength() int64 { return max(x.LogLength, xMiB) }

// MetadataAt returns the offset of the metadata region.
func (x *VHDX) MetadataAt() int64 { return xMiB + x.logLength() }

// BATAt returns the offset of the BAT region.
func (x *VHDX) BATAt() int64 { return x.MetadataAt() + xMiB }

// BATLength returns the length of the BAT region.
func (x *VHDX) BATLength() int64 {
	blocks := (x.Size + x.block() - 1) / x.block()
	return (blocks*8*4097/4096 + 8*4097 + xMiB - 1) / xMiB * xMiB
}

// End returns the lowest offset of payload.
func (x *VHDX) End() int64 { return x.BATAt() + x.BATLength() }

func (x *VHDX) block() int64 { return max(x.Block, xMiB) }

var xle = binary.LittleEndian

// xGUID returns a GUID in the byte order of the file.
func xGUID(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil {
		panic(err)
	}
	return []byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}
}

const xLogID = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"

func xSeal(p []byte) []byte {
	xle.PutUint32(p[4:], 0)
	xle.PutUint32(p[4:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	return p
}

// Bytes returns the file.
func (x *VHDX) Bytes() []byte {
	m := &sparseFile{}
	x.WriteTo(m.put)
	p := make([]byte, max(m.end, x.FileLength, x.End()))
	for _, w := range m.writes {
		copy(p[w.off:], w.data)
	}
	return p
}

type sparseFile struct {
	writes []struct {
		off  int64
		data []byte
	}
	end int64
}

func (f *sparseFile) put(off int64, p []byte) {
	f.writes = append(f.writes, struct {
		off  int64
		data []byte
	}{off, p})
	f.end = max(f.end, off+int64(len(p)))
}

// WriteTo calls put with the parts of the file that are not zeros.
func (x *VHDX) WriteTo(put func(off int64, p []byte)) {
	put(0, append([]byte("vhdxfile"), "t\x00e\x00s\x00t\x00"...))
	for n := range int64(2) {
		put((n+1)<<16, x.header(n))
		put((n+3)<<16, x.regions(n))
	}
	put(x.MetadataAt(), x.metadata())
	for index, e := range x.BAT {
		put(x.BATAt()+8*index, xle.AppendUint64(nil, e))
	}
	for off, p := range x.Payload {
		put(off, p)
	}
	at := int64(0)
	for n, e := range x.Log {
		p := e.encode(uint64(5 + n))
		put(xMiB+at, p)
		at += int64(len(p))
	}
}

func (x *VHDX) torn(what string, n int64) bool {
	for _, t := range x.Torn {
		if t == what+" "+string(rune('1'+n)) {
			return true
		}
	}
	return false
}

func (x *VHDX) header(n int64) []byte {
	p := make([]byte, 4096)
	copy(p, "head")
	xle.PutUint64(p[8:], uint64(n+1))
	copy(p[16:], xGUID("11111111-0000-0000-0000-000000000001"))
	copy(p[32:], xGUID("22222222-0000-0000-0000-000000000002"))
	if len(x.Log) > 0 {
		copy(p[48:], xGUID(xLogID))
	}
	xle.PutUint16(p[66:], 1)
	xle.PutUint32(p[68:], uint32(x.logLength()))
	xle.PutUint64(p[72:], xMiB)
	if xSeal(p); x.torn("header", n) {
		clear(p[40:])
	}
	return p
}

func (x *VHDX) regions(n int64) []byte {
	p := make([]byte, 65536)
	copy(p, "regi")
	xle.PutUint32(p[8:], 2)
	for i, r := range []struct {
		guid        string
		off, length int64
	}{{"2dc27766-f623-4200-9d64-115e9bfd4a08", x.BATAt(), x.BATLength()}, {"8b7ca206-4790-4b9a-b8fe-575f050f886e", x.MetadataAt(), xMiB}} {
		e := p[16+32*i:]
		copy(e, xGUID(r.guid))
		xle.PutUint64(e[16:], uint64(r.off))
		xle.PutUint32(e[24:], uint32(r.length))
		xle.PutUint32(e[28:], 1)
	}
	if xSeal(p); x.torn("region table", n) {
		clear(p[40:])
	}
	return p
}

func (x *VHDX) metadata() []byte {
	sector := max(x.Sector, 512)
	u32 := func(v ...uint32) (p []byte) {
		for _, v := range v {
			p = xle.AppendUint32(p, v)
		}
		return p
	}
	flags := uint32(0)
	if x.Parent != "" {
		flags = 2
	}
	items := []struct {
		guid  string
		flags uint32
		data  []byte
	}{
		{"caa16737-fa36-4d43-b3b6-33f0aa44e76b", 4, u32(uint32(x.block()), flags)},
		{"2fa54224-cd1b-4876-b211-5dbed83bf4b8", 6, xle.AppendUint64(nil, uint64(x.Size))},
		{"beca12ab-b2e6-4523-93ef-c309e000c746", 6, xGUID("33333333-0000-0000-0000-000000000003")},
		{"8141bf1d-a96f-4709-ba47-f233a8faab5f", 6, u32(sector)},
		{"cda348c7-445d-4471-9cc9-e9885251c556", 6, u32(4096)},
	}
	if x.Parent != "" {
		items = append(items, struct {
			guid  string
			flags uint32
			data  []byte
		}{"a8d35f2d-b30b-454d-abf7-d3d84834ab0c", 4, x.locator()})
	}
	p := make([]byte, 65536)
	copy(p, "metadata")
	xle.PutUint16(p[10:], uint16(len(items)))
	for i, it := range items {
		e := p[32+32*i:]
		copy(e, xGUID(it.guid))
		xle.PutUint32(e[16:], uint32(len(p)))
		xle.PutUint32(e[20:], uint32(len(it.data)))
		xle.PutUint32(e[24:], it.flags)
		p = append(p, it.data...)
	}
	return p
}

func (x *VHDX) locator() []byte {
	wide := func(s string) (p []byte) {
		for _, c := range s {
			p = xle.AppendUint16(p, uint16(c))
		}
		return p
	}
	id := x.ParentID
	text := hex.EncodeToString(id[:])
	linkage := "{" + text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:] + "}"
	p := make([]byte, 20+24)
	copy(p, xGUID("b04aefb7-d19e-4a81-b789-25b8e9445913"))
	xle.PutUint16(p[18:], 2)
	for i, kv := range [][2]string{{"parent_linkage", linkage}, {"relative_path", x.Parent}} {
		k, v := wide(kv[0]), wide(kv[1])
		e := 20 + 12*i
		xle.PutUint32(p[e:], uint32(len(p)))
		xle.PutUint32(p[e+4:], uint32(len(p)+len(k)))
		xle.PutUint16(p[e+8:], uint16(len(k)))
		xle.PutUint16(p[e+10:], uint16(len(v)))
		p = append(append(p, k...), v...)
	}
	return p
}

// encode returns an entry with a sequence number and updates ordered by offset. Its
// tail is the start of the log.
func (e LogEntry) encode(sequence uint64) []byte {
	count := len(e.Sectors) + len(e.Zeros)
	heads := (64 + 32*count + 4095) / 4096
	p := make([]byte, 4096*(heads+len(e.Sectors)))
	copy(p, "loge")
	xle.PutUint32(p[8:], uint32(len(p)))
	xle.PutUint64(p[16:], sequence)
	xle.PutUint32(p[24:], uint32(count))
	copy(p[32:], xGUID(xLogID))
	xle.PutUint64(p[56:], uint64(e.Last))
	d, data := p[64:], p[4096*heads:]
	for _, off := range slices.Sorted(maps.Keys(e.Zeros)) {
		length := e.Zeros[off]
		copy(d, "zero")
		xle.PutUint64(d[8:], uint64(length))
		xle.PutUint64(d[16:], uint64(off))
		xle.PutUint64(d[24:], sequence)
		d = d[32:]
	}
	for _, off := range slices.Sorted(maps.Keys(e.Sectors)) {
		sector := e.Sectors[off]
		s := append(bytes.Clone(sector), make([]byte, 4096-len(sector))...)
		copy(d, "desc")
		copy(d[4:8], s[4092:])
		copy(d[8:16], s)
		xle.PutUint64(d[16:], uint64(off))
		xle.PutUint64(d[24:], sequence)
		d = d[32:]
		copy(s, "data")
		xle.PutUint32(s[4:], uint32(sequence>>32))
		xle.PutUint32(s[4092:], uint32(sequence))
		copy(data, s)
		data = data[4096:]
	}
	return xSeal(p)
}
