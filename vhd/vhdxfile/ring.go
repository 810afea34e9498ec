package vhdxfile

import (
	"context"
	"hash/crc32"

	"odx/vhd/disk"
)

// ring is the log in a file. It is read in parts, so that a log of any length needs
// little memory.
type ring struct {
	v          *view
	at, length int64 // of the log, in bytes
	log        disk.GUID
	// window is the cached part of the log at windowAt.
	window   []byte
	windowAt int64
	// budget is the remaining number of bytes of entries to read. An attacker can make
	// entries long and start one in every sector: without a budget, a log of 64 MiB
	// would keep a CPU busy for minutes.
	budget int64
	// damaged: a sector has an invalid entry of this log, other than an incomplete
	// one.
	damaged bool
}

const ringWindow = 1 * mib

// newRing returns the log of a file.
func newRing(v *view, h header) *ring {
	length := int64(h.logLength)
	return &ring{
		v: v, at: int64(h.logOffset), length: length, log: h.log, windowAt: -1,
		// Valid entries are read at most twice.
		budget: max(4*length, min(64*length, 4<<30)),
	}
}

// sector returns the sector at an offset of the log, modulo its length. It is valid
// until the next call.
func (r *ring) sector(ctx context.Context, off int64) ([]byte, error) {
	off %= r.length
	if at := off &^ (ringWindow - 1); at != r.windowAt {
		if r.window == nil {
			r.window = make([]byte, min(ringWindow, r.length))
		}
		r.windowAt = -1
		if err := r.v.readAt(ctx, r.window[:min(ringWindow, r.length-at)], r.at+at); err != nil {
			return nil, err
		}
		r.windowAt = at
	}
	return r.window[off-r.windowAt:][:sectorLength], nil
}

// found is an entry in the log.
type found struct {
	length, tail  int64
	sequence      uint64
	flushed, last uint64
	count         int64 // descriptors
	offset        int64 // in the log
}

// heads returns the number of sectors of its header and descriptors.
func (e found) heads() int64 {
	return (entryHeaderLength + descriptorLength*e.count + sectorLength - 1) / sectorLength
}

// entry returns the entry at offset off, if it is valid. Entries that violate MS-VHDX
// 2.3.1, such as torn ones, are not.
func (r *ring) entry(ctx context.Context, off int64) (e found, ok bool, err error) {
	p, err := r.sector(ctx, off)
	if err != nil || string(p[:4]) != "loge" || getGUID(p[32:]) != r.log {
		return found{}, false, err
	}
	e = found{
		length: int64(le.Uint32(p[8:])), tail: int64(le.Uint32(p[12:])), sequence: le.Uint64(p[16:]),
		flushed: le.Uint64(p[48:]), last: le.Uint64(p[56:]), count: int64(le.Uint32(p[24:])), offset: off,
	}
	if e.sequence == 0 || e.length == 0 || e.length%sectorLength != 0 || e.length > r.length ||
		e.tail%sectorLength != 0 || e.heads()*sectorLength > e.length {
		r.damaged = true
		return found{}, false, nil
	}
	if r.budget -= e.length; r.budget < 0 {
		return found{}, false, nil
	}
	ok, torn, err := r.verify(ctx, e)
	r.damaged = r.damaged || !ok && !torn
	return e, ok, err
}

// verify checks a whole entry. It is torn if its only error is that data sectors are
// not written yet (MS-VHDX 2.3.1.4).
func (r *ring) verify(ctx context.Context, e found) (ok, torn bool, err error) {
	var sum, want uint32
	data := int64(0)
	for n := int64(0); n < e.length/sectorLength; n++ {
		p, err := r.sector(ctx, e.offset+n*sectorLength)
		if err != nil {
			return false, false, err
		}
		if n == 0 {
			want = le.Uint32(p[4:])
			sum = crc32.Update(0, castagnoli, p[:4])
			sum = crc32.Update(sum, castagnoli, make([]byte, 4))
			sum = crc32.Update(sum, castagnoli, p[8:])
		} else {
			sum = crc32.Update(sum, castagnoli, p)
		}
		if n >= e.heads() {
			torn = torn || string(p[:4]) != "data" || le.Uint32(p[4:]) != uint32(e.sequence>>32) || le.Uint32(p[sectorLength-4:]) != uint32(e.sequence)
			continue
		}
		for u := range descriptors(p, n, e.count) {
			if !u.valid(e.sequence) {
				return false, false, nil
			}
			if u.isData() {
				data++
			}
		}
	}
	if data != e.length/sectorLength-e.heads() {
		return false, false, nil
	}
	return !torn && sum == want, torn, nil
}

// descriptor is a descriptor of an entry (MS-VHDX 2.3.1.2, 2.3.1.3).
type descriptor []byte

// descriptors iterates over those in sector n of an entry with count of them.
func descriptors(p []byte, n, count int64) func(yield func(descriptor) bool) {
	return func(yield func(descriptor) bool) {
		first := (n*sectorLength - entryHeaderLength) / descriptorLength
		if n == 0 {
			first, p = 0, p[entryHeaderLength:]
		}
		for i := first; i < count && len(p) > 0; i, p = i+1, p[descriptorLength:] {
			if !yield(descriptor(p[:descriptorLength])) {
				return
			}
		}
	}
}

func (d descriptor) isData() bool   { return string(d[:4]) == "desc" }
func (d descriptor) offset() uint64 { return le.Uint64(d[16:]) }
func (d descriptor) length() uint64 { return le.Uint64(d[8:]) } // of zeros

func (d descriptor) valid(sequence uint64) bool {
	if d.offset()%sectorLength != 0 || d.offset() >= maxFile || le.Uint64(d[24:]) != sequence {
		return false
	}
	return d.isData() || string(d[:4]) == "zero" && d.length()%sectorLength == 0 && d.length() <= maxFile
}

// active returns the active sequence from its tail (MS-VHDX 2.3.3), which is to be
// replayed.
func (r *ring) active(ctx context.Context) (best []found, err error) {
	for off := int64(0); off < r.length; {
		var run []found
		at, length := off, int64(0)
		for {
			e, ok, err := r.entry(ctx, at)
			if err != nil {
				return nil, err
			}
			if !ok || len(run) > 0 && e.sequence != run[len(run)-1].sequence+1 || length+e.length > r.length {
				break
			}
			run = append(run, e)
			length += e.length
			at = (at + e.length) % r.length
		}
		if len(run) == 0 {
			off += sectorLength
			continue
		}
		off += length
		head := run[len(run)-1]
		for i := range run {
			if run[i].offset == head.tail && (best == nil || head.sequence > best[len(best)-1].sequence) {
				best = run[i:]
				break
			}
		}
	}
	return best, nil
}

// updates calls fn with the updates of a valid entry.
func (r *ring) updates(ctx context.Context, e found, fn func(update) error) error {
	data := e.offset + e.heads()*sectorLength
	for n := range e.heads() {
		p, err := r.sector(ctx, e.offset+n*sectorLength)
		if err != nil {
			return err
		}
		for d := range descriptors(p, n, e.count) {
			u := update{offset: int64(d.offset())}
			if d.isData() {
				u.length, u.sector = sectorLength, r.at+data%r.length
				copy(u.trail[:], d[4:8])
				copy(u.lead[:], d[8:16])
				data += sectorLength
			} else {
				u.length = int64(d.length())
			}
			if err := fn(u); err != nil {
				return err
			}
		}
	}
	return nil
}
