package backstore

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/segment"
)

// maxFindings bounds what Check tells.
const maxFindings = 1000

// Check proves every reference count of the store from its maps, and that every
// extent has a place of its own in a segment that is there. It returns what is
// wrong, nothing for a store that is sound; the last finding counts those beyond
// 1000. Other operations wait while it runs; it does not read the data.
func (s *Store) Check(ctx context.Context) (findings []string, err error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	s.auditMu.Lock()
	defer s.auditMu.Unlock()
	if err := s.freeze(ctx); err != nil {
		return nil, err
	}
	defer s.opMu.Unlock()
	s.tableMu.Lock()
	defer s.tableMu.Unlock()
	more := 0
	err = s.audit(ctx, func(finding string) {
		if len(findings) < maxFindings {
			findings = append(findings, finding)
		} else {
			more++
		}
	})
	if more > 0 {
		findings = append(findings, fmt.Sprintf("and %d more", more))
	}
	return findings, err
}

// audit reports what contradicts itself in a store that is frozen. tableMu is
// held.
func (s *Store) audit(ctx context.Context, report func(finding string)) error {
	var roots []blockmap.Root
	for _, v := range s.volumes {
		roots = append(roots, v.root)
	}
	for _, st := range s.snapshots {
		roots = append(roots, st.root)
	}
	refs := make(map[extent.ID]uint64)
	err := s.forest.Audit(ctx, s.kv, roots, func(slots []extent.Slot) {
		for _, slot := range slots {
			if slot != 0 {
				id, _ := s.extents.Split(slot)
				refs[id]++
			}
		}
	}, report)
	if err != nil {
		return err
	}
	if err := s.extents.Audit(ctx, refs, report); err != nil {
		return err
	}
	return s.auditSegments(ctx, report)
}

// segmentAudit is what is known of one segment.
type segmentAudit struct {
	blocks  int64    // length of the file, header included; 0 when it cannot be opened
	taken   []uint64 // bit for each block that an extent has
	extents int
}

// auditSegments reports extents that lie outside their segment or on another
// extent, and segments that are missing.
func (s *Store) auditSegments(ctx context.Context, report func(finding string)) error {
	segments := make(map[segment.ID]*segmentAudit)
	err := s.extents.ScanStored(func(id extent.ID, _ uint64, x *extent.Extent) bool {
		a := segments[x.Addr.Segment]
		if a == nil {
			a = &segmentAudit{blocks: s.segments.Bytes(x.Addr.Segment) / BlockLength}
			a.taken = make([]uint64, (a.blocks+63)/64)
			segments[x.Addr.Segment] = a
		}
		a.extents++
		if a.blocks > 0 {
			a.place(id, x, report)
		}
		return ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	for _, id := range slices.Sorted(maps.Keys(segments)) {
		if a := segments[id]; a.blocks == 0 {
			report(fmt.Sprintf("segment %08x is missing or is no segment of this store; %d extents lie in it", uint32(id), a.extents))
		}
	}
	return err
}

// place notes the blocks of an extent.
func (a *segmentAudit) place(id extent.ID, x *extent.Extent, report func(finding string)) {
	first, end := int64(x.Addr.Block), int64(x.Addr.Block)+int64(x.Blocks)
	if first == 0 || end > a.blocks {
		report(fmt.Sprintf("extent %d has %d blocks at %v, which has %d", id, x.Blocks, x.Addr, a.blocks))
		return
	}
	for b := first; b < end; b++ {
		if a.taken[b/64]&(1<<(b%64)) != 0 {
			report(fmt.Sprintf("extent %d lies on another extent at %v", id, x.Addr))
			return
		}
		a.taken[b/64] |= 1 << (b % 64)
	}
}
