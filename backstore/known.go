package backstore

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"

	"odx/backstore/extent"
	"odx/blockdev"
)

// checkRuns returns ErrInvalid if runs do not lie one after the other, or are not what
// Runs gives, and their length.
func checkRuns(runs []Run) (length int64, err error) {
	for i := range runs {
		r := &runs[i]
		if r.Off != runs[0].Off+length || r.Length <= 0 {
			return 0, fmt.Errorf("%w: run %d of %d bytes at %d does not follow the one before it", ErrInvalid, i, r.Length, r.Off)
		}
		if r.Named() && (r.Hole || len(r.CRC) != len(r.Slots) || r.Length != int64(len(r.Slots))*BlockLength) {
			return 0, fmt.Errorf("%w: run of %d bytes has %d names and %d checksums", ErrInvalid, r.Length, len(r.Slots), len(r.CRC))
		}
		if length += r.Length; length < 0 {
			return 0, fmt.Errorf("%w: the lengths of runs overflow", ErrInvalid)
		}
	}
	return length, nil
}

// appendRange adds a range to ranges in order, and joins it to the last one if it touches
// it.
func appendRange(ranges []Range, r Range) []Range {
	if n := len(ranges); n > 0 && ranges[n-1].End() == r.Offset {
		ranges[n-1].Length += r.Length
		return ranges
	}
	return append(ranges, r)
}

// MapKnown makes the volume equal, from byte off on, to runs of the store with the
// identity from, where this store has their data, and returns the ranges of the volume
// that it has not. Holes become holes. Runs follow each other; the first one goes to off.
// It takes effect in steps of at most 1 MiB, and stops, with what is left as missing, when
// ctx asks it to (blockdev.Late); after an error some of them may have been done.
//
// A block is mapped only if it has been written with the same name by WriteKnown, its data
// is still there, and its checksum is the one that the run gives. A name stands for one
// content for ever (Run), so no data is wrong unless the other store lies, which could
// send wrong bytes as well; the checksum is there for a table that is damaged in a way
// that its own checksums do not show.
func (v *Volume) MapKnown(ctx context.Context, from [16]byte, off int64, runs []Run) (missing []Range, err error) {
	length, err := checkRuns(runs)
	if err != nil || length == 0 {
		return nil, err
	}
	if err := v.checkWritable(); err != nil {
		return nil, err
	}
	v.mu.RLock()
	err = v.checkRange(off, length)
	v.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	m := knownMapping{v: v, ctx: ctx}
	if m.number, err = v.store.parts.known.Number(from); err != nil {
		return nil, err
	}
	for i := range runs {
		at := off + runs[i].Off - runs[0].Off
		if i > 0 && blockdev.Late(ctx) {
			m.miss(at, off+length-at)
			break
		}
		if err := m.run(at, &runs[i]); err != nil {
			return nil, err
		}
	}
	return m.missing, nil
}

// knownMapping is one MapKnown.
type knownMapping struct {
	v       *Volume
	names   *naming // of what it maps, if those are to be known from then on
	ctx     context.Context
	number  uint16 // of the other store in the table; 0: the table has none of its names
	missing []Range
	local   [MaxRunBlocks]extent.Slot
}

func (m *knownMapping) miss(off, length int64) {
	m.missing = appendRange(m.missing, Range{Offset: off, Length: length})
}

// run maps what is known of a run that goes to byte at.
func (m *knownMapping) run(at int64, r *Run) error {
	if r.Hole {
		return m.v.Zero(m.ctx, at, r.Length)
	}
	if m.number == 0 || !r.Named() || at%BlockLength != 0 {
		m.miss(at, r.Length)
		return nil
	}
	for slots, crc := r.Slots, r.CRC; len(slots) > 0; {
		n := min(len(slots), MaxRunBlocks)
		if err := m.v.store.parts.known.Find(m.number, r.Series, slots[:n], m.local[:n]); err != nil {
			return err
		}
		if err := m.blocks(at, m.local[:n], crc); err != nil {
			return err
		}
		slots, crc, at = slots[n:], crc[n:], at+int64(n)*BlockLength
	}
	return nil
}

// blocks maps blocks from byte at on to those of the slots that are not 0.
func (m *knownMapping) blocks(at int64, slots []extent.Slot, crc []uint32) error {
	for i := 0; i < len(slots); {
		n := 1
		for i+n < len(slots) && (slots[i+n] == 0) == (slots[i] == 0) && (slots[i] == 0 || n < planBlocks) {
			n++
		}
		to := at + int64(i)*BlockLength
		if slots[i] == 0 {
			m.miss(to, int64(n)*BlockLength)
			i += n
			continue
		}
		done := 0
		err := m.v.changeWatched(m.ctx, uint64(to/BlockLength), uint64(n), func() (err error) {
			done, err = m.v.mapClaimed(m.ctx, to, slots[i:i+n], crc[i:i+n], m.names)
			return err
		})
		if err != nil {
			return err
		}
		if i += done; done < n { // the next one is not there any more
			m.miss(to+int64(done)*BlockLength, BlockLength)
			i++
		}
	}
	return nil
}

// mapClaimed maps blocks from byte off on to slots, at most planBlocks, as far as they name
// blocks that are live and have the checksums. It returns how many it did.
func (v *Volume) mapClaimed(ctx context.Context, off int64, slots []extent.Slot, crc []uint32, names *naming) (done int, err error) {
	s := v.store
	plan := s.writer.newPlan()
	defer func() {
		// Without pins there is nothing to unpin, and so no error.
		err = errors.Join(err, s.writer.discard(plan))
	}()
	rec := &plan.rec
	rec.Volume, rec.Block, rec.Blocks, rec.Fresh, rec.Inline = v.number, uint64(off/BlockLength), len(slots), rec.Fresh[:0], nil
	plan.pinned = plan.pinned[:0]
	copy(rec.Slots[:], slots)
	copy(rec.Known[:], slots)
	rec.Build()
	op, err := s.begin(ctx, rec)
	if err != nil {
		return 0, err
	}
	defer op.End()
	v.mu.Lock()
	defer v.mu.Unlock()
	// The last block of a volume may reach beyond its size.
	if err := v.admit(ctx, off, min(int64(len(slots))*BlockLength, v.size-off)); err != nil {
		return 0, err
	}
	if err := v.watched.check(rec.Block, uint64(len(slots))); err != nil {
		return 0, err
	}
	if err := s.parts.forest.TouchSet(v.root, rec.Block, uint64(len(slots))); err != nil {
		return 0, s.life.unread(v.String(), off, err)
	}
	claimed := rec.Known[:len(slots)]
	err = s.parts.extents.Claim(claimed, crc)
	if err == nil {
		done = claimedFirst(claimed)
	}
	// The rows were read to claim them.
	if err := s.parts.extents.Unref(claimed[done:]); err != nil {
		return 0, s.life.fail(err)
	}
	if err != nil || done == 0 {
		return 0, err
	}
	if err := s.parts.forest.Set(&v.root, rec.Block, claimed[:done]); err != nil {
		return 0, s.life.fail(err)
	}
	if done < len(slots) {
		rec.Blocks = done
		rec.Build()
		op.revise(rec)
	}
	v.commit(&op, rec.Block, uint64(done))
	if names != nil {
		names.add(s, off, claimed[:done])
	}
	return done, nil
}

// claimedFirst returns how many slots at the beginning are not 0.
func claimedFirst(slots []extent.Slot) int {
	for i, slot := range slots {
		if slot == 0 {
			return i
		}
	}
	return len(slots)
}

// WriteKnown is WriteAt of the bytes of runs of the store with the identity from, whose
// names this store then knows for MapKnown. Before anything is written, the checksums of
// the runs are compared with p: ErrCorrupt. Runs follow each other; the first one goes to
// off; together they are as long as p.
func (v *Volume) WriteKnown(ctx context.Context, from [16]byte, p []byte, off int64, runs []Run) error {
	length, err := checkRuns(runs)
	if err != nil {
		return err
	}
	if length != int64(len(p)) {
		return fmt.Errorf("%w: runs of %d bytes for %d bytes", ErrInvalid, length, len(p))
	}
	data := p
	for i := range runs {
		for k, want := range runs[i].CRC {
			if crc32.Checksum(data[k*BlockLength:(k+1)*BlockLength], castagnoli) != want {
				return fmt.Errorf("%w: block at byte %d of what another store sent: %w", ErrCorrupt, runs[i].Off+int64(k)*BlockLength, errCRC)
			}
		}
		data = data[runs[i].Length:]
	}
	return v.write(ctx, p, off, &naming{from: from, off: off, runs: runs, sums: sumsOf(off, runs)})
}

// sumsOf returns the checksums of the blocks that runs, which go to byte off, make; nil unless
// the runs have those of all.
func sumsOf(off int64, runs []Run) (sums []uint32) {
	for i := range runs {
		if off%BlockLength != 0 || !runs[i].Named() {
			return nil
		}
	}
	if len(runs) == 1 {
		return runs[0].CRC
	}
	for i := range runs {
		sums = append(sums, runs[i].CRC...)
	}
	return sums
}

// naming is the names of what is written, for the table of known names.
type naming struct {
	from [16]byte
	off  int64 // where the first run goes
	runs []Run
	// sums, if they are there, are the checksums of the blocks from off on, which were compared
	// with the data: they are not computed again.
	sums []uint32
}

// sumsAt returns the checksums from byte off on, nil for none.
func (n *naming) sumsAt(off int64) []uint32 {
	if n == nil || n.sums == nil {
		return nil
	}
	return n.sums[(off-n.off)/BlockLength:]
}

// add adds the names of blocks from byte off on, which were just put into a map as slots,
// within the operation that did it.
func (n *naming) add(s *Store, off int64, slots []extent.Slot) {
	end := off + int64(len(slots))*BlockLength
	for i := range n.runs {
		r := &n.runs[i]
		first := n.off + r.Off - n.runs[0].Off
		lo, hi := max(off, first), min(end, first+r.Length)
		if !r.Named() || lo >= hi || (lo-first)%BlockLength != 0 || (lo-off)%BlockLength != 0 {
			continue
		}
		names := r.Slots[(lo-first)/BlockLength : (hi-first)/BlockLength]
		s.names.add(n.from, r.Series, names, slots[(lo-off)/BlockLength:])
	}
}
