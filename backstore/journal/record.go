package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The header of a file fills its first block; the fields are in the first
// sector, which a disk writes whole or not at all. Numbers are little-endian.
//
//	 0  8 magic
//	 8  4 version
//	12  4 zero
//	16 16 store id
//	32  8 sequence number of the file
//	40  8 LSN of the first record
//	48  4 CRC-32C of what is before
const (
	headerMagic   = "odxjourn"
	headerVersion = 1
	headerLength  = 52
	headerBlock   = 4096
)

// A record begins at a multiple of 8 bytes; zeros fill it up to the next one.
//
//	 0  4 CRC-32C, from a start value that depends on store and file, of what follows
//	 4  4 length of the payload
//	 8  8 LSN
//	16    payload
const recordHeader = 16

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fileHeader says which part of the journal a file holds.
type fileHeader struct {
	store [16]byte
	seq   uint64 // larger than that of any file before, and never used twice
	first LSN
}

var errNoHeader = errors.New("no header of a journal file")

func (h fileHeader) encode() []byte {
	b := make([]byte, headerBlock)
	copy(b, headerMagic)
	binary.LittleEndian.PutUint32(b[8:], headerVersion)
	copy(b[16:], h.store[:])
	binary.LittleEndian.PutUint64(b[32:], h.seq)
	binary.LittleEndian.PutUint64(b[40:], uint64(h.first))
	binary.LittleEndian.PutUint32(b[48:], crc32.Checksum(b[:48], castagnoli))
	return b
}

// decodeHeader returns errNoHeader when b does not begin with a header, and
// another error for a header that this program must not touch.
func decodeHeader(b []byte) (h fileHeader, err error) {
	if len(b) < headerLength || string(b[:8]) != headerMagic ||
		binary.LittleEndian.Uint32(b[48:]) != crc32.Checksum(b[:48], castagnoli) {
		return h, errNoHeader
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != headerVersion {
		return h, fmt.Errorf("%w: format version %d, this program knows %d", ErrCorrupt, v, headerVersion)
	}
	h.store = [16]byte(b[16:32])
	h.seq = binary.LittleEndian.Uint64(b[32:])
	h.first = LSN(binary.LittleEndian.Uint64(b[40:]))
	return h, nil
}

// seed is the start value of the CRCs of the file's records.
func (h fileHeader) seed() uint32 {
	var b [24]byte
	copy(b[:], h.store[:])
	binary.LittleEndian.PutUint64(b[16:], h.seq)
	return crc32.Checksum(b[:], castagnoli)
}

// recordLength is what a record with so much payload takes in a file, in bytes.
func recordLength(payload int) int64 {
	return int64(recordHeader+payload+7) &^ 7
}

// encodeRecordHeader fills in the header of a record.
func encodeRecordHeader(b *[recordHeader]byte, seed uint32, lsn LSN, payload []byte) {
	binary.LittleEndian.PutUint32(b[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint64(b[8:], uint64(lsn))
	sum := crc32.Update(seed, castagnoli, b[4:])
	binary.LittleEndian.PutUint32(b[:], crc32.Update(sum, castagnoli, payload))
}

// decodeRecord looks for record want at the start of b. ok is false when it is
// not there; then need is the length of b that would tell, 0 when no length would.
func decodeRecord(b []byte, seed uint32, want LSN) (payload []byte, need int64, ok bool) {
	if len(b) < recordHeader {
		return nil, recordHeader, false
	}
	length := int64(binary.LittleEndian.Uint32(b[4:]))
	if LSN(binary.LittleEndian.Uint64(b[8:])) != want {
		return nil, 0, false
	}
	if int64(len(b)) < recordHeader+length {
		return nil, recordHeader + length, false
	}
	b = b[:recordHeader+length]
	if binary.LittleEndian.Uint32(b) != crc32.Update(seed, castagnoli, b[4:]) {
		return nil, 0, false
	}
	return b[recordHeader:], 0, true
}
