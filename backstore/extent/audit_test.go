package extent

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"odx/backstore/meta"
	"odx/backstore/pages"
	"odx/backstore/segment"
)

// TestAudit_Groups audits a table in several groups. Most pages are empty.
func TestAudit_Groups(t *testing.T) {
	const groupIDs = auditLoad * pageExtents
	kv := meta.NewMem()
	u, err := LoadUsage(kv)
	if err != nil {
		t.Fatal(err)
	}
	clock := pages.NewClock()
	table := NewTable(Options{KV: kv, Clock: clock, Unit: testUnit, MaxBytes: 8 << 20, Next: 1, Usage: u})
	ids := []ID{1, 2, 127, 128, 5 * groupIDs / 2, 3*groupIDs - 1, 3 * groupIDs, 7*groupIDs + 5}
	var slots []Slot
	for i, id := range ids {
		x := &Extent{Addr: segment.Addr{Segment: 1, Block: uint32(1 + testUnit*i)}, Blocks: testUnit}
		if err := table.Create(id, x); err != nil {
			t.Fatal(err)
		}
		slots = append(slots, slotsOf(table, id)...)
	}
	// A copy in one group, and references to a part of an extent in another.
	copied := slotsOf(table, 127)
	if err := errors.Join(table.Ref(copied), table.Unref(slots[len(slots)-1:])); err != nil {
		t.Fatal(err)
	}
	slots = append(slots[:len(slots)-1], copied...)
	clock.Tick()
	cut := table.Cut()
	ops := u.Cut()
	if err := encodeParts(cut.Parts(), func(op meta.Op) error { ops = append(ops, op); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := kv.Update(ops); err != nil {
		t.Fatal(err)
	}
	cut.Done()
	audit := func(slots []Slot) (findings []string, seen []ID) {
		err := Audit(t.Context(), AuditOptions{
			KV: kv, Unit: testUnit, Next: table.Next(), groupPages: 2,
			EachLeaf: func(fn func([]Slot)) error { fn(slots); return nil },
			Visit:    func(id ID, _ *Extent) { seen = append(seen, id) },
		}, func(f string) { findings = append(findings, f) })
		if err != nil {
			t.Fatal(err)
		}
		return findings, seen
	}
	if findings, seen := audit(slots); len(findings) > 0 || !slices.Equal(seen, ids) {
		t.Errorf("%v; visited %v", findings, seen)
	}

	// Too few references in one group, too many in another, and extents never
	// allocated.
	last := table.Slot(7*groupIDs+5, 0)
	wrong := append(slices.Clone(slots[1:]), last, copied[0], table.Slot(4*groupIDs, 1), table.Slot(100*groupIDs, 0))
	want := []string{
		"a map names block 1 of extent " + fmt.Sprint(4*groupIDs) + ", which does not exist",
		"a map names block 0 of extent " + fmt.Sprint(100*groupIDs) + ", which does not exist",
		"extent 1 has a reference count of 4 and 3 references",
		"extent 127 has a reference count of 8 and 9 references",
		"extent " + fmt.Sprint(7*groupIDs+5) + " has a reference count of 3 and 4 references",
	}
	findings, _ := audit(wrong)
	slices.Sort(findings)
	slices.Sort(want)
	if !slices.Equal(findings, want) {
		t.Errorf("got  %q\nwant %q", findings, want)
	}
}
