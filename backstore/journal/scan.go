package journal

import (
	"encoding/binary"
	"errors"
	"io"

	"odx/backstore/vfs"
)

// scanner reads the records of one file from front to back.
type scanner struct {
	file   vfs.File
	header fileHeader
	seed   uint32
	off    int64 // of the next record
	end    int64 // length of the file
	buf    []byte
	at     int64 // offset of buf in the file
	// effort bounds the bytes that search verifies without success: payloads can look
	// like records.
	effort int64
	// blind treats pages that cannot be read as damaged; unreadable is the error of the
	// first one.
	blind      bool
	unreadable error
}

func newScanner(handle vfs.File, h fileHeader) (*scanner, error) {
	size, err := handle.Size()
	if err != nil {
		return nil, err
	}
	return &scanner{file: handle, header: h, seed: h.seed(), off: headerBlock, end: size, effort: 1<<20 + 16*size}, nil
}

// next returns the next record if it is record want. Otherwise ok is false and off
// unchanged. The payload is valid until the next call.
func (s *scanner) next(want LSN) (f frame, ok bool, err error) {
	f, ok, err = s.frameAt(want, want)
	if !ok || f.note {
		return frame{}, false, err
	}
	s.off += f.length
	return f, true, nil
}

// search finds the next frame after off, where record want is damaged, and moves past
// it. ok is false if there is none.
func (s *scanner) search(want LSN) (f frame, ok bool, err error) {
	for step := s.header.recordHeader(); s.end-s.off >= step && s.effort > 0; s.off += 8 {
		// The space before the frame bounds the records between.
		s.skip(want-1, want+LSN((s.end-s.off)/step))
		f, ok, err := s.frameAt(want-1, want+LSN((s.end-s.off)/step))
		if err != nil {
			return frame{}, false, err
		}
		if ok && (f.note || f.lsn > want) {
			s.off += f.length
			return f, true, nil
		}
	}
	return frame{}, false, nil
}

// skip moves off, within buf, to the next possible frame with an LSN from low to high.
// search mostly passes the zeros of a preallocated file.
func (s *scanner) skip(low, high LSN) {
	if s.off < s.at || s.off-s.at > int64(len(s.buf)) {
		return
	}
	b := s.buf[s.off-s.at:]
	for len(b) >= recordHeader && LSN(binary.LittleEndian.Uint64(b[8:]))-low > high-low {
		b = b[8:]
	}
	s.off = s.at + int64(len(s.buf)-len(b))
}

// frameAt returns the frame at off, if there is one with an LSN from low to high.
func (s *scanner) frameAt(low, high LSN) (f frame, ok bool, err error) {
	b, err := s.load(s.header.recordHeader())
	if b == nil {
		return frame{}, false, err
	}
	f, length, ok := s.header.parse(b, low, high)
	if !ok {
		return frame{}, false, nil
	}
	f.off = s.off
	s.effort -= min(length, s.end-s.off)
	if b, err = s.load(length); b == nil {
		return frame{}, false, err
	}
	return f, f.verify(b, s.seed), nil
}

// load returns the n bytes at off, or nil if the file is shorter.
func (s *scanner) load(n int64) ([]byte, error) {
	if n > s.end-s.off {
		return nil, nil
	}
	if s.off < s.at || s.off-s.at+n > int64(len(s.buf)) {
		size := min(max(n, 1<<20), s.end-s.off)
		if int64(cap(s.buf)) < size {
			s.buf = make([]byte, size)
		}
		s.buf, s.at = s.buf[:size], s.off
		if err := s.read(); err != nil {
			s.buf = s.buf[:0]
			return nil, err
		}
	}
	return s.buf[s.off-s.at:][:n], nil
}

// read fills buf.
func (s *scanner) read() error {
	n, err := s.file.ReadAt(s.buf, s.at)
	if n == len(s.buf) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF // the file had that size
	}
	if !s.blind {
		return err
	}
	if s.unreadable == nil {
		s.unreadable = err
	}
	for from := int64(0); from < int64(len(s.buf)); from += pageLength {
		p := s.buf[from:min(from+pageLength, int64(len(s.buf)))]
		if n, _ := s.file.ReadAt(p, s.at+from); n < len(p) {
			clear(p)
		}
	}
	return nil
}
