package backstore

import (
	"context"
	"errors"
	"fmt"

	"odx/backstore/extent"
	"odx/backstore/record"
	"odx/backstore/rows"
	"odx/backstore/segment"
	"odx/blockdev"
)

// Adoption is the use of what another store lends. While it is open no claim ends a hold that it
// may have.
type Adoption struct {
	v     *Volume
	terms Terms
	maker [16]byte
	used  map[segment.ID]segment.ID // aliases by their segments
	asked bool                      // what the maker has lent was not applied as a whole
	owes  bool                      // the maker holds what nothing here needs
}

// BeginAdoption begins the adoption of extents of another store, or returns ErrNoAdoption. The
// caller ends it.
func (v *Volume) BeginAdoption(maker [16]byte) (*Adoption, error) {
	s := v.store
	if err := v.checkWritable(); err != nil {
		return nil, err
	}
	t, err := s.terms()
	if err != nil {
		return nil, err
	}
	a := &s.aliases
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seq++
	a.open[a.seq] = true
	t.Stamp = Stamp{s.Epoch(), a.seq}
	return &Adoption{v: v, terms: t, maker: maker, used: make(map[segment.ID]segment.ID)}, nil
}

// Terms returns what the maker has to know. What it lends by them is to be applied before they are
// asked for again.
func (a *Adoption) Terms() Terms {
	a.owes, a.asked = a.owes || a.asked, true
	return a.terms
}

// End ends the adoption.
func (a *Adoption) End() {
	all := &a.v.store.aliases
	for _, id := range a.used {
		all.unuse(id)
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	delete(all.open, a.terms.Stamp.Seq)
	if a.owes || a.asked {
		all.owe(a.maker)
	}
}

// Apply makes the volume equal, from byte off on, to a range that the maker has lent, without
// moving data, and returns how many bytes it has dealt with, from the first one on, and which
// ranges of the volume of those are missing, because they were not lent as extents. It takes
// effect in steps of at most 1 MiB, and stops when ctx asks it to (blockdev.Late).
//
// Data is not read: that it has the fingerprints and checksums that the maker says is proved when
// it is.
func (a *Adoption) Apply(ctx context.Context, off int64, loan Loan) (done int64, missing []Range, err error) {
	length, err := checkLoan(loan, a.v.store.parts.sb.Unit)
	if err != nil || length == 0 {
		return 0, nil, err
	}
	if err := a.v.checkWritable(); err != nil {
		return 0, nil, err
	}
	a.v.mu.RLock()
	err = a.v.checkRange(off, length)
	a.v.mu.RUnlock()
	if err != nil {
		return 0, nil, err
	}
	select { // what the last checkpoint has is found then
	case <-a.v.store.writer.indexLoaded:
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
	run := applying{Adoption: a, ctx: ctx, at: off, place: loan.Place}
	for i := range loan.Parts {
		if err := run.part(&loan.Parts[i]); err == errLate {
			return run.at - off, run.missing, nil
		} else if err != nil {
			return run.at - off, run.missing, errors.Join(err, run.discard())
		}
	}
	if err := run.flush(); err != nil {
		return run.at - off, run.missing, err
	}
	a.owes, a.asked = a.owes || run.unused(loan), false
	return length, run.missing, nil
}

// unused reports whether a segment was lent that nothing here has an alias of.
func (r *applying) unused(loan Loan) bool {
	all := &r.v.store.aliases
	all.mu.Lock()
	defer all.mu.Unlock()
	for i := range loan.Parts {
		if id := segment.ID(loan.Parts[i].Segment); id != 0 && all.current[r.row(id)] == 0 {
			return true
		}
	}
	return false
}

// checkLoan returns ErrInvalid for parts that Lend does not give, and their length.
func checkLoan(l Loan, unit int) (length int64, err error) {
	if len(l.Place) > rows.MaxPlace {
		return 0, fmt.Errorf("%w: place of %d bytes", ErrInvalid, len(l.Place))
	}
	for i := range l.Parts {
		p := &l.Parts[i]
		if p.Off != l.Parts[0].Off+length || p.Length <= 0 || p.Length > MaxLend {
			return 0, fmt.Errorf("%w: part %d of %d bytes at %d does not follow the one before it", ErrInvalid, i, p.Length, p.Off)
		}
		length += p.Length
		blocks := 0
		for k := range p.Extents {
			n := len(p.Extents[k].CRC)
			if n == 0 || n > unit {
				return 0, fmt.Errorf("%w: extent of %d blocks", ErrInvalid, n)
			}
			blocks += n
		}
		bad := p.Hole && p.Segment != 0 || (p.Segment != 0) != (blocks > 0)
		if bad || blocks > 0 && (p.Length != int64(blocks)*BlockLength || p.Block == 0 || p.Block+uint32(blocks) < p.Block) {
			return 0, fmt.Errorf("%w: part of %d bytes with %d blocks of segment %08x", ErrInvalid, p.Length, blocks, p.Segment)
		}
	}
	return length, nil
}

// errLate: the time of the command is over.
var errLate = errors.New("late")

// applying is one Apply. Extents that are not in the map yet are in plan, if that is not nil.
type applying struct {
	*Adoption
	ctx     context.Context
	place   string
	at      int64 // in the volume: what comes before it is done, or missing
	missing []Range
	plan    *writePlan
}

// row returns the row of the alias of a segment.
func (r *applying) row(id segment.ID) rows.Alias {
	return rows.Alias{Store: r.maker, Place: r.place, Segment: id}
}

// part deals with a part, which goes to where the last one ends.
func (r *applying) part(p *Lent) error {
	if p.Segment != 0 && r.to()%BlockLength == 0 {
		return r.extents(p)
	}
	if err := r.flush(); err != nil {
		return err
	}
	if p.Hole {
		if err := r.v.Zero(r.ctx, r.at, p.Length); err != nil {
			return err
		}
	} else {
		r.missing = appendRange(r.missing, Range{Offset: r.at, Length: p.Length})
	}
	r.at += p.Length
	return r.late()
}

// to returns where what comes next goes.
func (r *applying) to() int64 {
	if r.plan == nil {
		return r.at
	}
	return r.at + int64(r.plan.rec.Blocks)*BlockLength
}

// late returns errLate if the time is over and something was done.
func (r *applying) late() error {
	if blockdev.Late(r.ctx) {
		return errLate
	}
	return nil
}

// extents adds the extents of a part to the plan.
func (r *applying) extents(p *Lent) error {
	block := p.Block
	for i := range p.Extents {
		x := &p.Extents[i]
		if r.plan != nil && r.plan.rec.Blocks+len(x.CRC) > planBlocks {
			if err := r.flush(); err != nil {
				return err
			}
			if err := r.late(); err != nil {
				return err
			}
		}
		if err := r.add(segment.ID(p.Segment), block, x); err != nil {
			return err
		}
		block += uint32(len(x.CRC))
	}
	return nil
}

// add adds an extent to the plan: one that is here, or a new one where it lies.
func (r *applying) add(id segment.ID, block uint32, x *LentExtent) error {
	if r.plan == nil {
		r.plan = r.v.newPlan()
		r.plan.begin(uint64(r.at / BlockLength))
	}
	plan := r.plan
	n := len(x.CRC)
	fresh := record.FreshExtent{At: plan.rec.Blocks}
	fresh.Blocks, fresh.Fingerprint = uint8(n), x.Fingerprint
	copy(fresh.CRC[:], x.CRC)
	plan.rec.Blocks += n
	clear(plan.rec.Slots[fresh.At:plan.rec.Blocks])
	clear(plan.rec.Known[fresh.At:plan.rec.Blocks])
	if x.Fingerprint != (extent.Fingerprint{}) {
		if known, err := r.v.store.writer.find(plan, &fresh); err != nil || known {
			return err
		}
	}
	alias, err := r.alias(id)
	if err != nil {
		return err
	}
	fresh.Addr = segment.Addr{Segment: alias, Block: block}
	plan.rec.Fresh = append(plan.rec.Fresh, fresh)
	return nil
}

// alias returns the alias of a segment of the maker.
func (r *applying) alias(id segment.ID) (segment.ID, error) {
	if alias, ok := r.used[id]; ok {
		return alias, nil
	}
	if err := r.v.store.share(); err != nil {
		return 0, err
	}
	alias, err := r.v.store.useAlias(r.ctx, r.row(id))
	if err == nil {
		r.used[id] = alias
	}
	return alias, err
}

// flush applies the plan.
func (r *applying) flush() error {
	if r.plan == nil {
		return nil
	}
	plan, s := r.plan, r.v.store
	length := int64(plan.rec.Blocks) * BlockLength
	err := s.space.checkRoom(plan.fresh())
	for errors.Is(err, ErrNoSpace) && s.makeRoom(r.ctx, plan.fresh()) {
		err = s.space.checkRoom(plan.fresh())
	}
	if err == nil {
		s.writer.number(plan)
	}
	r.plan = nil
	if _, err := r.v.applyPrepared(r.ctx, plan, r.at, blocksWrite{}, err); err != nil {
		return err
	}
	r.at += length
	return nil
}

// discard gives up the plan.
func (r *applying) discard() error {
	if r.plan == nil {
		return nil
	}
	plan, s := r.plan, r.v.store
	r.plan = nil
	s.opMu.RLock()
	defer s.opMu.RUnlock()
	return s.writer.discard(plan)
}

// begin makes an empty plan for what goes to a block and after it.
func (p *writePlan) begin(block uint64) {
	p.rec.Block, p.rec.Blocks = block, 0
	p.rec.Fresh, p.pinned, p.rec.Inline = p.rec.Fresh[:0], p.pinned[:0], nil
}

// number gives the fresh extents of a plan their numbers, and the plan its record.
func (w *writer) number(p *writePlan) {
	if n := len(p.rec.Fresh); n > 0 {
		p.rec.First = w.parts.extents.Allocate(n)
	}
	for i := range p.rec.Fresh {
		x := &p.rec.Fresh[i]
		for k := range int(x.Blocks) {
			p.rec.Slots[x.At+k] = w.parts.extents.Slot(p.rec.First+extent.ID(i), k)
		}
	}
	p.rec.Build()
}
