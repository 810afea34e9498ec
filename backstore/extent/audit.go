package extent

import (
	"context"
	"fmt"
	"sort"

	"odx/backstore/segment"
)

// Audit proves the table against the references that maps hold, while nothing
// changes it and the last checkpoint holds all of it. refs is the number of
// slots that point to each extent.
func (t *Table) Audit(ctx context.Context, refs map[ID]uint64, report func(finding string)) error {
	live := make(map[segment.ID]int64)
	pinned := make(map[ID]bool)
	for _, id := range t.Pinned() {
		pinned[id] = true
	}
	seen := 0
	err := t.ScanStored(func(id ID, count uint64, x *Extent) bool {
		live[x.Addr.Segment] += int64(x.Blocks)
		if want := refs[id]; want != count {
			report(fmt.Sprintf("extent %d has a reference count of %d and %d references", id, count, want))
		}
		if refs[id] > 0 {
			seen++
		}
		if count == 0 && !pinned[id] {
			report(fmt.Sprintf("extent %d is kept, and nothing refers to it", id))
		}
		return ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	if seen != len(refs) {
		report(fmt.Sprintf("maps refer to %d extents that the table does not have", len(refs)-seen))
	}
	t.usage.audit(live, report)
	return nil
}

func (u *Usage) audit(want map[segment.ID]int64, report func(string)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := make(map[segment.ID]bool)
	for id := range want {
		all[id] = true
	}
	for id := range u.segments {
		all[id] = true
	}
	ids := make([]segment.ID, 0, len(all))
	for id := range all {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
	for _, id := range ids {
		got := int64(0)
		if su := u.segments[id]; su != nil {
			got = su.live
		}
		if got != want[id] {
			report(fmt.Sprintf("segment %08x is said to have %d live blocks and has %d", id, got, want[id]))
		}
	}
}
