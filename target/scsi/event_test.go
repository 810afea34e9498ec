package scsi

import (
	"slices"
	"testing"

	"odx/target/scsi/reserve"
)

// What initiators change for others, or for longer than their session, is reported with
// what it was and is; what they do for themselves is not.
func TestEvent(t *testing.T) {
	saved := cachingPage(0)
	saveCDB := modeSelect6(saved)
	saveCDB[1] |= modeSelectSP
	held := "write exclusive, held by iqn.2026-11.example.initiator:a; registered: iqn.2026-11.example.initiator:a (key Ah), iqn.2026-11.example.initiator:b (key Bh), iqn.2026-11.example.initiator:c (key Ch)"
	for name, tt := range map[string]struct {
		do   func(f *prFixture)
		want []Event
	}{
		"CLEAR": {func(f *prFixture) { f.must(f.b, reserve.Clear, 0, 0x0B, 0) }, []Event{
			{What: "persistent reservations", Command: "PERSISTENT RESERVE OUT, CLEAR", Before: held, After: "none"}}},
		"PREEMPT": {func(f *prFixture) { f.must(f.b, reserve.Preempt, reserve.ExclusiveAccessAllRegistrants, 0x0B, 0x0A) }, []Event{
			{What: "persistent reservations", Command: "PERSISTENT RESERVE OUT, PREEMPT", Before: held,
				After: "exclusive access, all registrants; registered: iqn.2026-11.example.initiator:b (key Bh), iqn.2026-11.example.initiator:c (key Ch)"}}},
		"PREEMPT AND ABORT": {func(f *prFixture) { f.must(f.b, reserve.PreemptAndAbort, reserve.WriteExclusive, 0x0B, 0x0C) }, []Event{
			{What: "persistent reservations", Command: "PERSISTENT RESERVE OUT, PREEMPT AND ABORT", Before: held,
				After: "write exclusive, held by iqn.2026-11.example.initiator:a; registered: iqn.2026-11.example.initiator:a (key Ah), iqn.2026-11.example.initiator:b (key Bh)"}}},
		"a preemption that is refused": {func(f *prFixture) { f.out(f.b, reserve.Preempt, 0, prOutList(0x99, 0x0A, 0)) }, nil},
		"its own registration":         {func(f *prFixture) { f.must(f.b, reserve.Register, 0, 0x0B, 0) }, nil},
		"path states": {func(f *prFixture) { f.setTPG(f.b, byte(Standby), 0, 0, 1).wantStatus(f.t, good) }, []Event{
			{What: "access state of target port group 1", Command: "SET TARGET PORT GROUPS", Before: "optimized", After: "standby"}}},
		"the path states that are there": {func(f *prFixture) { f.setTPG(f.b, byte(ActiveOptimized), 0, 0, 1) }, nil},
		"a saved mode page": {func(f *prFixture) {
			f.run(request{nexus: f.b, cdb: saveCDB, out: saved, expectedOut: -1}).wantStatus(f.t, good)
		}, []Event{{What: "saved mode page 08h", Command: "MODE SELECT(6)", Before: "0812040000000000000000000000000000000000", After: "0812000000000000000000000000000000000000"}}},
		"a mode page that is not saved": {func(f *prFixture) {
			f.run(request{nexus: f.b, cdb: modeSelect6(saved), out: saved, expectedOut: -1}).wantStatus(f.t, good)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []Event
			f := newPRFixture(t, func(c *LUConfig) {
				c.Records = memRecords{}
				c.Audit = func(e Event) { got = append(got, e) }
			})
			f.registerAll()
			f.must(f.a, reserve.Reserve, reserve.WriteExclusive, 0x0A, 0)
			if len(got) != 0 {
				t.Errorf("reported before: %+v", got)
			}
			if name == "path states" || name == "a saved mode page" || name == "a mode page that is not saved" {
				f.must(f.a, reserve.Release, reserve.WriteExclusive, 0x0A, 0)
				f.takeAttentions(f.b)
			}
			tt.do(f)
			for i := range tt.want {
				tt.want[i].Unit, tt.want[i].Nexus = f.lu, f.b.ID
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("reported %+v\nwant     %+v", got, tt.want)
			}
		})
	}
}
