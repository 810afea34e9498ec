package backstore

import (
	"bytes"
	"hash/crc32"

	"odx/backstore/extent"
	"odx/backstore/fingerprint"
	"odx/backstore/invariant"
	"odx/backstore/segment"
)

const (
	// planBlocks is the largest part of a write that takes effect in one step.
	planBlocks = 256
	// inlineBytes is the most new data that a journal record carries itself.
	// Larger writes are made durable by syncing their segment.
	inlineBytes = 32 << 10
	// inlineWindow is how many bytes may have been written since the last flush
	// for records to carry data: a client that flushes often waits for one
	// sync then, while one that does not would only have its data written twice.
	inlineWindow = 1 << 20
)

// writePlan is one write on its way into the store: first it finds duplicates
// and stores what is new, without a lock; then apply puts its slots into a map.
type writePlan struct {
	held    invariant.Held
	rec     writeRecord // what it comes to
	pinned  []extent.ID
	floor   segment.ID
	holding bool // floor is registered
	// deduplicate: its new data is looked up, and found later.
	deduplicate bool
}

var zeroBlock [BlockLength]byte

func isZero(p []byte) bool { return p[0] == 0 && bytes.Equal(p, zeroBlock[:len(p)]) }

func (s *Store) newPlan() *writePlan {
	p, _ := s.plans.Get().(*writePlan)
	if p == nil {
		p = &writePlan{}
	}
	p.held.Take()
	return p
}

// prepare looks for duplicates in data, whole blocks to be written at block of
// a volume, and stores what is new. After an error or when the plan is not
// applied, the caller calls discard.
func (s *Store) prepare(p *writePlan, v *Volume, block uint64, data []byte) error {
	p.rec.volume, p.rec.block, p.rec.blocks = v.number, block, len(data)/BlockLength
	p.deduplicate = !s.opts.StoreDuplicates && !v.storeDuplicates.Load()
	clear(p.rec.slots[:p.rec.blocks])
	clear(p.rec.known[:p.rec.blocks])
	p.rec.fresh, p.pinned, p.rec.inline = p.rec.fresh[:0], p.pinned[:0], nil
	p.floor = s.appendFloor()
	s.appends.begin(p.floor)
	p.holding = true

	s.cut(p, block, data)
	if p.deduplicate {
		s.fingerprint(p, data)
		if err := s.findKnown(p); err != nil {
			return err
		}
	}
	p.checksum(data)
	if err := s.storeFresh(p, data); err != nil {
		return err
	}
	p.rec.build()
	return nil
}

// appendFloor returns the lowest segment that an append can go to from now on.
func (s *Store) appendFloor() segment.ID {
	if id, ok := s.segments.Current(); ok {
		return id
	}
	return s.segments.NextID()
}

// cut makes extents of the data, all of them fresh until they are looked up.
func (s *Store) cut(p *writePlan, block uint64, data []byte) {
	for i := 0; i < p.rec.blocks; {
		n := s.unitRun(block, i, p.rec.blocks, data)
		if n == 0 {
			i++
			continue
		}
		x := freshExtent{at: i}
		x.Blocks = uint8(n)
		p.rec.fresh = append(p.rec.fresh, x)
		i += n
	}
}

// unitRun returns how many blocks from i on make an extent: up to the end of
// the dedup unit, counted from the start of the volume so that equal images
// are cut alike, without blocks of zeros. It is 0 when block i is zeros.
func (s *Store) unitRun(block uint64, i, end int, data []byte) int {
	unit := s.sb.Unit
	end = min(end, i+unit-int((block+uint64(i))%uint64(unit)))
	n := 0
	for i+n < end && !isZero(data[(i+n)*BlockLength:(i+n+1)*BlockLength]) {
		n++
	}
	return n
}

// fingerprint computes the fingerprints of the fresh extents.
func (s *Store) fingerprint(p *writePlan, data []byte) {
	batch := s.fingerprints.Batch()
	for i := range p.rec.fresh {
		x := &p.rec.fresh[i]
		batch.Add((*[fingerprint.Size]byte)(&x.Fingerprint), x.of(data))
	}
	batch.Flush()
}

// findKnown looks the fresh extents up: what the table has is fresh no more.
func (s *Store) findKnown(p *writePlan) error {
	fresh := p.rec.fresh[:0]
	for i := range p.rec.fresh {
		known, err := s.find(p, &p.rec.fresh[i])
		if err != nil {
			return err
		}
		if !known {
			fresh = append(fresh, p.rec.fresh[i])
		}
	}
	p.rec.fresh = fresh
	return nil
}

// find makes the blocks of x those of a known extent, if there is one.
func (s *Store) find(p *writePlan, x *freshExtent) (known bool, err error) {
	id := s.index.Lookup(&x.Fingerprint)
	if id == 0 {
		return false, nil
	}
	known, err = s.extents.Pin(id, &x.Fingerprint, int(x.Blocks))
	if metadataDamage(err) {
		return false, nil // it cannot stand for anything
	}
	if err != nil || !known {
		return false, err
	}
	p.pinned = append(p.pinned, id)
	for k := range int(x.Blocks) {
		slot := s.extents.Slot(id, k)
		p.rec.slots[x.at+k], p.rec.known[x.at+k] = slot, slot
	}
	return true, nil
}

// checksum computes the checksums of the blocks of the fresh extents.
func (p *writePlan) checksum(data []byte) {
	for i := range p.rec.fresh {
		x := &p.rec.fresh[i]
		for k := range int(x.Blocks) {
			x.CRC[k] = crc32.Checksum(data[(x.at+k)*BlockLength:(x.at+k+1)*BlockLength], castagnoli)
		}
	}
}

// storeFresh appends the data of the fresh extents to the segments, what lies
// together in one piece.
func (s *Store) storeFresh(p *writePlan, data []byte) error {
	if len(p.rec.fresh) == 0 {
		return nil
	}
	if err := s.checkRoom(p); err != nil {
		return err
	}
	p.rec.first = s.extents.Allocate(len(p.rec.fresh))
	appends := 0
	var piece []byte
	for i := 0; i < len(p.rec.fresh); {
		j, end := i, p.rec.fresh[i].at
		for j < len(p.rec.fresh) && p.rec.fresh[j].at == end {
			end += int(p.rec.fresh[j].Blocks)
			j++
		}
		piece = data[p.rec.fresh[i].at*BlockLength : end*BlockLength]
		addr, err := s.segments.Append(piece)
		if err != nil {
			return spaceError(err)
		}
		for ; i < j; i++ {
			x := &p.rec.fresh[i]
			x.Addr = addr
			addr.Block += uint32(x.Blocks)
			for k := range int(x.Blocks) {
				p.rec.slots[x.at+k] = s.extents.Slot(p.rec.first+extent.ID(i), k)
			}
		}
		appends++
	}
	s.disk.Add(int64(len(data)))
	if unflushed := s.unflushed.Add(int64(len(data))); appends == 1 && len(piece) <= inlineBytes && unflushed <= inlineWindow {
		p.rec.inline = piece
	}
	return nil
}

// apply puts the plan into a volume's map. The volume is locked exclusively and
// opMu is shared. Its journal record is appended last.
func (s *Store) apply(op *operation, p *writePlan, v *Volume) error {
	if err := s.touchWrite(v, &p.rec); err != nil {
		return s.unread(v.String(), int64(p.rec.block)*BlockLength, err)
	}
	if err := s.install(v, &p.rec); err != nil {
		return s.fail(err)
	}
	if len(p.rec.fresh) > 0 && p.rec.inline == nil {
		s.segmentDirty.Store(true)
	}
	op.Commit()
	if !p.deduplicate {
		return nil
	}
	for i := range p.rec.fresh {
		// Not before the record is in the journal: others may refer to the
		// extent from now on, and their records must come later.
		s.index.Insert(&p.rec.fresh[i].Fingerprint, p.rec.first+extent.ID(i))
	}
	return nil
}

// discard ends a plan, applied or not. opMu is shared when the plan has pins.
func (s *Store) discard(p *writePlan) error {
	if p.holding {
		s.appends.end(p.floor)
		p.holding = false
	}
	for _, id := range p.pinned {
		if err := s.extents.Unpin(id); err != nil {
			if metadataDamage(err) { // it keeps its space
				s.noteDamage("reference counts of extents", err)
				continue
			}
			return s.fail(err)
		}
	}
	p.pinned, p.rec.inline = p.pinned[:0], nil
	p.held.Return()
	if invariant.Enabled {
		for i := range p.rec.slots {
			p.rec.slots[i], p.rec.known[i] = ^extent.Slot(0), ^extent.Slot(0)
		}
		invariant.Scribble(p.rec.buf.B)
	}
	s.plans.Put(p)
	return nil
}
