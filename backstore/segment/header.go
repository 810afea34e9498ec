package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The header of a segment is in the first sector of its first block, which a disk
// writes atomically. Numbers are little-endian.
//
//	 0  8 magic
//	 8  4 version
//	12  4 segment id
//	16 16 store id
//	32  4 CRC-32C of the preceding bytes
const (
	headerMagic   = "odxsegmt"
	headerVersion = 1
	headerLength  = 36
)

// errBlank reports that the header is zeros, as after a power cut before the segment's
// first Sync.
var errBlank = fmt.Errorf("%w: no header", ErrCorrupt)

// errStale reports the header of the segment that the file had before its reuse, as
// after a power cut before the new segment's first Sync.
var errStale = fmt.Errorf("%w: header of the file's previous segment", ErrCorrupt)

// errForeign reports a segment of another store.
var errForeign = fmt.Errorf("%w: of another store", ErrCorrupt)

// errVersion reports a segment of a format version that this program does not know.
var errVersion = fmt.Errorf("%w: of another format", ErrCorrupt)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeHeader(store [16]byte, id ID) []byte {
	b := make([]byte, BlockLength)
	copy(b, headerMagic)
	binary.LittleEndian.PutUint32(b[8:], headerVersion)
	binary.LittleEndian.PutUint32(b[12:], uint32(id))
	copy(b[16:], store[:])
	binary.LittleEndian.PutUint32(b[32:], crc32.Checksum(b[:32], castagnoli))
	return b
}

// decodeHeader returns nil if b is the header of segment id of the store, otherwise an
// error that wraps ErrCorrupt.
func decodeHeader(b []byte, store [16]byte, id ID) error {
	if len(b) < headerLength || isZero(b[:headerLength]) {
		return errBlank
	}
	version := binary.LittleEndian.Uint32(b[8:])
	switch {
	case string(b[:8]) != headerMagic:
		return fmt.Errorf("%w: not a segment", ErrCorrupt)
	case binary.LittleEndian.Uint32(b[32:]) != crc32.Checksum(b[:32], castagnoli):
		return fmt.Errorf("%w: checksum mismatch of the header", ErrCorrupt)
	case version != headerVersion:
		return fmt.Errorf("%w: version %d, supported %d", errVersion, version, headerVersion)
	case [16]byte(b[16:32]) != store:
		return fmt.Errorf("%w: belongs to store %x, not to %x", errForeign, b[16:32], store)
	case binary.LittleEndian.Uint32(b[12:]) < uint32(id): // ids ascend
		return errStale
	case binary.LittleEndian.Uint32(b[12:]) != uint32(id):
		return fmt.Errorf("%w: is segment %08x", ErrCorrupt, binary.LittleEndian.Uint32(b[12:]))
	}
	return nil
}

func writeHeader(blob Blob, store [16]byte, id ID) error {
	_, err := blob.WriteAt(encodeHeader(store, id), 0)
	return err
}

func checkHeader(blob Blob, store [16]byte, id ID) error {
	b := make([]byte, headerLength)
	n, err := blob.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read header of segment %08x: %w", uint32(id), err)
	}
	if err := decodeHeader(b[:n], store, id); err != nil {
		return fmt.Errorf("segment %08x: %w", uint32(id), err)
	}
	return nil
}

func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
