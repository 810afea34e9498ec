package peer

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"

	v1 "odx/api/v1"
)

// A body is a header and frames. Numbers are big-endian; a varint is that of
// encoding/binary. Header:
//
//	0   4  "odxP"
//	4   1  version
//	5   1  what the body has: bodyRuns, …
//	6   2  zero
//	8   4  CRC-32C of bytes 0 to 7
//
// Frame:
//
//	0   1  kind: frameContent, frameEnd, frameFailure
//	1   3  zero
//	4   4  length of the payload
//	8   4  CRC-32C of bytes 0 to 7 and of the payload; of content, see unsummed
//	12     payload
//
// The last frame is one of frameEnd, whose payload of 8 bytes is the length of all content,
// or of frameFailure, whose payload is a failure as JSON. What follows it is an error.
const (
	wireVersion = 1

	headerLength = 12
	frameHeader  = 12
	// maxContent bounds the payload of a frame with bytes; maxRecords that of others.
	maxContent = 1 << 20
	maxRecords = 64 << 10

	frameContent = 1
	frameEnd     = 2
	frameFailure = 3

	bodyRuns        = 1
	bodyBytes       = 2
	bodyDifferences = 3
	bodyRanges      = 4
	bodyLoan        = 5
)

var wireMagic = [4]byte{'o', 'd', 'x', 'P'}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// putHeader returns the header of a body.
func putHeader(body byte) (h [headerLength]byte) {
	copy(h[:], wireMagic[:])
	h[4], h[5] = wireVersion, body
	binary.BigEndian.PutUint32(h[8:], crc32.Checksum(h[:8], castagnoli))
	return h
}

// frameWriter writes a body. After an error it writes nothing more.
type frameWriter struct {
	w     io.Writer
	total uint64
	head  [frameHeader]byte
	err   error
	// unsummed: the reader has checksums of the content, so that those of its frames are only of
	// their headers.
	unsummed bool
}

// newFrameWriter begins a body.
func newFrameWriter(w io.Writer, body byte) *frameWriter {
	f := &frameWriter{w: w}
	h := putHeader(body)
	f.write(h[:])
	return f
}

func (f *frameWriter) write(p []byte) {
	if f.err == nil {
		_, f.err = f.w.Write(p)
	}
}

func (f *frameWriter) frame(kind byte, payload []byte) error {
	f.head = [frameHeader]byte{0: kind}
	binary.BigEndian.PutUint32(f.head[4:], uint32(len(payload)))
	sum := crc32.Checksum(f.head[:8], castagnoli)
	if !f.unsummed || kind != frameContent {
		sum = crc32.Update(sum, castagnoli, payload)
	}
	binary.BigEndian.PutUint32(f.head[8:], sum)
	f.write(f.head[:])
	f.write(payload)
	return f.err
}

// content writes a frame with content.
func (f *frameWriter) content(payload []byte) error {
	f.total += uint64(len(payload))
	return f.frame(frameContent, payload)
}

// end ends the body: with a failure, if err is not nil.
func (f *frameWriter) end(err error) error {
	if err != nil {
		text, _ := json.Marshal(failureOf(err)) // strings always encode
		if len(text) > maxRecords {
			text, _ = json.Marshal(v1.Failure{Kind: failureOf(err).Kind, Error: "(too long)"})
		}
		return f.frame(frameFailure, text)
	}
	var total [8]byte
	binary.BigEndian.PutUint64(total[:], f.total)
	return f.frame(frameEnd, total[:])
}

// frameReader reads a body. It takes no more memory than its largest frame, and no more of
// the stream than the body.
type frameReader struct {
	r     io.Reader
	total uint64
	head  [frameHeader]byte
	buf   []byte
	// checked: the caller has a checksum of each block of the content, and compares that.
	checked bool
}

// newFrameReader reads the header of a body.
func newFrameReader(r io.Reader, body byte) (*frameReader, error) {
	f := &frameReader{r: r}
	h := f.head[:headerLength]
	if _, err := io.ReadFull(r, h); err != nil {
		return nil, readError(err)
	}
	switch {
	case [4]byte(h[:4]) != wireMagic:
		return nil, fmt.Errorf("%w: no body of this protocol", ErrProtocol)
	case binary.BigEndian.Uint32(h[8:]) != crc32.Checksum(h[:8], castagnoli):
		return nil, fmt.Errorf("%w: checksum of the header", ErrProtocol)
	case h[4] != wireVersion:
		return nil, fmt.Errorf("%w: version %d, this program knows %d", ErrProtocol, h[4], wireVersion)
	case h[5] != body || h[6] != 0 || h[7] != 0:
		return nil, fmt.Errorf("%w: body of kind %d, want %d", ErrProtocol, h[5], body)
	}
	return f, nil
}

// readError is the error of a body that ended early, or of its connection.
func readError(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: the body ends early", ErrProtocol)
	}
	return err
}

// next reads the header of a frame. It returns io.EOF after the last one, and the error of a
// failure.
func (f *frameReader) next(bound int) (length int, err error) {
	if _, err := io.ReadFull(f.r, f.head[:]); err != nil {
		return 0, readError(err)
	}
	n := binary.BigEndian.Uint32(f.head[4:])
	if f.head[1] != 0 || f.head[2] != 0 || f.head[3] != 0 {
		return 0, fmt.Errorf("%w: reserved bytes of a frame", ErrProtocol)
	}
	switch kind := f.head[0]; kind {
	case frameContent:
		if n == 0 || n > uint32(bound) {
			return 0, fmt.Errorf("%w: frame of %d bytes, at most %d", ErrProtocol, n, bound)
		}
		f.total += uint64(n)
		return int(n), nil
	case frameEnd, frameFailure:
		if n > maxRecords || kind == frameEnd && n != 8 {
			return 0, fmt.Errorf("%w: last frame of %d bytes", ErrProtocol, n)
		}
		p, err := f.payload(int(n))
		if err != nil {
			return 0, err
		}
		if kind == frameFailure {
			return 0, readFailure(p)
		}
		if total := binary.BigEndian.Uint64(p); total != f.total {
			return 0, fmt.Errorf("%w: %d bytes of content, %d announced", ErrProtocol, f.total, total)
		}
		return 0, f.atEnd()
	default:
		return 0, fmt.Errorf("%w: frame of kind %d", ErrProtocol, kind)
	}
}

// atEnd returns io.EOF if nothing follows.
func (f *frameReader) atEnd() error {
	var one [1]byte
	switch _, err := io.ReadFull(f.r, one[:]); err {
	case io.EOF:
		return io.EOF
	case nil:
		return fmt.Errorf("%w: more after the last frame", ErrProtocol)
	default:
		return err
	}
}

// payload reads a payload into the buffer of f, which the next call overwrites.
func (f *frameReader) payload(n int) ([]byte, error) {
	if cap(f.buf) < n {
		f.buf = make([]byte, max(n, 4096))
	}
	p := f.buf[:n]
	return p, f.fill(p)
}

// fill reads the payload of the frame whose header was read.
func (f *frameReader) fill(p []byte) error {
	if _, err := io.ReadFull(f.r, p); err != nil {
		return readError(err)
	}
	if f.checked && f.head[0] == frameContent {
		return nil
	}
	sum := crc32.Update(crc32.Checksum(f.head[:8], castagnoli), castagnoli, p)
	if sum != binary.BigEndian.Uint32(f.head[8:]) {
		return fmt.Errorf("%w: checksum of a frame", ErrProtocol)
	}
	return nil
}
