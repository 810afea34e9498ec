package iscsi

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

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
	// arrived is when what is buffered was read, in nanoseconds since clock.
	arrived atomic.Int64
	clock   time.Time

	// inPDU is set from the header of a PDU to the next one.
	inPDU bool
	// cut is set if reading a header was interrupted after its first segment.
	cut bool
	// readOn reports whether to read again after an error; nil: never.
	readOn func(err error) bool
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
	// got is the number of data bytes in the destination of a read that failed.
	got int
}

func newReader(src io.Reader, pool *bufpool.Pool) *reader {
	return &reader{src: src, pool: pool, buf: pool.Get(loginBufferLength), maxData: defaultMaxRecv, clock: time.Now()}
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
			r.arrived.Store(int64(time.Since(r.clock)))
		}
		r.w += k
		n -= k
		if err != nil && n > 0 {
			if r.retries(err) {
				continue
			}
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
	r.inPDU, r.cut = false, false
	b, err := r.take(bhsLength)
	if err != nil {
		return err
	}
	r.inPDU = true
	p.bhs = bhs(b)
	p.src, p.kept, p.ahs = r, nil, nil
	n := p.ahsLength()
	p.left = p.dataSegmentLength()
	if p.left > r.maxData || n > r.maxAHS {
		return malformed("opcode %#x with %d bytes of additional headers and %d bytes of data; maximum is %d and %d",
			p.opcode(), n, p.left, r.maxAHS, r.maxData)
	}
	if n > 0 || r.headerDigest {
		err := r.nextLong(p, n)
		r.cut = err != nil
		return err
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
	got, err := p.src.readSegment(dst[:min(len(dst), n)], n)
	p.got = got
	return err
}

// discard drops the data segment.
func (p *pdu) discard() error { return p.readData(nil) }

// readSegment reads a data segment of n bytes with its padding and digest, and stores the
// first len(dst) bytes. got is the number of bytes in dst after an error other than that of
// the digest; all other bytes of the segment are still in the buffer, unless dst is shorter
// than the segment.
func (r *reader) readSegment(dst []byte, n int) (got int, err error) {
	got = copy(dst, r.buf.Bytes[r.r:r.w])
	r.r += got
	if rest := dst[got:]; len(rest) >= directRead {
		k, err := r.readFull(rest)
		if got += k; err != nil {
			return got, noEOF(err)
		}
	} else if len(rest) > 0 {
		b, err := r.take(len(rest))
		if err != nil {
			return got, noEOF(err)
		}
		got += copy(rest, b)
	}
	var d digest
	if r.dataDigest {
		d = d.add(dst)
	}
	for skip := n - len(dst); skip > 0; {
		b, err := r.take(min(skip, directRead))
		if err != nil {
			return got, noEOF(err)
		}
		if r.dataDigest {
			d = d.add(b)
		}
		skip -= len(b)
	}
	return got, r.endSegment(d, padding(n))
}

// endSegment reads the padding and the digest of a data segment. d is that of its data.
func (r *reader) endSegment(d digest, padding int) error {
	n := padding
	if r.dataDigest {
		n += digestLength
	}
	if n == 0 {
		return nil
	}
	b, err := r.take(n)
	if err != nil {
		return noEOF(err)
	}
	if r.dataDigest && !d.add(b[:padding]).matches(b[padding:]) {
		return errDataDigest
	}
	return nil
}

// readFull reads len(b) bytes that are not in the buffer. It returns how many it has read.
func (r *reader) readFull(b []byte) (n int, err error) {
	for n < len(b) {
		k, err := r.src.Read(b[n:])
		if k > 0 {
			r.reads.Add(1)
		}
		if n += k; err != nil && n < len(b) && !r.retries(err) {
			return n, err
		}
	}
	return n, nil
}

// retries reports whether to read again after an error.
func (r *reader) retries(err error) bool { return r.readOn != nil && r.readOn(err) }

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
