package scsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"odx/internal/kit/must"
	"odx/internal/kit/sample"
	"odx/target/scsi/reserve"
	"odx/target/scsi/sense"
)

// reconfigure changes the configuration of the fixture's target.
func (f *fixture) reconfigure(change func(c *Configuration)) (left []*LogicalUnit) {
	f.t.Helper()
	f.target.mu.Lock()
	c := Configuration{
		Units: f.target.units, PortGroups: f.target.ports, ImplicitOnly: f.target.implicitOnly, Replaced: f.target.replaced,
	}
	f.target.mu.Unlock()
	change(&c)
	left, err := f.target.Reconfigure(c)
	if err != nil {
		f.t.Fatal(err)
	}
	return left
}

// takeAttentions takes the unit attentions of a nexus at all its LUNs.
func (f *fixture) takeAttentions(n *Nexus) {
	for _, itl := range *n.units.Load() {
		for itl.takePending() != nil {
		}
	}
}

// wantList checks the LUNs of a nexus.
func (f *fixture) wantList(n *Nexus, luns ...uint16) {
	f.t.Helper()
	if got := n.luns(); !slices.Equal(got, luns) {
		f.t.Errorf("LUNs %v, want %v", got, luns)
	}
}

// at runs TEST UNIT READY at a LUN.
func (f *fixture) at(n *Nexus, lun uint16) result {
	f.t.Helper()
	return f.run(request{nexus: n, lun: EncodeLUN(lun), cdb: testUnitReady})
}

// The nexus is notified once of a new list, at whichever LUN it asks first; what stays is
// left alone, and what goes takes no command.
func TestTarget_Reconfigure(t *testing.T) {
	f, narrow := viewed(t) // LUNs 0, 1, 2; narrow sees 0 as 7 and 2 as 0
	f.takeAttentions(f.nexus)
	kept, gone := f.target.LU(0), f.target.LU(1)
	left := f.reconfigure(func(c *Configuration) {
		c.Units = map[uint16]*LogicalUnit{0: kept, 2: f.target.LU(2), 5: newViewedLU(t, 5)}
	})
	if !slices.Equal(left, []*LogicalUnit{gone}) || gone.Served() || !kept.Served() {
		t.Errorf("%d logical units left", len(left))
	}
	f.wantList(f.nexus, 0, 2, 5)
	f.at(f.nexus, 1).wantSense(t, sense.KeyIllegalRequest, sense.ASCLogicalUnitNotSupported)
	f.at(f.nexus, 2).wantSense(t, sense.KeyUnitAttention, sense.ASCReportedLUNsDataChanged)
	f.at(f.nexus, 0).wantStatus(t, good)
	f.at(f.nexus, 5).wantSense(t, sense.KeyUnitAttention, sense.ASCPowerOnOrReset)
	f.at(f.nexus, 5).wantStatus(t, good)
	for _, lun := range []uint16{0, 7} { // nothing of what it sees has changed
		f.at(narrow, lun).wantStatus(t, good)
	}

	f.reconfigure(func(*Configuration) {}) // the same again
	f.at(f.nexus, 0).wantStatus(t, good)
}

// REPORT LUNS and REQUEST SENSE deliver the notification as well.
func TestTarget_Reconfigure_ReportLUNs(t *testing.T) {
	for name, cdb := range map[string][]byte{"REPORT LUNS": reportLUNs, "REQUEST SENSE": {opRequestSense, 0, 0, 0, 252, 0}} {
		f, _ := viewed(t)
		f.takeAttentions(f.nexus)
		f.reconfigure(func(c *Configuration) { c.Units = map[uint16]*LogicalUnit{0: c.Units[0], 2: c.Units[2]} })
		f.good(cdb, nil)
		for _, lun := range []uint16{0, 2} {
			if r := f.at(f.nexus, lun); r.status != good {
				t.Errorf("%s: LUN %d still has a unit attention: %s", name, lun, r.asc)
			}
		}
	}
}

// A LUN that becomes another logical unit says so before anything can be written to it,
// also where a view shows it under another number.
func TestTarget_Reconfigure_OtherUnit(t *testing.T) {
	f, narrow := viewed(t)
	other := newViewedLU(t, 9)
	f.reconfigure(func(c *Configuration) { c.Units = map[uint16]*LogicalUnit{0: other, 1: c.Units[1], 2: c.Units[2]} })
	for _, n := range []struct {
		nexus *Nexus
		lun   uint16
	}{{f.nexus, 0}, {narrow, 7}} {
		for _, asc := range []sense.ASC{sense.ASCPowerOnOrReset, sense.ASCInquiryDataChanged, sense.ASCReportedLUNsDataChanged} {
			f.run(request{nexus: n.nexus, lun: EncodeLUN(n.lun), cdb: cdb10(0x2A, 0, 0, 0)}).wantSense(t, sense.KeyUnitAttention, asc)
		}
		f.at(n.nexus, n.lun).wantStatus(t, good)
		if r := f.run(request{nexus: n.nexus, lun: EncodeLUN(n.lun), cdb: []byte{opInquiry, 1, 0x80, 0, 255, 0}}); string(r.data[4:]) != other.SerialNumber() {
			t.Errorf("LUN %d has serial number %s", n.lun, r.data[4:])
		}
	}
}

// A LUN that comes back is as after power on, and no other logical unit; with another one
// at its place in between it is.
func TestTarget_Reconfigure_ComesBack(t *testing.T) {
	for name, between := range map[string]byte{"nothing in between": 0, "another one in between": 8} {
		t.Run(name, func(t *testing.T) {
			f, _ := viewed(t)
			was := f.target.LU(1)
			f.reconfigure(func(c *Configuration) {
				c.Units = map[uint16]*LogicalUnit{0: c.Units[0]}
				if between != 0 {
					c.Units[1] = newViewedLU(t, between)
				}
			})
			f.takeAttentions(f.nexus)
			if was.Served() {
				t.Fatal("it is still served")
			}
			again := newViewedLU(t, 1) // the same identity
			f.reconfigure(func(c *Configuration) { c.Units = map[uint16]*LogicalUnit{0: c.Units[0], 1: again} })
			f.at(f.nexus, 1).wantSense(t, sense.KeyUnitAttention, sense.ASCPowerOnOrReset)
			if between != 0 {
				f.at(f.nexus, 1).wantSense(t, sense.KeyUnitAttention, sense.ASCInquiryDataChanged)
			}
			f.at(f.nexus, 1).wantSense(t, sense.KeyUnitAttention, sense.ASCReportedLUNsDataChanged)
			f.at(f.nexus, 1).wantStatus(t, good)
		})
	}
}

// What cannot be is refused before anything has changed.
func TestTarget_Check(t *testing.T) {
	f, _ := viewed(t)
	elsewhere := NewTarget(TargetConfig{Name: "iqn.2026-11.example.odx:other", PortGroups: []PortGroup{{Tag: 1, ID: 9}}})
	shared := newViewedLU(t, 7)
	if err := elsewhere.AddLU(0, shared); err != nil {
		t.Fatal(err)
	}
	lu := f.target.LU(0)
	for name, c := range map[string]Configuration{
		"a LUN that is too large":         {Units: map[uint16]*LogicalUnit{maxLUN + 1: lu}},
		"a logical unit twice":            {Units: map[uint16]*LogicalUnit{0: lu, 1: lu}},
		"a portal group twice":            {PortGroups: []PortGroup{{Tag: 1}, {Tag: 1, ID: 2}}},
		"a portal group without a number": {PortGroups: []PortGroup{{}}},
		"no such access state":            {PortGroups: []PortGroup{{Tag: 1, State: Transitioning}}},
		"the group of another target":     {Units: map[uint16]*LogicalUnit{0: shared}, PortGroups: []PortGroup{{Tag: 4, ID: 9}}},
	} {
		t.Run(name, func(t *testing.T) {
			if f.target.Check(c) == nil {
				t.Error("Check returns no error")
			}
			if left, err := f.target.Reconfigure(c); err == nil || left != nil {
				t.Errorf("Reconfigure: %v, %d left", err, len(left))
			}
			f.wantList(f.nexus, 0, 1, 2)
			f.at(f.nexus, 0).wantStatus(t, good)
		})
	}
}

// Rights change together with the LUNs, in one step, or alone.
func TestTarget_Readmit(t *testing.T) {
	f, narrow := viewed(t)
	f.target.Readmit(narrow, Rights{View: View{7: {LUN: 0}, 0: {LUN: 2}}, Proof: "x"})
	f.at(narrow, 7).wantSense(t, sense.KeyUnitAttention, sense.ASCModeParametersChanged) // it may write now
	f.at(narrow, 0).wantStatus(t, good)
	if *narrow.proof.Load() != "x" {
		t.Errorf("proof %q", *narrow.proof.Load())
	}
	f.target.Readmit(narrow, Rights{View: View{0: {LUN: 2}, 3: {LUN: 1}}})
	f.wantList(narrow, 0, 3)
	f.at(narrow, 0).wantSense(t, sense.KeyUnitAttention, sense.ASCReportedLUNsDataChanged)
	f.at(narrow, 7).wantSense(t, sense.KeyIllegalRequest, sense.ASCLogicalUnitNotSupported)

	moved := newViewedLU(t, 9)
	f.reconfigure(func(c *Configuration) {
		c.Units = map[uint16]*LogicalUnit{4: c.Units[2], 1: c.Units[1], 2: moved}
		c.Rights = func(n *Nexus) (Rights, bool) { return Rights{View: View{0: {LUN: 4}, 3: {LUN: 1}}}, n == narrow }
	})
	f.at(narrow, 0).wantStatus(t, good) // LUN 2 of the target became LUN 4, which it does not notice

	gone := f.target.Attach(NexusID{InitiatorName: "gone"})
	f.target.Detach(gone)
	f.target.Readmit(gone, Rights{}) // no effect
	if len(gone.luns()) != 0 || f.target.LU(1).nexus(gone) != nil {
		t.Error("a nexus that ended was attached")
	}
}

// A command that waits for its data when its nexus loses the right does not run; one of a
// logical unit that leaves the target does.
func TestTarget_Readmit_Commands(t *testing.T) {
	block := pattern(512, 1)
	for name, tt := range map[string]struct {
		change func(f *fixture)
		want   sense.ASC
	}{
		"the LUN is hidden":      {func(f *fixture) { f.target.Readmit(f.nexus, Rights{View: View{}}) }, sense.ASCLogicalUnitNotSupported},
		"it is read-only for it": {func(f *fixture) { f.target.Readmit(f.nexus, Rights{View: View{0: {ReadOnly: true}}}) }, sense.ASCWriteProtected},
		"it is read-only":        {func(f *fixture) { f.lu.SetReadOnly(true) }, sense.ASCWriteProtected},
		"the LUN leaves":         {func(f *fixture) { f.reconfigure(func(c *Configuration) { c.Units = nil }) }, sense.ASCNone},
		"another number":         {func(f *fixture) { f.target.Readmit(f.nexus, Rights{View: View{3: {LUN: 0}}}) }, sense.ASCNone},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			task := NewTask(&f.pool)
			defer task.Release()
			task.Reset(f.nexus, cdb10(0x2A, 0, 0, 1))
			task.ExpectedOut = 512
			if f.target.Prepare(task) {
				t.Fatalf("refused: % x", task.Sense())
			}
			copy(task.AllocDataOut(512), block)
			tt.change(f)
			f.target.Execute(t.Context(), task)
			asc := sense.ASCNone
			if task.Result != good {
				_, asc = decodeSense(t, task.Sense())
			}
			if written := string(f.vol.data[:512]) == string(block); asc != tt.want || written != (tt.want == sense.ASCNone) {
				t.Errorf("ended with %s, want %s; written %t", asc, tt.want, written)
			}
		})
	}
}

// PREEMPT AND ABORT also ends what a nexus has under way at a logical unit that it has
// lost.
func TestTarget_Readmit_Preempted(t *testing.T) {
	f := newPRFixture(t)
	f.registerAll()
	f.must(f.a, reserve.Reserve, reserve.WriteExclusiveRegistrantsOnly, 0x0A, 0)
	aborter := &abortCounter{task: f.prepared(f.b, testUnitReady)}
	f.b.SetTaskAborter(aborter)
	f.target.Readmit(f.b, Rights{View: View{}})
	f.must(f.a, reserve.PreemptAndAbort, reserve.WriteExclusiveRegistrantsOnly, 0x0A, 0x0B)
	if aborter.calls != 1 {
		t.Errorf("its task was aborted %d times", aborter.calls)
	}
	aborter.task.Release()
	f.target.Detach(f.b)
	if f.lu.nexusesOf([]NexusID{f.b.ID}) != nil {
		t.Error("the nexus is still known")
	}
}

// Commands that arrive while the list changes find the one of before or the one of
// afterwards, and no logical unit but those at their LUNs.
func TestTarget_Reconfigure_Concurrent(t *testing.T) {
	f := newFixture(t)
	lus := []*LogicalUnit{f.lu, newViewedLU(t, 1), newViewedLU(t, 2)}
	lists := []map[uint16]*LogicalUnit{{0: lus[0], 1: lus[1]}, {0: lus[1], 2: lus[2]}, {0: lus[2], 1: lus[0], 2: lus[1]}}
	names := map[string]bool{}
	serials := map[uint16]map[string]bool{0: {}, 1: {}, 2: {}}
	for _, list := range lists {
		names[fmt.Sprint(slices.Sorted(maps.Keys(list)))] = true
		for lun, lu := range list {
			serials[lun][lu.SerialNumber()] = true
		}
	}
	f.reconfigure(func(c *Configuration) { c.Units = lists[0] })
	end := make(chan struct{})
	var commands sync.WaitGroup
	for i := range 4 {
		n := f.target.Attach(NexusID{InitiatorName: "iqn.concurrent", ISID: [6]byte{byte(i)}})
		commands.Go(func() {
			for at := 0; ; at++ {
				select {
				case <-end:
					f.target.Detach(n)
					return
				default:
				}
				data := f.on(n, reportLUNs).data
				var luns []uint16
				for at := 8; at < len(data); at += 8 {
					luns = append(luns, uint16(data[at+1]))
				}
				if !names[fmt.Sprint(luns)] {
					t.Errorf("LUNs %v, which no configuration has", luns)
				}
				lun := uint16(at % 3)
				r := f.run(request{nexus: n, lun: EncodeLUN(lun), cdb: []byte{opInquiry, 1, 0x80, 0, 255, 0}})
				if r.status == good && !serials[lun][string(r.data[4:])] {
					t.Errorf("LUN %d has serial number %s", lun, r.data[4:])
				}
				if r := f.at(n, 0); r.status != good && r.key != sense.KeyUnitAttention {
					t.Errorf("LUN 0, which every configuration has: %s, %s", r.key, r.asc)
				}
			}
		})
	}
	for i := range 300 {
		if _, err := f.target.Reconfigure(Configuration{Units: lists[i%len(lists)]}); err != nil {
			t.Error(err)
		}
	}
	close(end)
	commands.Wait()
}

// Port groups come and go: their states stay where they stay, and every nexus of the
// logical units learns of it.
func TestTarget_Reconfigure_PortGroups(t *testing.T) {
	f := newPathFixture(t) // groups 1 (optimized), 2 (not optimized), 7 (standby)
	f.setTPG(f.a, byte(Unavailable), 0, 0, 2).wantStatus(t, good)
	f.takeAttentions(f.b)
	f.takeAttentions(f.c)
	f.reconfigure(func(c *Configuration) {
		c.PortGroups = []PortGroup{{Tag: 1, Preferred: true}, {Tag: 2, State: ActiveNonOptimized}, {Tag: 9}}
	})
	for _, n := range []*Nexus{f.a, f.c} {
		f.wantAttentions(n, sense.ASCAsymmetricAccessStateChanged)
	}
	const groups = `00000024
		80 0f 0001 00 00 00 01 0000 0001
		03 0f 0002 00 01 00 01 0000 0002
		00 0f 0009 00 00 00 01 0000 0009`
	wantHex(t, f.on(f.a, reportTPG(0, 255)).data, groups)
	if f.lu.relativePort(f.c.ID) != 0 {
		t.Error("the port of group 7 is still there")
	}
	through9 := f.target.Attach(NexusID{InitiatorName: "iqn.new", TargetName: f.target.Name(), TargetPortalGroupTag: 9})
	f.wantAttentions(through9, sense.ASCPowerOnOrReset)

	f.reconfigure(func(c *Configuration) {
		c.PortGroups = []PortGroup{{Tag: 1, ID: 5, Preferred: true}, {Tag: 9}}
		c.ImplicitOnly = true
	})
	f.wantAttentions(f.a, sense.ASCInquiryDataChanged, sense.ASCAsymmetricAccessStateChanged)
	f.setTPG(f.a, byte(Standby), 0, 0, 9).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode)
	if page := f.on(f.a, inquiryCDB(1, 0x83, 1024)).data; !bytes.Contains(page, []byte{0x51, 0x94, 0, 4, 0, 0, 0, 5}) {
		t.Error("page 83h has not the new port")
	}
	f.reconfigure(func(c *Configuration) { c.PortGroups[0].State = Standby })
	f.wantAttentions(f.a, sense.ASCAsymmetricAccessStateChanged)
	f.on(f.a, cdb10(0x28, 0, 0, 1)).wantSense(t, sense.KeyNotReady, sense.ASCPortInStandbyState)
}

// A group that was removed and comes back has its configured state, also in the process
// after this one.
func TestTarget_Reconfigure_PortGroupComesBack(t *testing.T) {
	era := memRecords{}
	f := newFixture(t, func(c *LUConfig) { c.Era = era })
	all := []PortGroup{{Tag: 1}, {Tag: 2}}
	f.reconfigure(func(c *Configuration) { c.PortGroups = all })
	f.takeAttentions(f.nexus)
	pf := &prFixture{fixture: f}
	pf.setTPG(f.nexus, byte(Standby), 0, 0, 2).wantStatus(t, good)
	f.reconfigure(func(c *Configuration) { c.PortGroups = all[:1] })
	f.reconfigure(func(c *Configuration) { c.PortGroups = all })
	f.takeAttentions(f.nexus)
	want := `00000018 00 0f 0001 00 00 00 01 0000 0001  00 0f 0002 00 00 00 01 0000 0002`
	wantHex(t, f.good(reportTPG(0, 255), nil), want)
	g := newFixture(t, func(c *LUConfig) { c.Era = era })
	g.reconfigure(func(c *Configuration) { c.PortGroups = all })
	g.takeAttentions(g.nexus)
	wantHex(t, g.good(reportTPG(0, 255), nil), want)

	(&prFixture{fixture: g}).setTPG(g.nexus, byte(Standby), 0, 0, 2).wantStatus(t, good)
	h := newFixture(t, func(c *LUConfig) { c.Era = era }) // which finds the group in standby
	for _, groups := range [][]PortGroup{all, all[:1], all} {
		h.reconfigure(func(c *Configuration) { c.PortGroups = groups })
	}
	h.takeAttentions(h.nexus)
	wantHex(t, h.good(reportTPG(0, 255), nil), want)
}

// A report of the list of before that runs during the change does not clear the
// announcement of the new one: the nexus has the new list, or is going to be notified. There
// are many LUNs, so that reports and changes take long enough to meet.
func TestTarget_Reconfigure_DuringReport(t *testing.T) {
	const luns = 300
	f := newFixture(t)
	with := map[uint16]*LogicalUnit{0: f.lu}
	for lun := uint16(1); lun < luns; lun++ {
		lu, err := NewLogicalUnit(LUConfig{Volume: newMemVolume(4096), ID: [16]byte{1, byte(lun >> 8), byte(lun)}})
		must.Succeed(t, err)
		with[lun] = lu
	}
	without := maps.Clone(with)
	delete(without, luns-1)
	lists := []map[uint16]*LogicalUnit{with, without}
	for round := range sample.Size(50, 400, 400) {
		var last int
		var changed atomic.Bool
		var reports sync.WaitGroup
		reports.Go(func() {
			for again := true; again; again = !changed.Load() {
				last = int(binary.BigEndian.Uint32(f.on(f.nexus, longReport).data)) / 8
			}
		})
		f.reconfigure(func(c *Configuration) { c.Units = lists[round%2] })
		changed.Store(true)
		reports.Wait()
		announced := false
		for _, itl := range *f.nexus.units.Load() {
			announced = announced || slices.Contains(itl.attentions, sense.ASCReportedLUNsDataChanged)
		}
		if last != len(lists[round%2]) && !announced {
			t.Fatalf("round %d: %d LUNs reported last, of %d, and nothing announces the change", round, last, len(lists[round%2]))
		}
	}
}

// longReport is REPORT LUNS with room for the header of its list, and 100 LUNs.
var longReport = []byte{opReportLUNs, 0, 0, 0, 0, 0, 0, 0, 3, 0x28, 0, 0}

// A nexus that learns of a new list in the process after the one that changed it is not
// notified of it again by the next.
func TestTarget_Continue_ListAnnounced(t *testing.T) {
	s := (&memorySightings{}).successor()
	f := newFixture(t)
	f.target.KeepSightings(s)
	id := NexusID{InitiatorName: "iqn.a", TargetName: f.target.Name(), TargetPortalGroupTag: 1}
	n := f.target.Attach(id)
	f.takeAttentions(n)
	f.reconfigure(func(c *Configuration) { c.Units = map[uint16]*LogicalUnit{0: f.lu, 1: newViewedLU(t, 1)} })
	state := passed(t, f.target.Suspend(t.Context(), n))

	after := func(unit byte) *fixture { // the process after this one, with another unit at LUN 1
		s = s.successor()
		g := newFixture(t)
		g.target.KeepSightings(s)
		g.reconfigure(func(c *Configuration) { c.Units = map[uint16]*LogicalUnit{0: g.lu, 1: newViewedLU(t, unit)} })
		return g
	}
	g := after(1)
	n = g.target.Continue(id, Rights{}, state)
	g.at(n, 0).wantSense(t, sense.KeyUnitAttention, sense.ASCReportedLUNsDataChanged)
	g.target.Readmit(n, Rights{}) // nothing changes
	s.Saw(id, 1, [16]byte{9})     // LUN 1 was another one when the nexus was notified of it
	h := after(1)
	n = h.target.Attach(id)
	h.at(n, 0).wantSense(t, sense.KeyUnitAttention, sense.ASCITNexusLossOccurred)
	h.at(n, 0).wantStatus(t, good)
	h.at(n, 1).wantSense(t, sense.KeyUnitAttention, sense.ASCITNexusLossOccurred)
	h.at(n, 1).wantSense(t, sense.KeyUnitAttention, sense.ASCInquiryDataChanged)
	h.at(n, 1).wantStatus(t, good)
}
