package peer

import (
	"encoding/binary"
	"fmt"
	"io"

	"odx/backstore"
	"odx/blockdev"
)

// Content of a body of runs: records, each whole in one frame. A record is
//
//	kind    1 byte: recordHole, recordBlocks, recordBytes, recordSeries
//	length  varint, bytes
//
// of recordSeries instead of the length 8 bytes: the series of the slots that follow in this
// frame, which begins without one; and for recordBlocks, whose length is whole blocks: groups
// of consecutive slots, until they have that many,
//
//	count   varint, at least 1
//	slot    zigzag varint: the first slot less the one expected, which is that after the
//	        last one of the record before in this frame, 0 at the beginning
//
// and then the CRC-32C of each block, 4 bytes each. Offsets follow from the lengths.
//
// Of a body of differences: gap, varint; length, varint; 1 if it reads as zeros, 0
// otherwise, 1 byte. The gap is what is equal before it.
//
// Of a body of ranges: offset, varint; length, varint.
const (
	recordHole   = 0
	recordBlocks = 1
	recordBytes  = 2
	recordSeries = 3

	blockLength = backstore.BlockLength
	// maxRecordBlocks bounds the blocks of a record, so that it fits into a frame.
	maxRecordBlocks = 4000
	// maxBlockRecord is what a record takes for each block at most, in bytes.
	maxBlockRecord = binary.MaxVarintLen64 + 1 + 4
	// maxRecordHead is what it takes besides, with that of its series.
	maxRecordHead = 1 + binary.MaxVarintLen64 + 1 + 8
)

// runWriter writes a body of runs.
type runWriter struct {
	f   *frameWriter
	buf []byte
	runContext
}

// runContext is what a record of a frame refers to.
type runContext struct {
	next   uint64 // slot that is expected
	series uint64
	given  bool // the frame has a series
}

func newRunWriter(w io.Writer) *runWriter {
	return &runWriter{f: newFrameWriter(w, bodyRuns), buf: make([]byte, 0, maxRecords)}
}

// add writes a run.
func (w *runWriter) add(r backstore.Run) error {
	switch {
	case r.Hole:
		return w.plain(recordHole, r.Length)
	case !r.Named():
		return w.plain(recordBytes, r.Length)
	}
	if n := int64(len(r.Slots)); n*blockLength != r.Length || len(r.CRC) != len(r.Slots) {
		return fmt.Errorf("%w: run of %d bytes with %d slots and %d checksums", blockdev.ErrCorrupt, r.Length, n, len(r.CRC))
	}
	for at := 0; at < len(r.Slots); at += maxRecordBlocks {
		end := min(at+maxRecordBlocks, len(r.Slots))
		if err := w.blocks(r.Series, r.Slots[at:end], r.CRC[at:end]); err != nil {
			return err
		}
	}
	return nil
}

func (w *runWriter) plain(kind byte, length int64) error {
	if err := w.room(maxRecordHead); err != nil {
		return err
	}
	w.buf = append(w.buf, kind)
	w.buf = binary.AppendUvarint(w.buf, uint64(length))
	return nil
}

func (w *runWriter) blocks(series uint64, slots []uint64, sums []uint32) error {
	if err := w.room(maxRecordHead + len(slots)*maxBlockRecord); err != nil {
		return err
	}
	if !w.given || w.series != series {
		w.buf = binary.BigEndian.AppendUint64(append(w.buf, recordSeries), series)
		w.series, w.given = series, true
	}
	w.buf = append(w.buf, recordBlocks)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(slots))*blockLength)
	for at := 0; at < len(slots); {
		n := 1
		for at+n < len(slots) && slots[at+n] == slots[at]+uint64(n) {
			n++
		}
		w.buf = binary.AppendUvarint(w.buf, uint64(n))
		w.buf = binary.AppendVarint(w.buf, int64(slots[at]-w.next))
		w.next = slots[at] + uint64(n)
		at += n
	}
	for _, sum := range sums {
		w.buf = binary.BigEndian.AppendUint32(w.buf, sum)
	}
	return nil
}

// room makes room for n bytes in the frame.
func (w *runWriter) room(n int) error {
	if len(w.buf)+n <= maxRecords {
		return nil
	}
	return w.flush()
}

func (w *runWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	err := w.f.content(w.buf)
	w.buf, w.runContext = w.buf[:0], runContext{}
	return err
}

// end ends the body, with a failure if err is not nil.
func (w *runWriter) end(err error) error {
	if flushed := w.flush(); err == nil {
		err = flushed
	}
	return w.f.end(err)
}

// records reads the fields of a payload; after an error its fields are zeros.
type records struct {
	p   []byte
	bad bool
}

func (r *records) byte() (b byte) {
	if len(r.p) == 0 {
		r.bad = true
		return 0
	}
	b, r.p = r.p[0], r.p[1:]
	return b
}

func (r *records) uvarint() uint64 {
	v, n := binary.Uvarint(r.p)
	if n <= 0 {
		r.bad, r.p = true, nil
		return 0
	}
	r.p = r.p[n:]
	return v
}

func (r *records) varint() int64 {
	v, n := binary.Varint(r.p)
	if n <= 0 {
		r.bad, r.p = true, nil
		return 0
	}
	r.p = r.p[n:]
	return v
}

// length reads a length of at most that many bytes.
func (r *records) length(most int64) int64 {
	v := r.uvarint()
	if v > uint64(most) {
		r.bad = true
		return 0
	}
	return int64(v)
}

var errRecord = fmt.Errorf("%w: a record is cut or out of range", ErrProtocol)

// runReader reads a body of runs; its slices are used again for each run.
type runReader struct {
	slots []uint64
	sums  []uint32
}

// read calls fn with runs of just the bytes of ranges. None lies in two of them.
func (d *runReader) read(r io.Reader, ranges []blockdev.Range, fn func(backstore.Run) error) error {
	f, err := newFrameReader(r, bodyRuns)
	if err != nil {
		return err
	}
	var off, end int64
	next := func() {
		for off == end && len(ranges) > 0 {
			off, end, ranges = ranges[0].Offset, ranges[0].End(), ranges[1:]
		}
	}
	next()
	for {
		n, err := f.next(maxRecords)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		p, err := f.payload(n)
		if err != nil {
			return err
		}
		rec, in := records{p: p}, runContext{}
		for len(rec.p) > 0 {
			run, ok := d.run(&rec, &in, off, end-off)
			if !ok {
				return errRecord
			}
			if run.Length == 0 {
				continue // a series
			}
			off += run.Length
			if err := fn(run); err != nil {
				return err
			}
			next()
		}
	}
	if off != end {
		return fmt.Errorf("%w: runs end %d bytes early", ErrProtocol, end-off)
	}
	return nil
}

// run decodes a record; of a series, the run has no length. left is how many bytes there may
// be.
func (d *runReader) run(rec *records, in *runContext, off, left int64) (run backstore.Run, ok bool) {
	kind := rec.byte()
	if kind == recordSeries {
		if len(rec.p) < 8 {
			return run, false
		}
		in.series, in.given = binary.BigEndian.Uint64(rec.p), true
		rec.p = rec.p[8:]
		return run, true
	}
	run = backstore.Run{Off: off, Length: rec.length(left)}
	if rec.bad || run.Length == 0 {
		return run, false
	}
	switch kind {
	case recordHole:
		run.Hole = true
		return run, true
	case recordBytes:
		return run, true
	case recordBlocks:
	default:
		return run, false
	}
	blocks := run.Length / blockLength
	if !in.given || run.Length%blockLength != 0 || blocks > maxRecordBlocks {
		return run, false
	}
	run.Series = in.series
	d.slots, d.sums = d.slots[:0], d.sums[:0]
	for int64(len(d.slots)) < blocks {
		n := rec.length(blocks - int64(len(d.slots)))
		first := in.next + uint64(rec.varint())
		if rec.bad || n == 0 || first == 0 || first+uint64(n) < first {
			return run, false
		}
		for i := range uint64(n) {
			d.slots = append(d.slots, first+i)
		}
		in.next = first + uint64(n)
	}
	if int64(len(rec.p)) < 4*blocks {
		return run, false
	}
	for i := range blocks {
		d.sums = append(d.sums, binary.BigEndian.Uint32(rec.p[4*i:]))
	}
	rec.p = rec.p[4*blocks:]
	run.Slots, run.CRC = d.slots, d.sums
	return run, true
}

// differenceWriter writes a body of differences.
type differenceWriter struct {
	f   *frameWriter
	buf []byte
	at  int64
}

// newDifferenceWriter begins a body of what differs from off on.
func newDifferenceWriter(w io.Writer, off int64) *differenceWriter {
	return &differenceWriter{f: newFrameWriter(w, bodyDifferences), at: off}
}

func (w *differenceWriter) add(d backstore.Difference) error {
	if d.Offset < w.at || d.Length <= 0 {
		return fmt.Errorf("%w: differences out of order at %d", blockdev.ErrCorrupt, d.Offset)
	}
	if len(w.buf)+2*binary.MaxVarintLen64+1 > maxRecords {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.buf = binary.AppendUvarint(w.buf, uint64(d.Offset-w.at))
	w.buf = binary.AppendUvarint(w.buf, uint64(d.Length))
	hole := byte(0)
	if d.Hole {
		hole = 1
	}
	w.buf = append(w.buf, hole)
	w.at = d.Offset + d.Length
	return nil
}

func (w *differenceWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	err := w.f.content(w.buf)
	w.buf = w.buf[:0]
	return err
}

func (w *differenceWriter) end(err error) error {
	if flushed := w.flush(); err == nil {
		err = flushed
	}
	return w.f.end(err)
}

// readDifferences calls fn with differences inside [off, off+length).
func readDifferences(r io.Reader, off, length int64, fn func(backstore.Difference) error) error {
	end := off + length
	return readRecords(r, bodyDifferences, func(rec *records) error {
		off += rec.length(end - off)
		d := backstore.Difference{Range: blockdev.Range{Offset: off, Length: rec.length(end - off)}}
		hole := rec.byte()
		if rec.bad || d.Length == 0 || hole > 1 {
			return errRecord
		}
		d.Hole = hole == 1
		off += d.Length
		return fn(d)
	})
}

// readRecords calls fn for each record of a body, which reads its fields.
func readRecords(r io.Reader, body byte, fn func(*records) error) error {
	f, err := newFrameReader(r, body)
	if err != nil {
		return err
	}
	for {
		n, err := f.next(maxRecords)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		p, err := f.payload(n)
		if err != nil {
			return err
		}
		for rec := (&records{p: p}); len(rec.p) > 0; {
			if err := fn(rec); err != nil {
				return err
			}
		}
	}
}

// MaxRanges bounds the ranges of a request.
const MaxRanges = 2048

// maxReadBytes bounds the bytes that a request reads.
const maxReadBytes = 4 << 20

// writeRanges writes the body of a request for bytes.
func writeRanges(w io.Writer, ranges []blockdev.Range) error {
	f := newFrameWriter(w, bodyRanges)
	buf := make([]byte, 0, len(ranges)*2*binary.MaxVarintLen64)
	for _, r := range ranges {
		buf = binary.AppendUvarint(buf, uint64(r.Offset))
		buf = binary.AppendUvarint(buf, uint64(r.Length))
	}
	if len(buf) > 0 {
		if err := f.content(buf); err != nil {
			return err
		}
	}
	return f.end(nil)
}

// parseRanges reads the body of a request for ranges of size held bytes, together at most that
// many.
func parseRanges(r io.Reader, size, most int64) (ranges []blockdev.Range, total int64, err error) {
	err = readRecords(r, bodyRanges, func(rec *records) error {
		off := rec.length(size)
		x := blockdev.Range{Offset: off, Length: rec.length(size - off)}
		if rec.bad || x.Length == 0 {
			return fmt.Errorf("%w: a range of the request", blockdev.ErrRange)
		}
		if total += x.Length; len(ranges) == MaxRanges || total > most {
			return fmt.Errorf("%w: more than %d ranges or %d bytes in one request", blockdev.ErrInvalid, MaxRanges, most)
		}
		ranges = append(ranges, x)
		return nil
	})
	return ranges, total, err
}
