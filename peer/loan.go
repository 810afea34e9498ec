package peer

import (
	"encoding/binary"
	"fmt"
	"io"

	"odx/backstore"
)

// Content of a body of a loan: records, each whole in one frame. The first one is the place of
// the segments:
//
//	kind 3   1 byte; length, varint; that many bytes
//
// Then the parts of the range, in order:
//
//	kind 0   a hole: length, varint, bytes
//	kind 2   bytes without extents: length, varint, bytes
//	kind 1   extents that lie one after the other: segment, varint; first block, varint;
//	         count, varint; and for each its blocks, 1 byte, its fingerprint, 32 bytes, and the
//	         CRC-32C of each block, 4 bytes each
const (
	loanHole    = 0
	loanExtents = 1
	loanBytes   = 2
	loanPlace   = 3

	// maxLoanExtents bounds the extents of a record, so that it fits into a frame.
	maxLoanExtents = 500
	// maxLoanExtent is what an extent takes at most, in bytes.
	maxLoanExtent = 1 + 32 + 4*maxUnit
	// maxLoanHead is what a record takes besides.
	maxLoanHead = 1 + 3*binary.MaxVarintLen64
)

// writeLoan writes the body of a loan.
func writeLoan(w io.Writer, l *backstore.Loan) error {
	out := loanWriter{f: newFrameWriter(w, bodyLoan), buf: make([]byte, 0, maxRecords)}
	out.buf = append(out.buf, loanPlace)
	out.buf = binary.AppendUvarint(out.buf, uint64(len(l.Place)))
	out.buf = append(out.buf, l.Place...)
	for i := range l.Parts {
		p := &l.Parts[i]
		switch {
		case p.Hole:
			out.plain(loanHole, p.Length)
		case p.Segment == 0:
			out.plain(loanBytes, p.Length)
		default:
			out.extents(p)
		}
	}
	out.room(maxRecords)
	return out.f.end(nil)
}

// loanWriter writes records. An error is that of the frames' writer, which keeps it.
type loanWriter struct {
	f   *frameWriter
	buf []byte
}

// room makes room for n bytes in the frame.
func (w *loanWriter) room(n int) {
	if len(w.buf)+n > maxRecords && len(w.buf) > 0 {
		_ = w.f.content(w.buf)
		w.buf = w.buf[:0]
	}
}

func (w *loanWriter) plain(kind byte, length int64) {
	w.room(maxLoanHead)
	w.buf = binary.AppendUvarint(append(w.buf, kind), uint64(length))
}

func (w *loanWriter) extents(p *backstore.Lent) {
	block := uint64(p.Block)
	for list := p.Extents; len(list) > 0; {
		some := list[:min(len(list), maxLoanExtents)]
		list = list[len(some):]
		w.room(maxLoanHead + len(some)*maxLoanExtent)
		w.buf = binary.AppendUvarint(append(w.buf, loanExtents), uint64(p.Segment))
		w.buf = binary.AppendUvarint(w.buf, block)
		w.buf = binary.AppendUvarint(w.buf, uint64(len(some)))
		for i := range some {
			x := &some[i]
			w.buf = append(append(w.buf, byte(len(x.CRC))), x.Fingerprint[:]...)
			for _, sum := range x.CRC {
				w.buf = binary.BigEndian.AppendUint32(w.buf, sum)
			}
			block += uint64(len(x.CRC))
		}
	}
}

// readLoan reads the body of a loan of length bytes from off on.
func readLoan(r io.Reader, off, length int64) (l backstore.Loan, err error) {
	d := loanReader{off: off, end: off + length, loan: &l}
	first := true
	err = readRecords(r, bodyLoan, func(rec *records) error {
		kind := rec.byte()
		if (kind == loanPlace) != first {
			return errRecord
		}
		first = false
		d.record(kind, rec)
		if rec.bad {
			return errRecord
		}
		return nil
	})
	if err == nil && (first || d.off != d.end) {
		err = fmt.Errorf("%w: the loan ends %d bytes early", ErrProtocol, d.end-d.off)
	}
	return l, err
}

// loanReader makes a loan of records.
type loanReader struct {
	off, end int64
	loan     *backstore.Loan
	sums     []uint32 // room for checksums
}

func (d *loanReader) record(kind byte, rec *records) {
	switch kind {
	case loanPlace:
		d.loan.Place = string(rec.take(int(rec.length(int64(len(rec.p))))))
	case loanHole, loanBytes:
		n := rec.length(d.end - d.off)
		rec.bad = rec.bad || n == 0
		d.loan.Parts = append(d.loan.Parts, backstore.Lent{Off: d.off, Length: n, Hole: kind == loanHole})
		d.off += n
	case loanExtents:
		d.extents(rec)
	default:
		rec.bad = true
	}
}

// extents reads a record of extents. One that follows the part before it is joined to it.
func (d *loanReader) extents(rec *records) {
	p := backstore.Lent{Off: d.off, Segment: uint32(rec.length(1<<32 - 1)), Block: uint32(rec.length(1<<32 - 1))}
	count := rec.length(maxLoanExtents)
	if rec.bad || p.Segment == 0 || p.Block == 0 || count == 0 {
		rec.bad = true
		return
	}
	p.Extents = make([]backstore.LentExtent, 0, count)
	for range count {
		blocks := int(rec.byte())
		x := backstore.LentExtent{}
		copy(x.Fingerprint[:], rec.take(32))
		sums := rec.take(4 * blocks)
		if p.Length += int64(blocks) * blockLength; rec.bad || blocks == 0 || blocks > maxUnit || p.Length > d.end-d.off {
			rec.bad = true
			return
		}
		at := len(d.sums)
		for i := range blocks {
			d.sums = append(d.sums, binary.BigEndian.Uint32(sums[4*i:]))
		}
		x.CRC = d.sums[at:len(d.sums):len(d.sums)]
		p.Extents = append(p.Extents, x)
	}
	d.off += p.Length
	if k := len(d.loan.Parts) - 1; k >= 0 {
		last := &d.loan.Parts[k]
		if last.Segment == p.Segment && last.Block+uint32(last.Length/blockLength) == p.Block {
			last.Length, last.Extents = last.Length+p.Length, append(last.Extents, p.Extents...)
			return
		}
	}
	d.loan.Parts = append(d.loan.Parts, p)
}

// take reads n bytes, which stay those of the payload.
func (r *records) take(n int) []byte {
	if r.bad || n > len(r.p) {
		r.bad, r.p = true, nil
		return nil
	}
	p := r.p[:n]
	r.p = r.p[n:]
	return p
}
