package stream

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Record is a range of the content.
type Record struct {
	// Offset and Length are in bytes.
	Offset, Length int64
	// Data is what the range has; nil where it reads as zeros. It is valid until the next
	// call of Next.
	Data []byte
}

// End returns the offset after the range.
func (r Record) End() int64 { return r.Offset + r.Length }

// Reader reads a stream. It is for one goroutine. It keeps at most three times MaxFrame.
type Reader struct {
	r       io.Reader
	header  Header
	zstd    *zstd.Decoder // nil until a frame is compressed
	digest  hash.Hash     // of all bytes before the last frame
	at      int64         // of what was read, in bytes
	stored  []byte        // a frame as it is stored
	raw     []byte        // its records, if they were compressed
	records []byte        // that Next has not returned
	recAt   int64         // where the frame of records begins in the stream
	next    int64         // where the next record may begin
	found   Totals
	err     error
}

// NewReader reads the header of a stream and returns a Reader of the rest. It reads no
// further than the stream goes but for one byte at its end. Errors: see ErrFormat.
func NewReader(r io.Reader) (*Reader, error) {
	h, raw, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	s := &Reader{r: r, header: h, digest: sha256.New(), at: int64(len(raw)), next: h.Start}
	s.digest.Write(raw)
	return s, nil
}

// Header returns the header.
func (s *Reader) Header() Header { return s.header }

// Totals returns the sums of what was read.
func (s *Reader) Totals() Totals {
	t := s.found
	t.StreamBytes = s.at
	return t
}

// Next returns the next record; they come in the order of their offsets. It returns io.EOF
// at the end of a stream of which every byte was as it was written. Before that, what was
// returned may be a part of a damaged stream.
func (s *Reader) Next() (Record, error) {
	for s.err == nil && len(s.records) == 0 {
		s.err = s.readFrame()
	}
	if s.err != nil {
		return Record{}, s.err
	}
	var r Record
	if r, s.err = s.parse(); s.err != nil {
		return Record{}, s.err
	}
	s.found.Records++
	if r.Data != nil {
		s.found.DataBytes += r.Length
	} else {
		s.found.HoleBytes += r.Length
	}
	s.next = r.End()
	return r, nil
}

// Close frees what the Reader has.
func (s *Reader) Close() {
	if s.zstd != nil {
		s.zstd.Close()
	}
	s.stored, s.raw, s.records = nil, nil, nil
}

// read fills p from the stream.
func (s *Reader) read(p []byte) error {
	n, err := io.ReadFull(s.r, p)
	s.at += int64(n)
	if err != nil {
		return endedAt(s.at, err)
	}
	return nil
}

// readFrame reads a frame; io.EOF after the last one.
func (s *Reader) readFrame() error {
	s.recAt = s.at
	var head [frameHeader]byte
	if err := s.read(head[:]); err != nil {
		return err
	}
	kind, encoding := head[0], head[1]
	length, raw, number, sum := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:]), binary.BigEndian.Uint32(head[12:]), binary.BigEndian.Uint32(head[16:])
	// Bounds first: a checksum of more than that is not computed.
	if length == 0 || length > MaxFrame || raw == 0 || raw > MaxFrame {
		return damagedf(s.recAt, "a frame of %d bytes, stored in %d", raw, length)
	}
	if int(length) > cap(s.stored) {
		s.stored = make([]byte, length)
	}
	p := s.stored[:length]
	if err := s.read(p); err != nil {
		return err
	}
	if checksum(head[:16], p) != sum {
		return damagedf(s.recAt, "the checksum of a frame does not match")
	}
	switch {
	case head[2] != 0 || head[3] != 0 || kind != frameRecords && kind != frameEnd || encoding != encodingPlain && encoding != encodingZstd:
		return versionError(s.recAt, kind, encoding)
	case number != uint32(s.found.Frames):
		return damagedf(s.recAt, "frame %d where %d should be", number, s.found.Frames)
	case kind == frameEnd:
		return s.end(p, encoding, raw)
	}
	s.digest.Write(head[:])
	s.digest.Write(p)
	s.found.Frames++
	return s.unpack(p, encoding, int(raw))
}

// unpack sets the records to those of a frame.
func (s *Reader) unpack(p []byte, encoding byte, raw int) (err error) {
	if encoding == encodingPlain {
		if s.records = p; len(p) != raw {
			return damagedf(s.recAt, "a frame of %d bytes has %d", raw, len(p))
		}
		return nil
	}
	if s.zstd == nil {
		s.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxFrame), zstd.WithDecoderMaxWindow(MaxFrame))
		if err != nil {
			return err
		}
	}
	if raw > cap(s.raw) {
		s.raw = make([]byte, 0, raw)
	}
	s.records, err = s.zstd.DecodeAll(p, s.raw[:0])
	if err != nil {
		return damagedf(s.recAt, "decompress a frame: %v", err)
	}
	if len(s.records) != raw {
		return damagedf(s.recAt, "a frame of %d bytes has %d", raw, len(s.records))
	}
	return nil
}

// end checks the last frame, and that nothing follows.
func (s *Reader) end(p []byte, encoding byte, raw uint32) error {
	if encoding != encodingPlain || len(p) != endLength || raw != endLength {
		return damagedf(s.recAt, "a last frame of %d bytes", len(p))
	}
	if want := appendTotals(nil, s.found); !bytes.Equal(p[:len(want)], want) {
		return damagedf(s.recAt, "the stream has not what its end says: records are missing, or too many")
	}
	if !bytes.Equal(p[endLength-sha256.Size:], s.digest.Sum(nil)) {
		return damagedf(s.recAt, "the digest of the stream does not match")
	}
	var more [1]byte
	switch n, err := io.ReadFull(s.r, more[:]); {
	case n > 0:
		return damagedf(s.at, "bytes follow its end")
	case err != io.EOF:
		return endedAt(s.at, err)
	}
	return io.EOF
}

// parse takes a record from those of the frame, which are not empty.
func (s *Reader) parse() (r Record, err error) {
	b := s.records
	switch b[0] {
	case recordData:
		if len(b) < dataHeader {
			return r, damagedf(s.recAt, "a record is longer than its frame")
		}
		length := binary.BigEndian.Uint32(b[9:])
		if length == 0 || length > MaxData || int(length) > len(b)-dataHeader {
			return r, damagedf(s.recAt, "a record with %d bytes of data", length)
		}
		r = Record{Offset: int64(binary.BigEndian.Uint64(b[1:])), Length: int64(length), Data: b[dataHeader : dataHeader+int(length)]}
		if checksum(b[:13], r.Data) != binary.BigEndian.Uint32(b[13:]) {
			return r, damagedf(s.recAt, "the checksum of %d bytes at %d does not match", length, r.Offset)
		}
		s.records = b[dataHeader+int(length):]
	case recordHole:
		if len(b) < holeLength {
			return r, damagedf(s.recAt, "a record is longer than its frame")
		}
		r = Record{Offset: int64(binary.BigEndian.Uint64(b[1:])), Length: int64(binary.BigEndian.Uint64(b[9:]))}
		if checksum(b[:17]) != binary.BigEndian.Uint32(b[17:]) {
			return r, damagedf(s.recAt, "the checksum of a hole does not match")
		}
		s.records = b[holeLength:]
	default:
		return r, versionError(s.recAt, b[0], 0)
	}
	size := s.header.Size
	if r.Offset < s.next || r.Offset > size || r.Length <= 0 || r.Length > size-r.Offset || r.Offset%BlockLength != 0 || r.Length%BlockLength != 0 && r.End() != size {
		return r, damagedf(s.recAt, "a record of %d bytes at %d of %d, after %d", r.Length, r.Offset, size, s.next)
	}
	return r, nil
}
