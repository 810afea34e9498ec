package stream

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
)

// The kinds of frames and of records, and the encodings of a frame.
const (
	frameRecords = 1
	frameEnd     = 2

	encodingPlain = 0
	encodingZstd  = 1

	recordData = 1
	recordHole = 2
)

const (
	frameHeader = 20 // bytes before what a frame stores
	dataHeader  = 17 // bytes before the data of a record
	holeLength  = 21 // bytes of a hole
	endLength   = 32 + sha256.Size
)

// Level is how much a Writer compresses; zero is None.
type Level int

// The levels, the faster ones first.
const (
	None Level = iota
	Fastest
	Default
	Better
	Best
)

var levelNames = []string{"none", "fastest", "default", "better", "best"}

// Levels returns the names of all levels, the faster ones first.
func Levels() []string { return append([]string(nil), levelNames...) }

// ParseLevel returns the level with a name.
func ParseLevel(name string) (Level, error) {
	for i, n := range levelNames {
		if n == name {
			return Level(i), nil
		}
	}
	return 0, fmt.Errorf("compression %q; use none, fastest, default, better or best", name)
}

// String returns the name of the level.
func (l Level) String() string { return levelNames[l] }

// Writer writes a stream. It is for one goroutine.
type Writer struct {
	w       io.Writer
	header  Header
	zstd    *zstd.Encoder // nil for None
	digest  hash.Hash     // of all bytes before the last frame
	records []byte        // of the frame that is being made
	packed  []byte        // the frame as it is stored
	next    int64         // where the next record may begin
	totals  Totals
	err     error
}

// NewWriter writes the header of a stream and returns a Writer for the rest.
func NewWriter(w io.Writer, h Header, level Level) (*Writer, error) {
	s := &Writer{w: w, header: h, digest: sha256.New(), next: h.Start}
	if level != None {
		var err error
		speed := map[Level]zstd.EncoderLevel{Fastest: zstd.SpeedFastest, Default: zstd.SpeedDefault, Better: zstd.SpeedBetterCompression, Best: zstd.SpeedBestCompression}[level]
		// A frame has checksums of its own. Its window is no longer than what it has.
		if s.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(speed), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20)); err != nil {
			return nil, err
		}
	}
	b, err := h.encode()
	if err != nil {
		return nil, err
	}
	return s, s.write(b)
}

// write writes bytes before the last frame.
func (s *Writer) write(b []byte) error {
	s.digest.Write(b)
	return s.writeRaw(b)
}

// writeRaw writes bytes, and remembers an error: what follows it would not be read.
func (s *Writer) writeRaw(b []byte) error {
	if s.err != nil {
		return s.err
	}
	n, err := s.w.Write(b)
	s.totals.StreamBytes += int64(n)
	s.err = err
	return err
}

// begin checks that a record of a range can come next.
func (s *Writer) begin(off, length int64) error {
	if off < s.next || off%BlockLength != 0 || length <= 0 || length > s.header.Size-off || length%BlockLength != 0 && off+length != s.header.Size {
		return fmt.Errorf("%w: %d bytes at %d of %d, after %d", ErrOrder, length, off, s.header.Size, s.next)
	}
	s.next = off + length
	return nil
}

// Data writes that the content has p at off, a multiple of BlockLength, as is the length
// but at the end of the content. It does not keep p.
func (s *Writer) Data(off int64, p []byte) error {
	if err := s.begin(off, int64(len(p))); err != nil {
		return err
	}
	for len(p) > 0 {
		part := p[:min(len(p), MaxData)]
		if err := s.room(dataHeader + len(part)); err != nil {
			return err
		}
		at := len(s.records)
		s.records = append(s.records, recordData)
		s.records = binary.BigEndian.AppendUint64(s.records, uint64(off))
		s.records = binary.BigEndian.AppendUint32(s.records, uint32(len(part)))
		s.records = binary.BigEndian.AppendUint32(s.records, checksum(s.records[at:], part))
		s.records = append(s.records, part...)
		s.totals.Records++
		s.totals.DataBytes += int64(len(part))
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

// Hole writes that a range of the content reads as zeros.
func (s *Writer) Hole(off, length int64) error {
	if err := s.begin(off, length); err != nil {
		return err
	}
	if err := s.room(holeLength); err != nil {
		return err
	}
	at := len(s.records)
	s.records = append(s.records, recordHole)
	s.records = binary.BigEndian.AppendUint64(s.records, uint64(off))
	s.records = binary.BigEndian.AppendUint64(s.records, uint64(length))
	s.records = binary.BigEndian.AppendUint32(s.records, checksum(s.records[at:]))
	s.totals.Records++
	s.totals.HoleBytes += length
	return nil
}

// room makes room for n bytes of records in the frame.
func (s *Writer) room(n int) error {
	if s.err != nil || len(s.records)+n <= MaxFrame {
		return s.err
	}
	return s.Flush()
}

// Flush writes what there is as a frame. Records are written as soon as a frame is full,
// so that this is for a reader that waits for the ones before.
func (s *Writer) Flush() error {
	if len(s.records) == 0 {
		return s.err
	}
	encoding, stored := byte(encodingPlain), s.records
	if s.zstd != nil {
		s.packed = s.zstd.EncodeAll(s.records, s.packed[:0])
		if len(s.packed) < len(s.records) {
			encoding, stored = encodingZstd, s.packed
		}
	}
	err := s.write(appendFrameHeader(nil, frameRecords, encoding, stored, len(s.records), s.totals.Frames))
	if err == nil {
		err = s.write(stored)
	}
	s.totals.Frames++
	s.records = s.records[:0]
	return err
}

// appendFrameHeader appends the header of a frame that is stored as p, has raw bytes of
// records, and comes after a number of others.
func appendFrameHeader(b []byte, kind, encoding byte, p []byte, raw int, number uint64) []byte {
	at := len(b)
	b = append(b, kind, encoding, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
	b = binary.BigEndian.AppendUint32(b, uint32(raw))
	b = binary.BigEndian.AppendUint32(b, uint32(number))
	return binary.BigEndian.AppendUint32(b, checksum(b[at:], p))
}

// Close writes the end of the stream, without which it is incomplete. It does not close
// what it writes to.
func (s *Writer) Close() (Totals, error) {
	if err := s.Flush(); err != nil {
		return s.totals, err
	}
	end := appendTotals(nil, s.totals)
	end = s.digest.Sum(end)
	err := s.writeRaw(append(appendFrameHeader(nil, frameEnd, encodingPlain, end, len(end), s.totals.Frames), end...))
	if s.zstd != nil {
		s.zstd.Close()
	}
	return s.totals, err
}

func appendTotals(b []byte, t Totals) []byte {
	for _, n := range []uint64{t.Frames, t.Records, uint64(t.DataBytes), uint64(t.HoleBytes)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}
