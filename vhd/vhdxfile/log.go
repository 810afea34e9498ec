package vhdxfile

import (
	"context"

	"odx/vhd/disk"
)

// Lengths in a log entry, bytes (MS-VHDX 2.3.1).
const (
	entryHeaderLength = 64
	descriptorLength  = 32
	// maxSectors is how many updates an entry of ours has: as many as have their
	// descriptors in its first sector. It is less than half of the smallest log.
	maxSectors = (sectorLength - entryHeaderLength) / descriptorLength
)

// logEntry is an entry of the log (MS-VHDX 2.3.1). Offsets and lengths are bytes.
type logEntry struct {
	length, tail  uint32
	sequence      uint64
	log           disk.GUID
	flushed, last uint64 // FlushedFileOffset, LastFileOffset
	pieces        []piece
}

// encode makes an entry of at most maxSectors pieces, each a sector of data.
func (e logEntry) encode() []byte {
	p := make([]byte, sectorLength*(1+len(e.pieces)))
	copy(p, "loge")
	le.PutUint32(p[8:], uint32(len(p)))
	le.PutUint32(p[12:], e.tail)
	le.PutUint64(p[16:], e.sequence)
	le.PutUint32(p[24:], uint32(len(e.pieces)))
	putGUID(p[32:], e.log)
	le.PutUint64(p[48:], e.flushed)
	le.PutUint64(p[56:], e.last)
	for i, piece := range e.pieces {
		d, s := p[entryHeaderLength+descriptorLength*i:], p[sectorLength*(1+i):][:sectorLength]
		copy(s, piece.data)
		copy(d, "desc")
		copy(d[4:8], s[sectorLength-4:])
		copy(d[8:16], s)
		le.PutUint64(d[16:], uint64(piece.offset))
		le.PutUint64(d[24:], e.sequence)
		copy(s, "data")
		le.PutUint32(s[4:], uint32(e.sequence>>32))
		le.PutUint32(s[sectorLength-4:], uint32(e.sequence))
	}
	seal(p)
	return p
}

// ring is the log as it is in a file.
type ring struct {
	data []byte
	log  disk.GUID
	// budget is how many bytes of entries may still be looked at. Entries are long
	// where somebody wants them to be, and may begin in every sector: without it, a
	// log of 64 MiB would keep a processor busy for minutes.
	budget int64
	// damaged: some sector begins an entry of this log that is not valid, other than
	// because writing it was not finished.
	damaged bool
}

// bytes returns n bytes from offset off on, which may reach over the end.
func (r *ring) bytes(off, n int) []byte {
	if off+n <= len(r.data) {
		return r.data[off : off+n]
	}
	p := append([]byte(nil), r.data[off:]...)
	return append(p, r.data[:n-len(p)]...)
}

// entry returns the entry at offset off, if there is a valid one. What does not
// fulfil MS-VHDX 2.3.1 is none, such as one that was torn.
func (r *ring) entry(off int) (logEntry, bool) {
	p := r.data[off:][:sectorLength]
	if string(p[:4]) != "loge" || getGUID(p[32:]) != r.log {
		return logEntry{}, false
	}
	e := logEntry{
		length: le.Uint32(p[8:]), tail: le.Uint32(p[12:]), sequence: le.Uint64(p[16:]), log: r.log,
		flushed: le.Uint64(p[48:]), last: le.Uint64(p[56:]),
	}
	count := int64(le.Uint32(p[24:]))
	heads := (entryHeaderLength + descriptorLength*count + sectorLength - 1) / sectorLength
	if e.sequence == 0 || e.length == 0 || e.length%sectorLength != 0 || int64(e.length) > int64(len(r.data)) ||
		e.tail%sectorLength != 0 || heads*sectorLength > int64(e.length) {
		r.damaged = true
		return logEntry{}, false
	}
	if r.budget -= int64(e.length); r.budget < 0 {
		return logEntry{}, false
	}
	p = r.bytes(off, int(e.length))
	var ok, torn bool
	e.pieces, ok, torn = decodePieces(p, int(count), p[heads*sectorLength:], e.sequence)
	ok = ok && sealed(p, "loge")
	r.damaged = r.damaged || !ok && !torn
	return e, ok
}

// decodePieces reads the descriptors of an entry and takes their data from its data
// sectors (MS-VHDX 2.3.1.2 to 2.3.1.4). The entry is torn if nothing is wrong with it
// but that data sectors are not there yet.
func decodePieces(p []byte, count int, data []byte, sequence uint64) (pieces []piece, ok, torn bool) {
	pieces = make([]piece, 0, count)
	for i := range count {
		d := p[entryHeaderLength+descriptorLength*i:][:descriptorLength]
		offset := le.Uint64(d[16:])
		if offset%sectorLength != 0 || offset >= maxFile || le.Uint64(d[24:]) != sequence {
			return nil, false, false
		}
		switch string(d[:4]) {
		case "zero":
			length := le.Uint64(d[8:])
			if length%sectorLength != 0 || length > maxFile {
				return nil, false, false
			}
			pieces = append(pieces, piece{offset: int64(offset), length: int64(length)})
		case "desc":
			if len(data) < sectorLength {
				return nil, false, false
			}
			s := data[:sectorLength]
			data = data[sectorLength:]
			torn = torn || string(s[:4]) != "data" || le.Uint32(s[4:]) != uint32(sequence>>32) || le.Uint32(s[sectorLength-4:]) != uint32(sequence)
			whole := append(append(append(make([]byte, 0, sectorLength), d[8:16]...), s[8:sectorLength-4]...), d[4:8]...)
			pieces = append(pieces, piece{int64(offset), sectorLength, whole})
		default:
			return nil, false, false
		}
	}
	return pieces, !torn && len(data) == 0, torn && len(data) == 0
}

// placed is an entry and where it is in the log.
type placed struct {
	logEntry
	offset int
}

// active returns the active sequence, from its tail on (MS-VHDX 2.3.3): what is to
// be replayed.
func (r *ring) active() []placed {
	var best []placed
	for off := 0; off < len(r.data); {
		var run []placed
		at, length := off, 0
		for {
			e, ok := r.entry(at)
			if !ok || len(run) > 0 && e.sequence != run[len(run)-1].sequence+1 || length+int(e.length) > len(r.data) {
				break
			}
			run = append(run, placed{e, at})
			length += int(e.length)
			at = (at + int(e.length)) % len(r.data)
		}
		if len(run) == 0 {
			off += sectorLength
			continue
		}
		off += length
		head := run[len(run)-1]
		for i := range run {
			if run[i].offset == int(head.tail) && (best == nil || head.sequence > best[len(best)-1].sequence) {
				best = run[i:]
				break
			}
		}
	}
	return best
}

// readLog returns what the log of a file says is still to be written, and the length
// in bytes that the file is to have then.
func readLog(ctx context.Context, v *view, h header) (pieces []piece, size int64, err error) {
	if h.log == (disk.GUID{}) {
		return nil, v.size, nil
	}
	r := ring{data: make([]byte, h.logLength), log: h.log, budget: 64 * int64(h.logLength)}
	if err := v.readAt(ctx, r.data, int64(h.logOffset)); err != nil {
		return nil, 0, err
	}
	sequence := r.active()
	switch {
	case r.budget < 0:
		return nil, 0, bad("the log has entries that overlap each other")
	case len(sequence) == 0 && !r.damaged:
		// There are programs that name the log in the header before they write its
		// first entry, sector by sector. This is what a crash leaves: MS-VHDX 2.3.3
		// would have such a file refused, but nothing of it has been changed yet.
		return nil, v.size, nil
	case len(sequence) == 0:
		return nil, 0, bad("the log is damaged: it is in use, but has no valid sequence of entries")
	}
	head := sequence[len(sequence)-1]
	if head.flushed > uint64(v.size) {
		return nil, 0, bad("the file was truncated: it has %d bytes, and had %d when its log was written", v.size, head.flushed)
	}
	if head.last > maxFile {
		return nil, 0, bad("the log wants a file of %d bytes", head.last)
	}
	size = max(v.size, int64(head.last))
	for _, e := range sequence {
		for _, p := range e.pieces {
			if err := checkPiece(p, h); err != nil {
				return nil, 0, err
			}
			size = max(size, p.end())
			pieces = append(pieces, p)
		}
	}
	return pieces, size, nil
}

// checkPiece checks that an update is one of metadata that the log is for: not of
// the headers, and not of the log itself. It may make the file longer.
func checkPiece(p piece, h header) error {
	log := region{int64(h.logOffset), int64(h.logLength)}
	switch {
	case p.end() > maxFile:
		return bad("the log wants a file of %d bytes", p.end())
	case p.length > 0 && (p.offset < regionTableAt(0) || p.offset < log.offset+log.length && log.offset < p.end()):
		return bad("the log writes to %d, which is not written through the log", p.offset)
	}
	return nil
}
