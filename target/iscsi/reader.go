package iscsi

import (
	"errors"
	"io"
	"sync/atomic"

	"odx/target/bufpool"
)

const (
	// loginBufferLength holds the longest login PDU: a header and 8192 bytes of data,
	// without digests.
	loginBufferLength = 16 << 10
	// readBufferLength is the maximum length of a read in full feature phase.
	readBufferLength = 64 << 10
	// ConnectionBytes is the approximate memory of a connection without the data of
	// commands: its buffer, the text of a request, and the stacks of its goroutines.
	ConnectionBytes = readBufferLength + maxTextLength + 24<<10
	// LoginBytes is that of a connection that has not logged in: its buffer and stack, the
	// texts that it may send, and the answers to them.
	LoginBytes = loginBufferLength + 3*maxLoginText + 16<<10
	// WorkerBytes is that of a worker, for its stack.
	WorkerBytes = 32 << 10
	// directRead is the length from which data is read to its destination instead of
	// through the buffer.
	directRead = 4096
)

var (
	errHeaderDigest = errors.New("header digest error")
	errDataDigest   = errors.New("data digest error")
)

// reader reads PDUs from a connection, many with one read. It is not safe for concurrent
// use.
type reader struct {
	src  io.Reader
	pool *bufpool.Pool
	buf  *bufpool.Buffer
	r, w int // buf.Bytes[r:w] is buffered

	headerDigest, dataDigest bool
	// maxData and maxAHS are the maximum lengths of the segments in bytes.
	maxData, maxAHS int

	// reads counts the reads that returned data, for the pinger.
	reads atomic.Uint32
}

// pdu is a received PDU. Its data segment is still to be read from the connection or, for
// a PDU that was kept, in kept.
type pdu struct {
	bhs
	ahs []byte // valid until data is read
	src *reader
	// kept is the data of a PDU without src.
	kept []byte
	// left is the number of unread data bytes.
	left int
}

func newReader(src io.Reader, pool *bufpool.Pool) *reader {
	return &reader{src: src, pool: pool, buf: pool.Get(loginBufferLength), maxData: defaultMaxRecv}
}

// grow switches to the buffer for full feature phase.
func (r *reader) grow() {
	b := r.pool.Get(readBufferLength)
	r.w = copy(b.Bytes, r.buf.Bytes[r.r:r.w])
	r.r = 0
	r.pool.Put(r.buf)
	r.buf = b
}

// release returns the buffer to the pool. The reader must not be used afterwards.
func (r *reader) release() {
	r.pool.Put(r.buf)
	r.buf = nil
}

// fill reads at least n more bytes into the buffer.
func (r *reader) fill(n int) error {
	b := r.buf.Bytes
	if r.r == r.w {
		r.r, r.w = 0, 0
	} else if r.w+n > len(b) {
		r.w = copy(b, b[r.r:r.w])
		r.r = 0
	}
	for n > 0 {
		k, err := r.src.Read(b[r.w:])
		if k > 0 {
			r.reads.Add(1)
		}
		r.w += k
		n -= k
		if err != nil && n > 0 {
			if err == io.EOF && r.w > r.r {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// take returns the next n bytes, which are valid until the next read. n must not exceed
// the length of the buffer.
func (r *reader) take(n int) ([]byte, error) {
	if have := r.w - r.r; have < n {
		if err := r.fill(n - have); err != nil {
			return nil, err
		}
	}
	b := r.buf.Bytes[r.r : r.r+n]
	r.r += n
	return b, nil
}

// next reads the header of the next PDU into p: BHS, AHS and header digest. The data
// segment must be read with readData or discard before the next call.
func (r *reader) next(p *pdu) error {
	b, err := r.take(bhsLength)
	if err != nil {
		return err
	}
	p.bhs = bhs(b)
	p.src, p.kept, p.ahs = r, nil, nil
	n := p.ahsLength()
	p.left = p.dataSegmentLength()
	if p.left > r.maxData || n > r.maxAHS {
		return malformed("opcode %#x with %d bytes of additional headers and %d bytes of data; maximum is %d and %d",
			p.opcode(), n, p.left, r.maxAHS, r.maxData)
	}
	if n > 0 || r.headerDigest {
		return r.nextLong(p, n)
	}
	return nil
}

// nextLong reads the rest of the header: n bytes of AHS, and the header digest.
func (r *reader) nextLong(p *pdu, n int) error {
	if !r.headerDigest {
		b, err := r.take(n)
		p.ahs = b
		return err
	}
	b, err := r.take(n + digestLength)
	if err != nil {
		return err
	}
	if !digest(0).add(p.bhs[:]).add(b[:n]).matches(b[n:]) {
		return errHeaderDigest
	}
	p.ahs = b[:n]
	return nil
}

// ready reports whether the buffer has a whole PDU, so that reading it does not block.
func (r *reader) ready() bool {
	b := r.buf.Bytes[r.r:r.w]
	if len(b) < bhsLength {
		return false
	}
	h := (*bhs)(b)
	n := bhsLength + h.ahsLength() + h.dataSegmentLength()
	if r.headerDigest {
		n += digestLength
	}
	if r.dataDigest {
		n += digestLength
	}
	return n <= len(b)
}

// readData reads the data segment into dst and drops what does not fit. It returns
// errDataDigest if the digest does not match; the whole PDU is read in this case too.
func (p *pdu) readData(dst []byte) error {
	if p.src == nil {
		copy(dst, p.kept)
		return nil
	}
	n := p.left
	p.left = 0
	if n == 0 {
		return nil
	}
	return p.src.readSegment(dst[:min(len(dst), n)], n)
}

// discard drops the data segment.
func (p *pdu) discard() error { return p.readData(nil) }

// readSegment reads a data segment of n bytes with its padding and digest, and stores the
// first len(dst) bytes.
func (r *reader) readSegment(dst []byte, n int) error {
	var d digest
	got := copy(dst, r.buf.Bytes[r.r:r.w])
	r.r += got
	if rest := dst[got:]; len(rest) >= directRead {
		if err := r.readFull(rest); err != nil {
			return noEOF(err)
		}
	} else if len(rest) > 0 {
		b, err := r.take(len(rest))
		if err != nil {
			return noEOF(err)
		}
		copy(rest, b)
	}
	if r.dataDigest {
		d = d.add(dst)
	}
	for skip := n - len(dst) + padding(n); skip > 0; {
		b, err := r.take(min(skip, directRead))
		if err != nil {
			return noEOF(err)
		}
		if r.dataDigest {
			d = d.add(b)
		}
		skip -= len(b)
	}
	if !r.dataDigest {
		return nil
	}
	b, err := r.take(digestLength)
	if err != nil {
		return noEOF(err)
	}
	if !d.matches(b) {
		return errDataDigest
	}
	return nil
}

// readFull reads len(b) bytes that are not in the buffer.
func (r *reader) readFull(b []byte) error {
	for len(b) > 0 {
		n, err := r.src.Read(b)
		if n > 0 {
			r.reads.Add(1)
		}
		if b = b[n:]; err != nil && len(b) > 0 {
			return err
		}
	}
	return nil
}

// noEOF converts EOF inside a PDU.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// keep returns a copy of the PDU with its data.
func (p *pdu) keep() (*pdu, error) {
	k := &pdu{bhs: p.bhs, ahs: append([]byte(nil), p.ahs...)}
	k.kept = make([]byte, p.left)
	return k, p.readData(k.kept)
}
