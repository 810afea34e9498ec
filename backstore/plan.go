package backstore

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore/blockmap"
	"odx/backstore/damage"
	"odx/backstore/dedup"
	"odx/backstore/extent"
	"odx/backstore/fingerprint"
	"odx/backstore/invariant"
	"odx/backstore/record"
	"odx/backstore/segment"
)

// writer stores new data: it finds duplicates, appends the rest to segments, and installs
// what a record says in maps and tables.
type writer struct {
	parts   *parts
	opts    *Options
	log     *logrus.Entry
	life    *life
	damage  *damage.Log
	space   *space
	durable *syncer

	plans   sync.Pool // of *writePlan
	appends appendFloors
	index   *dedup.Index
	// indexLoaded is closed when the index knows what the last checkpoint has.
	indexLoaded chan struct{}
}

const (
	// planBlocks is the largest part of a write that takes effect in one step.
	planBlocks = record.MaxBlocks
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
	rec     record.Write // what it comes to
	pinned  []extent.ID
	floor   segment.ID
	holding bool // floor is registered
	// deduplicate: its new data is looked up, and found later.
	deduplicate bool
	// sums are the checksums of its blocks, if the caller has them; the next plan has none.
	sums []uint32
}

var zeroBlock [BlockLength]byte

func isZero(p []byte) bool { return p[0] == 0 && bytes.Equal(p, zeroBlock[:len(p)]) }

func (w *writer) newPlan() *writePlan {
	p, _ := w.plans.Get().(*writePlan)
	if p == nil {
		p = &writePlan{}
	}
	p.held.Take()
	return p
}

// prepare looks for duplicates in data, whole blocks to be written at block of
// a volume, and stores what is new. After an error or when the plan is not
// applied, the caller calls discard.
func (w *writer) prepare(p *writePlan, block uint64, data []byte) error {
	p.rec.Block, p.rec.Blocks = block, len(data)/BlockLength
	clear(p.rec.Slots[:p.rec.Blocks])
	clear(p.rec.Known[:p.rec.Blocks])
	p.rec.Fresh, p.pinned, p.rec.Inline = p.rec.Fresh[:0], p.pinned[:0], nil
	p.floor = w.floor()
	w.appends.begin(p.floor)
	p.holding = true

	w.split(p, block, data)
	if p.deduplicate {
		w.fingerprint(p, data)
		if err := w.findKnown(p); err != nil {
			return err
		}
	}
	p.checksum(data)
	if err := w.storeFresh(p, data); err != nil {
		return err
	}
	p.rec.Build()
	return nil
}

// floor returns the lowest segment that an append can go to from now on.
func (w *writer) floor() segment.ID {
	if id, ok := w.parts.segments.Current(); ok {
		return id
	}
	return w.parts.segments.NextID()
}

// split makes extents of the data, all of them fresh until they are looked up.
func (w *writer) split(p *writePlan, block uint64, data []byte) {
	for i := 0; i < p.rec.Blocks; {
		n := w.unitRun(block, i, p.rec.Blocks, data)
		if n == 0 {
			i++
			continue
		}
		x := record.FreshExtent{At: i}
		x.Blocks = uint8(n)
		p.rec.Fresh = append(p.rec.Fresh, x)
		i += n
	}
}

// unitRun returns how many blocks from i on make an extent: up to the end of
// the dedup unit, counted from the start of the volume so that equal images
// are split alike, without blocks of zeros. It is 0 when block i is zeros.
func (w *writer) unitRun(block uint64, i, end int, data []byte) int {
	unit := w.parts.sb.Unit
	end = min(end, i+unit-int((block+uint64(i))%uint64(unit)))
	n := 0
	for i+n < end && !isZero(data[(i+n)*BlockLength:(i+n+1)*BlockLength]) {
		n++
	}
	return n
}

// fingerprint computes the fingerprints of the fresh extents.
func (w *writer) fingerprint(p *writePlan, data []byte) {
	batch := w.parts.fingerprints.Batch()
	for i := range p.rec.Fresh {
		x := &p.rec.Fresh[i]
		batch.Add((*[fingerprint.Size]byte)(&x.Fingerprint), x.Of(data))
	}
	batch.Flush()
}

// findKnown looks the fresh extents up: what the table has is fresh no more.
func (w *writer) findKnown(p *writePlan) error {
	fresh := p.rec.Fresh[:0]
	for i := range p.rec.Fresh {
		known, err := w.find(p, &p.rec.Fresh[i])
		if err != nil {
			return err
		}
		if !known {
			fresh = append(fresh, p.rec.Fresh[i])
		}
	}
	p.rec.Fresh = fresh
	return nil
}

// find makes the blocks of x those of a known extent, if there is one.
func (w *writer) find(p *writePlan, x *record.FreshExtent) (known bool, err error) {
	id := w.index.Lookup(&x.Fingerprint)
	if id == 0 {
		return false, nil
	}
	known, err = w.parts.extents.Pin(id, &x.Fingerprint, int(x.Blocks))
	if metadataDamage(err) {
		return false, nil // it cannot stand for anything
	}
	if err != nil || !known {
		return false, err
	}
	p.pinned = append(p.pinned, id)
	for k := range int(x.Blocks) {
		slot := w.parts.extents.Slot(id, k)
		p.rec.Slots[x.At+k], p.rec.Known[x.At+k] = slot, slot
	}
	return true, nil
}

// checksum sets the checksums of the blocks of the fresh extents, and computes those that the
// caller has not.
func (p *writePlan) checksum(data []byte) {
	for i := range p.rec.Fresh {
		x := &p.rec.Fresh[i]
		if p.sums != nil {
			copy(x.CRC[:x.Blocks], p.sums[x.At:])
			continue
		}
		for k := range int(x.Blocks) {
			x.CRC[k] = crc32.Checksum(data[(x.At+k)*BlockLength:(x.At+k+1)*BlockLength], castagnoli)
		}
	}
}

// storeFresh appends the data of the fresh extents to the segments, what is
// together in one piece.
func (w *writer) storeFresh(p *writePlan, data []byte) error {
	if len(p.rec.Fresh) == 0 {
		return nil
	}
	if err := w.space.checkRoom(p.fresh()); err != nil {
		return err
	}
	p.rec.First = w.parts.extents.Allocate(len(p.rec.Fresh))
	appends := 0
	var piece []byte
	for i := 0; i < len(p.rec.Fresh); {
		j, end := i, p.rec.Fresh[i].At
		for j < len(p.rec.Fresh) && p.rec.Fresh[j].At == end {
			end += int(p.rec.Fresh[j].Blocks)
			j++
		}
		piece = data[p.rec.Fresh[i].At*BlockLength : end*BlockLength]
		addr, err := w.parts.segments.Append(piece)
		if err != nil {
			return spaceError(err)
		}
		for ; i < j; i++ {
			x := &p.rec.Fresh[i]
			x.Addr = addr
			addr.Block += uint32(x.Blocks)
			for k := range int(x.Blocks) {
				p.rec.Slots[x.At+k] = w.parts.extents.Slot(p.rec.First+extent.ID(i), k)
			}
		}
		appends++
	}
	w.space.disk.Add(int64(len(data)))
	if unflushed := w.durable.unflushed.Add(int64(len(data))); appends == 1 && len(piece) <= inlineBytes && unflushed <= inlineWindow {
		p.rec.Inline = piece
	}
	return nil
}

// put puts the plan into the map of its volume. The volume is locked exclusively and opMu
// is shared, and what the map needs was read by touchWrite.
func (w *writer) put(p *writePlan, root *blockmap.Root) error {
	if err := w.install(root, &p.rec); err != nil {
		return w.life.fail(err)
	}
	if len(p.rec.Fresh) > 0 && p.rec.Inline == nil {
		w.durable.segmentDirty.Store(true)
	}
	return nil
}

// publish lets other writes find the new extents. Not before the record is in the journal:
// the records of those must come later.
func (w *writer) publish(p *writePlan) {
	if !p.deduplicate {
		return
	}
	for i := range p.rec.Fresh {
		w.index.Insert(&p.rec.Fresh[i].Fingerprint, p.rec.First+extent.ID(i))
	}
}

// discard ends a plan, applied or not. opMu is shared when the plan has pins.
func (w *writer) discard(p *writePlan) error {
	if p.holding {
		w.appends.end(p.floor)
		p.holding = false
	}
	for _, id := range p.pinned {
		if err := w.parts.extents.Unpin(id); err != nil {
			if metadataDamage(err) { // it keeps its space
				w.damage.Note("reference counts of extents", err)
				continue
			}
			return w.life.fail(err)
		}
	}
	p.pinned, p.rec.Inline, p.sums = p.pinned[:0], nil, nil
	p.held.Return()
	p.rec.Scribble()
	w.plans.Put(p)
	return nil
}

// touchWrite reads what install needs, so that it does not stop half done.
func (w *writer) touchWrite(root blockmap.Root, r *record.Write) error {
	if err := w.parts.extents.TouchNew(r.First, len(r.Fresh)); err != nil {
		return err
	}
	if err := w.parts.extents.Touch(r.Known[:r.Blocks]); err != nil {
		return err
	}
	return w.parts.forest.TouchSet(root, r.Block, uint64(r.Blocks))
}

// install puts a write into a volume's map.
func (w *writer) install(root *blockmap.Root, r *record.Write) error {
	for i := range r.Fresh {
		if err := w.parts.extents.Create(r.First+extent.ID(i), &r.Fresh[i].Extent); err != nil {
			return err
		}
	}
	if err := w.parts.extents.Ref(r.Known[:r.Blocks]); err != nil {
		return err
	}
	slots := r.Slots[:r.Blocks]
	for i := 0; i < len(slots); {
		n := 1
		for i+n < len(slots) && (slots[i+n] == 0) == (slots[i] == 0) {
			n++
		}
		var err error
		if slots[i] == 0 {
			err = w.parts.forest.Clear(root, r.Block+uint64(i), uint64(n))
		} else {
			err = w.parts.forest.Set(root, r.Block+uint64(i), slots[i:i+n])
		}
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// loadIndex fills the fingerprint index from the extents of the last
// checkpoint, in the background: until it is done, some duplicates are stored
// again.
func (w *writer) loadIndex(ctx context.Context) {
	defer close(w.indexLoaded)
	start, n := time.Now(), 0
	err := w.parts.extents.ScanStored(func(id extent.ID, x *extent.Extent) bool {
		if x.Fingerprint != (extent.Fingerprint{}) {
			w.index.Insert(&x.Fingerprint, id)
			n++
		}
		return ctx.Err() == nil
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		w.log.WithError(err).Warn("fingerprint index is incomplete: duplicates of older data may be stored again")
		return
	}
	w.log.WithFields(logrus.Fields{"extents": n, "took": time.Since(start)}).Debug("fingerprint index loaded")
}

// fresh returns the length of the plan's new data in bytes.
func (p *writePlan) fresh() (bytes int64) {
	for i := range p.rec.Fresh {
		bytes += int64(p.rec.Fresh[i].Blocks) * BlockLength
	}
	return bytes
}
