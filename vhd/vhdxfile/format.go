package vhdxfile

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"
	"unicode/utf16"

	"odx/vhd/disk"
)

// Layout of the header section in bytes (MS-VHDX 2.2). Regions, the log and blocks
// follow it, at multiples of 1 MiB.
const (
	kib = 1 << 10
	mib = 1 << 20

	headerSection     = 1 * mib
	headerLength      = 4 * kib
	regionTableLength = 64 * kib
	sectorLength      = 4 * kib // of the log, and of an update of metadata
	bitmapLength      = 1 * mib // of a sector bitmap block
	bitmapSectors     = 1 << 23 // per sector bitmap block: a chunk
)

// headerAt and regionTableAt return the offsets of the two copies of each.
func headerAt(n int) int64      { return int64(n+1) * 64 * kib }
func regionTableAt(n int) int64 { return int64(n+3) * 64 * kib }

// Accepted limits.
const (
	minBlockLength = 1 * mib
	maxBlockLength = 256 * mib
	maxSize        = 64 << 40 // MS-VHDX 2.6.2.2
	// maxLog bounds the time to read a log; programs create logs of a few MiB.
	maxLog = 1 << 30
	// maxFile is four times what the largest disk needs. It bounds the memory of space,
	// one bit per MiB.
	maxFile = 256 << 40
)

// The file type identifier has a signature and the name of the creating program
// (MS-VHDX 2.2.1).
const (
	fileSignature = "vhdxfile"
	creatorLength = 512
)

// Identifiers of regions (MS-VHDX 2.2.3.2), metadata items (2.6.2) and the type of
// parent locator (2.6.2.6.3).
const (
	batRegion      = "2dc27766-f623-4200-9d64-115e9bfd4a08"
	metadataRegion = "8b7ca206-4790-4b9a-b8fe-575f050f886e"

	fileParametersItem     = "caa16737-fa36-4d43-b3b6-33f0aa44e76b"
	virtualDiskSizeItem    = "2fa54224-cd1b-4876-b211-5dbed83bf4b8"
	virtualDiskIDItem      = "beca12ab-b2e6-4523-93ef-c309e000c746"
	logicalSectorSizeItem  = "8141bf1d-a96f-4709-ba47-f233a8faab5f"
	physicalSectorSizeItem = "cda348c7-445d-4471-9cc9-e9885251c556"
	parentLocatorItem      = "a8d35f2d-b30b-454d-abf7-d3d84834ab0c"

	vhdxLocator = "b04aefb7-d19e-4a81-b789-25b8e9445913"
)

// state is the low three bits of a BAT entry (MS-VHDX 2.5.1.1, 2.5.1.2).
type state uint64

const (
	notPresent       state = 0
	undefined        state = 1
	zero             state = 2
	unmapped         state = 3
	unmappedOld      state = 5 // in drafts of version 1
	fullyPresent     state = 6 // of a sector bitmap block: present
	partiallyPresent state = 7

	stateMask  = 7
	offsetMask = ^uint64(mib - 1)
)

// entry returns a BAT entry.
func entry(s state, offset int64) uint64 { return uint64(offset) | uint64(s) }

// stateOf and offsetOf return the parts of a BAT entry. The offset is in bytes and not
// validated.
func stateOf(e uint64) state   { return state(e & stateMask) }
func offsetOf(e uint64) uint64 { return e & offsetMask }

var le = binary.LittleEndian

// castagnoli is the table of CRC-32C.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum returns the CRC-32C of a structure with its checksum field, at byte 4, as zero.
func checksum(p []byte) uint32 {
	sum := crc32.Update(0, castagnoli, p[:4])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	return crc32.Update(sum, castagnoli, p[8:])
}

// seal sets the checksum of a structure.
func seal(p []byte) { le.PutUint32(p[4:], checksum(p)) }

// sealed reports whether the signature and checksum of a structure are valid.
func sealed(p []byte, signature string) bool {
	return string(p[:4]) == signature && le.Uint32(p[4:]) == checksum(p)
}

// swapGUID converts a GUID between the byte order of RFC 9562 and that of the file, in
// which the first three fields are little-endian.
func swapGUID(g disk.GUID) disk.GUID {
	return disk.GUID{g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]}
}

func getGUID(p []byte) disk.GUID { return swapGUID(disk.GUID(p[:16])) }

func putGUID(p []byte, g disk.GUID) {
	g = swapGUID(g)
	copy(p, g[:])
}

// guidText formats a GUID.
func guidText(g disk.GUID) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", g[0:4], g[4:6], g[6:8], g[8:10], g[10:])
}

// parseGUID parses a GUID, with or without braces.
func parseGUID(s string) (g disk.GUID, ok bool) {
	s = strings.TrimSuffix(strings.TrimPrefix(s, "{"), "}")
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(g) {
		return g, false
	}
	return disk.GUID(b), true
}

// mustGUID parses the identifiers above.
func mustGUID(s string) disk.GUID {
	g, ok := parseGUID(s)
	if !ok {
		panic("vhdxfile: " + s + " is not a GUID")
	}
	return g
}

// newGUID returns a random GUID (RFC 9562, version 4).
func newGUID() disk.GUID {
	var g disk.GUID
	_, _ = rand.Read(g[:]) // never fails
	g[6] = g[6]&0x0f | 0x40
	g[8] = g[8]&0x3f | 0x80
	return g
}

// toUTF16 and fromUTF16 convert strings of the file: UTF-16, little-endian.
func toUTF16(s string) []byte {
	var p []byte
	for _, u := range utf16.Encode([]rune(s)) {
		p = le.AppendUint16(p, u)
	}
	return p
}

func fromUTF16(p []byte) string {
	u := make([]uint16, 0, len(p)/2)
	for ; len(p) >= 2; p = p[2:] {
		u = append(u, le.Uint16(p))
	}
	return string(utf16.Decode(u))
}

// roundUp returns the next multiple of align, a power of two.
func roundUp(n, align int64) int64 { return (n + align - 1) &^ (align - 1) }

// bad returns an error about the format of a file.
func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", disk.ErrFormat, fmt.Sprintf(format, args...))
}
