package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// A run is a file with the rows that the checkpoints from..to changed, or, from
// checkpoint 1 on, with all rows. It is written once and then only mended with
// the same bytes. Numbers are big-endian.
//
//	header    4096 bytes: magic (8), version (4), zero (4), store id (16),
//	          from (8), to (8), CRC-32C of all before; zeros
//	tables    one after the other
//	index     twice, each from a multiple of 4096 on
//	trailer   twice, 4096 bytes each, up to the end of the file: magic (8),
//	          version (4), zero (4), store id (16), from (8), to (8), places of
//	          both indexes (8 each), length of an index (8), CRC-32C of an index
//	          (4), zero (4), rows (8), deletions (8), end of the tables (8), size
//	          of the file (8), CRC-32C of all before; zeros
//
// A file that came out of the reserve is longer than that size: bytes without
// meaning follow, and the trailer twice more, up to the end of the file.
const (
	headerMagic  = "odxmetar"
	trailerMagic = "odxmetat"
	runVersion   = 1

	blockLength = 4096
	// smallestRun has no table and an index of no bytes.
	smallestRun = 3 * blockLength
)

// Suffixes of the files of a run.
const (
	runSuffix  = ".rows"
	copySuffix = ".copy"
	newSuffix  = ".new"
)

// runID is the range of checkpoints of a run.
type runID struct{ from, to uint64 }

func (id runID) fileName() string { return fmt.Sprintf("%016x-%016x%s", id.from, id.to, runSuffix) }

// parseRunName returns the runID in a file's name.
func parseRunName(name string) (id runID, second, ok bool) {
	base, second := strings.CutSuffix(name, copySuffix)
	base, ok = strings.CutSuffix(base, runSuffix)
	if !ok || len(base) != 33 || base[16] != '-' {
		return id, false, false
	}
	var errFrom, errTo error
	id.from, errFrom = strconv.ParseUint(base[:16], 16, 64)
	id.to, errTo = strconv.ParseUint(base[17:], 16, 64)
	ok = errFrom == nil && errTo == nil && id.from > 0 && id.from <= id.to && base == strings.TrimSuffix(id.fileName(), runSuffix)
	return id, second, ok
}

// layout is the content of a trailer.
type layout struct {
	store     [16]byte
	id        runID
	index     [2]int64
	indexLen  int64
	indexCRC  uint32
	rows      uint64
	deletions uint64
	tablesEnd int64
	size      int64
}

func (l *layout) header() []byte {
	b := make([]byte, 0, blockLength)
	b = l.appendHead(b, headerMagic)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return b[:blockLength]
}

func (l *layout) appendHead(b []byte, magic string) []byte {
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, runVersion)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = append(b, l.store[:]...)
	b = binary.BigEndian.AppendUint64(b, l.id.from)
	return binary.BigEndian.AppendUint64(b, l.id.to)
}

func (l *layout) trailer() []byte {
	b := make([]byte, 0, blockLength)
	b = l.appendHead(b, trailerMagic)
	b = binary.BigEndian.AppendUint64(b, uint64(l.index[0]))
	b = binary.BigEndian.AppendUint64(b, uint64(l.index[1]))
	b = binary.BigEndian.AppendUint64(b, uint64(l.indexLen))
	b = binary.BigEndian.AppendUint32(b, l.indexCRC)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint64(b, l.rows)
	b = binary.BigEndian.AppendUint64(b, l.deletions)
	b = binary.BigEndian.AppendUint64(b, uint64(l.tablesEnd))
	b = binary.BigEndian.AppendUint64(b, uint64(l.size))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return b[:blockLength]
}

// trailerLength is the length of a trailer without the zeros after it.
const trailerLength = 8 + 4 + 4 + 16 + 8 + 8 + 8 + 8 + 8 + 4 + 4 + 8 + 8 + 8 + 8 + 4

// errVersion reports a file that a later version of the program has written.
var errVersion = errors.New("unknown format")

var errTrailer = errors.New("not the trailer of metadata rows")

// decodeTrailer decodes a trailer and verifies its checksum.
func decodeTrailer(b []byte) (l layout, err error) {
	if len(b) < trailerLength || string(b[:8]) != trailerMagic ||
		binary.BigEndian.Uint32(b[trailerLength-4:]) != crc32.Checksum(b[:trailerLength-4], castagnoli) {
		return l, errTrailer
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != runVersion {
		return l, fmt.Errorf("%w: metadata rows of version %d, this program reads version %d; use a version of odx that reads it", errVersion, v, runVersion)
	}
	copy(l.store[:], b[16:])
	u64 := func(at int) uint64 { return binary.BigEndian.Uint64(b[at:]) }
	l.id = runID{u64(32), u64(40)}
	l.index = [2]int64{int64(u64(48)), int64(u64(56))}
	l.indexLen, l.indexCRC = int64(u64(64)), binary.BigEndian.Uint32(b[72:])
	l.rows, l.deletions = u64(80), u64(88)
	l.tablesEnd, l.size = int64(u64(96)), int64(u64(104))
	if want := placed(l.tablesEnd, l.indexLen); l.tablesEnd < blockLength || l.indexLen < 0 ||
		l.tablesEnd > 1<<50 || l.indexLen > 1<<40 || l.index != want.index || l.size != want.size {
		return layout{}, errTrailer
	}
	return l, nil
}

// placed returns the offsets of the indexes and the size of a file whose tables end at
// tablesEnd.
func placed(tablesEnd, indexLen int64) (l layout) {
	l.tablesEnd, l.indexLen = tablesEnd, indexLen
	l.index[0] = roundUp(tablesEnd)
	l.index[1] = roundUp(l.index[0] + indexLen)
	l.size = roundUp(l.index[1]+indexLen) + 2*blockLength
	return l
}

func roundUp(n int64) int64 { return (n + blockLength - 1) &^ (blockLength - 1) }
