package backstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/known"
	"odx/backstore/meta"
	"odx/backstore/segment"
)

// maxFindings bounds what Check returns.
const maxFindings = 1000

// Check proves every reference count of the store from its maps, and that every
// extent has a place of its own in a segment that is there. It returns what is
// wrong, nothing for a store that is sound; the last finding counts those beyond
// 1000. It looks at a checkpoint that it makes, so operations continue.
// It does not read the data. Of a store that is open for reading alone it also
// returns the damage that was met.
func (s *Store) Check(ctx context.Context) (findings []string, err error) {
	if err := s.life.usable(); err != nil {
		return nil, err
	}
	if err := s.maySee(ctx); err != nil {
		return nil, err
	}
	more := 0
	report := func(finding string) {
		if len(findings) < maxFindings {
			findings = append(findings, finding)
		} else {
			more++
		}
	}
	if s.opts.ReadOnly {
		more = s.reportDamage(report)
	}
	removed, err := s.removedSegments()
	if err != nil {
		return nil, err
	}
	for _, id := range removed {
		report(s.removedText(id) + "; before that, run odx store scrub, which moves it to another segment")
	}
	err = s.viewCheckpoint(ctx, func(kv meta.Reader) error { return s.audit(ctx, kv, report) })
	if more > 0 {
		findings = append(findings, fmt.Sprintf("and %d more", more))
	}
	return findings, err
}

// reportDamage reports what a store that is only read was opened in spite of: what
// is left can be free of contradictions all the same.
func (s *Store) reportDamage(report func(finding string)) (more int) {
	found, more := s.Damage()
	for _, d := range found {
		report(fmt.Sprintf("%s: %s", d.What, d.Error))
	}
	return more
}

// viewCheckpoint makes a checkpoint and calls fn with the metadata as of it.
func (s *Store) viewCheckpoint(ctx context.Context, fn func(meta.Reader) error) error {
	s.auditMu.Lock()
	s.checkpoints.running.Lock()
	release := sync.OnceFunc(func() {
		s.checkpoints.running.Unlock()
		s.auditMu.Unlock()
	})
	defer release()
	if s.parts.journal != nil { // else it is damaged, and the store is only read
		if err := s.checkpoint(ctx); err != nil {
			return err
		}
	}
	return s.parts.kv.View(func(kv meta.Reader) error {
		release()
		return fn(s.opts.tuning.viewed(kv))
	})
}

// audit reports what contradicts itself in the metadata of a checkpoint.
func (s *Store) audit(ctx context.Context, kv meta.Reader, report func(finding string)) error {
	st, err := readState(kv)
	if err != nil {
		return err
	}
	roots, err := s.storedRoots(kv)
	if err != nil {
		return err
	}
	if err := blockmap.Audit(ctx, kv, roots, st.Dropped, report); err != nil {
		return err
	}
	places := placeAudit{store: s, segments: make(map[segment.ID]*segmentAudit), report: report}
	err = extent.Audit(ctx, extent.AuditOptions{
		KV: kv, Unit: s.parts.sb.Unit, Next: st.NextExtent, Pinned: st.Pinned, Visit: places.visit,
		EachLeaf: func(fn func(slots []extent.Slot)) error { return blockmap.EachLeaf(ctx, kv, fn) },
	}, report)
	if err != nil {
		return err
	}
	if err := places.missing(); err != nil {
		return err
	}
	return known.Audit(ctx, kv, st.NextExtent.Slot(s.parts.sb.Unit, 0), report)
}

// storedRoots returns the trees of all volumes and snapshots.
func (s *Store) storedRoots(kv meta.Reader) ([]blockmap.Root, error) {
	var roots []blockmap.Root
	err := s.scanTables(kv,
		func(v *Volume) { roots = append(roots, v.root) },
		func(st *snapshotState) { roots = append(roots, st.root) })
	return roots, err
}

// placeAudit proves that extents lie in segments, each in a place of its own.
type placeAudit struct {
	store    *Store
	segments map[segment.ID]*segmentAudit
	report   func(finding string)
}

// segmentAudit is what is known of one segment.
type segmentAudit struct {
	blocks int64       // length of the file, header included; 0 when it cannot be opened
	taken  []uint64    // bit for each block that an extent has
	lost   []extent.ID // extents in a segment that cannot be opened
	lent   bool        // by another store: extents that were adopted twice share their place
}

// visit looks at the place of an extent.
func (a *placeAudit) visit(id extent.ID, x *extent.Extent) {
	sa := a.segments[x.Addr.Segment]
	if sa == nil {
		sa = &segmentAudit{blocks: a.store.parts.segments.FileBytes(x.Addr.Segment) / BlockLength}
		sa.lent = a.store.aliases.is(x.Addr.Segment)
		sa.taken = make([]uint64, (sa.blocks+63)/64)
		a.segments[x.Addr.Segment] = sa
	}
	if sa.blocks == 0 {
		sa.lost = append(sa.lost, id)
		return
	}
	first, end := int64(x.Addr.Block), int64(x.Addr.Block)+int64(x.Blocks)
	if first == 0 || end > sa.blocks {
		a.report(fmt.Sprintf("extent %d has %d blocks at %v, which has %d", id, x.Blocks, x.Addr, sa.blocks))
		return
	}
	for b := first; b < end; b++ {
		if sa.taken[b/64]&(1<<(b%64)) != 0 && !sa.lent {
			a.report(fmt.Sprintf("extent %d lies on another extent at %v", id, x.Addr))
			return
		}
		sa.taken[b/64] |= 1 << (b % 64)
	}
}

// missing reports the segments that cannot be opened, as far as extents still
// lie in them: one that was emptied after the checkpoint is no loss.
func (a *placeAudit) missing() error {
	for _, seg := range slices.Sorted(maps.Keys(a.segments)) {
		extents := 0
		for _, id := range a.segments[seg].lost {
			x, ok, err := a.store.parts.extents.Get(id)
			if err != nil {
				return err
			}
			if ok && x.Addr.Segment == seg {
				extents++
			}
		}
		if extents > 0 {
			a.report(fmt.Sprintf("segment %08x is missing or is no segment of this store; %d extents lie in it", uint32(seg), extents))
		}
	}
	return nil
}
