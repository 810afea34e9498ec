package backstore

import (
	"context"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
)

// Check proves every reference count of the store from its maps and returns
// what is wrong, nothing for a store that is sound. Other operations wait
// while it runs; it does not read the data.
func (s *Store) Check(ctx context.Context) (findings []string, err error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	s.auditMu.Lock()
	defer s.auditMu.Unlock()
	for {
		if err := s.Checkpoint(ctx); err != nil {
			return nil, err
		}
		s.opMu.Lock()
		if s.dirty() == 0 {
			break
		}
		s.opMu.Unlock()
	}
	defer s.opMu.Unlock()
	s.tableMu.Lock()
	defer s.tableMu.Unlock()
	var roots []blockmap.Root
	for _, v := range s.volumes {
		roots = append(roots, v.root)
	}
	for _, st := range s.snapshots {
		roots = append(roots, st.root)
	}
	report := func(finding string) { findings = append(findings, finding) }
	refs := make(map[extent.ID]uint64)
	err = s.forest.Audit(s.kv, roots, func(slots []extent.Slot) {
		for _, slot := range slots {
			if slot != 0 {
				id, _ := s.extents.Split(slot)
				refs[id]++
			}
		}
	}, report)
	if err != nil {
		return findings, err
	}
	return findings, s.extents.Audit(refs, report)
}
