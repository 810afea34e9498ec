package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The header of a file fills its first block; the fields are in the first sector, which
// a disk writes atomically. Numbers are little-endian.
//
//	 0  8 magic
//	 8  4 version
//	12  4 zero
//	16 16 store id
//	32  8 sequence number of the file
//	40  8 LSN of the first record
//	48  8 length of the file in bytes; 0: not preallocated
//	56  4 CRC-32C of what is before
//
// Version 1 has no length; its CRC is at 48.
//
// The second sector is the seal, written when the next file has its header:
//
//	512 8 LSN of the first record of the next file
//	520 4 CRC-32C, from the start value of the file's records, of what is before
const (
	headerMagic   = "odxjourn"
	headerVersion = 2
	headerLength  = 60
	headerBlock   = 4096

	headerLengthV1 = 52

	sealOffset = 512
	sealLength = 12
)

// A record begins at a multiple of 8 bytes; zeros fill it up to the next one.
//
//	 0  4 CRC-32C, from a start value that depends on store and file, of what follows
//	 4  4 length of the payload
//	 8  8 LSN
//	16  8 mark: up to which LSN records, and what they point at, were durable
//	      when this one was written
//	24    payload
//
// In a file of version 1 there is no mark, and the payload is at 16.
//
// A record whose length is noteLength is a note. It has no payload, the LSN of
// the record before it, and is there for its mark alone; the next record is
// written over it.
const (
	recordHeader   = 24
	recordHeaderV1 = 16

	noteLength = 1<<32 - 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fileHeader identifies the part of the journal in a file.
type fileHeader struct {
	version uint32
	store   [16]byte
	seq     uint64 // larger than that of all previous files; not reused
	first   LSN
	bytes   int64 // preallocated length; 0 if none
}

var errNoHeader = errors.New("no header of a journal file")

// encode returns the first block of a file, without a seal.
func (h fileHeader) encode() []byte {
	b := make([]byte, headerBlock)
	copy(b, headerMagic)
	binary.LittleEndian.PutUint32(b[8:], headerVersion)
	copy(b[16:], h.store[:])
	binary.LittleEndian.PutUint64(b[32:], h.seq)
	binary.LittleEndian.PutUint64(b[40:], uint64(h.first))
	binary.LittleEndian.PutUint64(b[48:], uint64(h.bytes))
	binary.LittleEndian.PutUint32(b[56:], crc32.Checksum(b[:56], castagnoli))
	return b
}

// decodeHeader returns errNoHeader if b does not begin with a header, and another error
// for a header of an unknown version.
func decodeHeader(b []byte) (h fileHeader, err error) {
	if len(b) < headerLength || string(b[:8]) != headerMagic {
		return h, errNoHeader
	}
	h.version = binary.LittleEndian.Uint32(b[8:])
	fields := b[:headerLength-4]
	if h.version == 1 {
		fields = b[:headerLengthV1-4]
	}
	if binary.LittleEndian.Uint32(b[len(fields):]) != crc32.Checksum(fields, castagnoli) {
		return h, errNoHeader
	}
	if h.version < 1 || h.version > headerVersion {
		return h, fmt.Errorf("%w: format version %d, supported 1 to %d", ErrCorrupt, h.version, headerVersion)
	}
	h.store = [16]byte(b[16:32])
	h.seq = binary.LittleEndian.Uint64(b[32:])
	h.first = LSN(binary.LittleEndian.Uint64(b[40:]))
	if h.version > 1 {
		h.bytes = int64(binary.LittleEndian.Uint64(b[48:]))
	}
	return h, nil
}

// encodeSeal returns the seal of the file, which has the first LSN of the next one.
func (h fileHeader) encodeSeal(next LSN) []byte {
	b := make([]byte, sealLength)
	binary.LittleEndian.PutUint64(b, uint64(next))
	binary.LittleEndian.PutUint32(b[8:], crc32.Update(h.seed(), castagnoli, b[:8]))
	return b
}

// decodeSeal returns the first LSN of the next file, or 0 if the first block of the
// file has no seal.
func (h fileHeader) decodeSeal(block []byte) LSN {
	if len(block) < sealOffset+sealLength {
		return 0
	}
	b := block[sealOffset : sealOffset+sealLength]
	if binary.LittleEndian.Uint32(b[8:]) != crc32.Update(h.seed(), castagnoli, b[:8]) {
		return 0
	}
	return LSN(binary.LittleEndian.Uint64(b))
}

// seed is the start value of the CRCs of the file's records.
func (h fileHeader) seed() uint32 {
	var b [24]byte
	copy(b[:], h.store[:])
	binary.LittleEndian.PutUint64(b[16:], h.seq)
	return crc32.Checksum(b[:], castagnoli)
}

// recordLength is the length of a record with the payload length in a file, in bytes.
func recordLength(payload int) int64 { return align(recordHeader + int64(payload)) }

func align(n int64) int64 { return (n + 7) &^ 7 }

// encodeRecordHeader fills in the header of a record.
func encodeRecordHeader(b *[recordHeader]byte, seed uint32, lsn, mark LSN, payload []byte) {
	binary.LittleEndian.PutUint32(b[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint64(b[8:], uint64(lsn))
	binary.LittleEndian.PutUint64(b[16:], uint64(mark))
	sum := crc32.Update(seed, castagnoli, b[4:])
	binary.LittleEndian.PutUint32(b[:], crc32.Update(sum, castagnoli, payload))
}

// encodeNote fills in a note after record lsn.
func encodeNote(b *[recordHeader]byte, seed uint32, lsn, mark LSN) {
	binary.LittleEndian.PutUint32(b[4:], noteLength)
	binary.LittleEndian.PutUint64(b[8:], uint64(lsn))
	binary.LittleEndian.PutUint64(b[16:], uint64(mark))
	binary.LittleEndian.PutUint32(b[:], crc32.Update(seed, castagnoli, b[4:]))
}

// frame is a record or a note in a file.
type frame struct {
	lsn, mark LSN
	note      bool
	payload   []byte
	off       int64 // in the file
	header    int64 // its length
	length    int64 // of all of it in the file
}

// parse decodes the header of the frame at the start of b. ok is false if it is not one
// with an LSN from low to high. length is the length of the frame without padding.
func (h fileHeader) parse(b []byte, low, high LSN) (f frame, length int64, ok bool) {
	f.header = h.recordHeader()
	f.lsn = LSN(binary.LittleEndian.Uint64(b[8:]))
	payload := int64(binary.LittleEndian.Uint32(b[4:]))
	if h.version > 1 {
		f.mark = LSN(binary.LittleEndian.Uint64(b[16:]))
		if payload == noteLength {
			f.note, payload = true, 0
		}
	}
	ok = low <= f.lsn && f.lsn <= high && f.mark <= f.lsn
	return f, f.header + payload, ok
}

// verify reports whether the checksum of b, of the length that parse returned, matches,
// and sets f's payload.
func (f *frame) verify(b []byte, seed uint32) bool {
	f.payload, f.length = b[f.header:], align(int64(len(b)))
	return binary.LittleEndian.Uint32(b) == crc32.Update(seed, castagnoli, b[4:])
}

// recordHeader is the length of the header of a record in this file.
func (h fileHeader) recordHeader() int64 {
	if h.version == 1 {
		return recordHeaderV1
	}
	return recordHeader
}
