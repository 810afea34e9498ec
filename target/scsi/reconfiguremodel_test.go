package scsi

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"odx/internal/kit/sample"
	"odx/target/bufpool"
	"odx/target/handover"
	"odx/target/scsi/sense"
)

// The model of TestReconfigure_Model: what each nexus has at its LUNs, what it has to be
// notified of there, and what it was notified of last, also over its logout and over a
// handover to another process. Logical units are small numbers, 0 for none.

type modelView map[uint16]ViewedLU // nil: everything

type modelUnit struct {
	unit       byte
	readOnly   bool
	attentions []sense.ASC
}

func (u *modelUnit) attend(asc sense.ASC) {
	if !slices.Contains(u.attentions, asc) {
		u.attentions = append(u.attentions, asc)
	}
}

type modelNexus struct {
	id     NexusID
	view   modelView
	has    map[uint16]*modelUnit
	list   string // announced by REPORTED LUNS DATA HAS CHANGED, "" for none
	nexus  *Nexus
	handed bool
}

type model struct {
	units    map[uint16]byte // of the target
	replaced map[uint16]bool
	nexuses  map[NexusID]*modelNexus
	lost     map[NexusID]bool            // in this process
	last     map[NexusID]map[uint16]byte // what it was notified of
	lastList map[NexusID]string
}

// visible returns what a view shows.
func (m *model) visible(v modelView) map[uint16]ViewedLU {
	all := map[uint16]ViewedLU{}
	if v == nil {
		for lun := range m.units {
			all[lun] = ViewedLU{LUN: lun, Replaced: m.replaced[lun]}
		}
		return all
	}
	for seen, as := range v {
		if m.units[as.LUN] != 0 {
			all[seen] = as
		}
	}
	return all
}

// finds gives a nexus a logical unit at a LUN. It reports whether that is another one than
// the nexus was notified of.
func (m *model) finds(n *modelNexus, seen uint16, as ViewedLU, begin sense.ASC) (u *modelUnit, another bool) {
	u = &modelUnit{unit: m.units[as.LUN], readOnly: as.ReadOnly}
	if begin != sense.ASCNone {
		u.attend(begin)
	}
	last, known := m.last[n.id][seen]
	if known && last != u.unit || !known && as.Replaced {
		u.attend(sense.ASCInquiryDataChanged)
		return u, true
	}
	m.notified(n.id, seen, u.unit)
	return u, false
}

func (m *model) notified(id NexusID, lun uint16, unit byte) {
	if m.last[id] == nil {
		m.last[id] = map[uint16]byte{}
	}
	m.last[id][lun] = unit
}

func (m *model) login(n *modelNexus) {
	begin := sense.ASCPowerOnOrReset
	if _, known := m.lastList[n.id]; known || m.lost[n.id] || m.last[n.id] != nil {
		begin = sense.ASCITNexusLossOccurred
	}
	delete(m.lost, n.id)
	n.has = map[uint16]*modelUnit{}
	any := false
	for seen, as := range m.visible(n.view) {
		u, another := m.finds(n, seen, as, begin)
		n.has[seen], any = u, any || another
	}
	if any {
		n.list = n.luns()
		if m.lastList[n.id] != n.list {
			n.announce()
		}
	}
	m.nexuses[n.id] = n
}

// renew follows a change of the target or of the view of a nexus.
func (m *model) renew(n *modelNexus) {
	before := n.has
	n.has = map[uint16]*modelUnit{}
	changed := false
	for seen, as := range m.visible(n.view) {
		was := before[seen]
		if was != nil && was.unit == m.units[as.LUN] {
			if was.readOnly != as.ReadOnly {
				was.readOnly = as.ReadOnly
				was.attend(sense.ASCModeParametersChanged)
			}
			n.has[seen] = was
			continue
		}
		changed = true
		n.has[seen], _ = m.finds(n, seen, as, sense.ASCPowerOnOrReset)
		if was != nil {
			n.has[seen].attend(sense.ASCInquiryDataChanged)
		}
	}
	if changed || len(n.has) != len(before) {
		n.list = n.luns()
		n.announce()
	}
}

// handedOver follows a handover to a process whose target may have other logical units.
func (m *model) handedOver(n *modelNexus) {
	before := n.has
	n.has, n.list = map[uint16]*modelUnit{}, ""
	same, any := 0, false
	for seen, as := range m.visible(n.view) {
		was := before[seen]
		if was == nil || was.unit != m.units[as.LUN] {
			u, another := m.finds(n, seen, as, sense.ASCPowerOnOrReset)
			n.has[seen], any = u, any || another
			continue
		}
		same++
		was.readOnly = as.ReadOnly // the state has no rights: the next one reads them again
		u, another := m.finds(n, seen, as, sense.ASCNone)
		for _, asc := range u.attentions {
			was.attend(asc)
		}
		n.has[seen], any = was, any || another
	}
	pending := slices.ContainsFunc(slices.Collect(maps.Values(n.has)), func(u *modelUnit) bool {
		return slices.Contains(u.attentions, sense.ASCReportedLUNsDataChanged)
	})
	switch {
	case same != len(n.has) || same != len(before):
		n.list = n.luns()
		n.announce()
	case pending:
		n.list = n.luns()
	case any:
		if n.list = n.luns(); m.lastList[n.id] != n.list {
			n.announce()
		}
	}
}

func (n *modelNexus) announce() {
	for _, u := range n.has {
		u.attend(sense.ASCReportedLUNsDataChanged)
	}
}

func (n *modelNexus) luns() string {
	var list string
	for _, lun := range slices.Sorted(maps.Keys(n.has)) {
		list += fmt.Sprintf("%d=%d ", lun, n.has[lun].unit)
	}
	return list
}

// learnsList is REPORT LUNS, or the first report of REPORTED LUNS DATA HAS CHANGED.
func (m *model) learnsList(n *modelNexus) {
	any := false
	for _, u := range n.has {
		if i := slices.Index(u.attentions, sense.ASCReportedLUNsDataChanged); i >= 0 {
			u.attentions, any = slices.Delete(u.attentions, i, i+1), true
		}
	}
	if any && n.list != "" {
		m.lastList[n.id] = n.list
	}
}

// reports returns how TEST UNIT READY ends at a LUN: with an additional sense code, or
// ASCNone for GOOD.
func (m *model) reports(n *modelNexus, lun uint16) sense.ASC {
	u := n.has[lun]
	if u == nil {
		return sense.ASCLogicalUnitNotSupported
	}
	if len(u.attentions) == 0 {
		return sense.ASCNone
	}
	asc := u.attentions[0]
	if asc == sense.ASCReportedLUNsDataChanged {
		m.learnsList(n)
		return asc
	}
	u.attentions = u.attentions[1:]
	if asc == sense.ASCInquiryDataChanged {
		m.notified(n.id, lun, u.unit)
	}
	return asc
}

// sorted returns the nexuses in an order that a seed repeats.
func (m *model) sorted() []*modelNexus {
	return slices.SortedFunc(maps.Values(m.nexuses), func(a, b *modelNexus) int { return cmp.Compare(a.id.ISID[0], b.id.ISID[0]) })
}

// memorySightings are the Sightings of a store, over processes.
type memorySightings struct {
	before, now map[NexusID]map[uint16][16]byte
}

func (s *memorySightings) Last(id NexusID, lun uint16) (unit [16]byte, ok bool) {
	unit, ok = s.before[id][lun]
	return unit, ok
}

func (s *memorySightings) Saw(id NexusID, lun uint16, unit [16]byte) {
	if s.now[id] == nil {
		s.now[id] = map[uint16][16]byte{}
	}
	s.now[id][lun] = unit
}

func (s *memorySightings) Interrupted(id NexusID) bool { return s.before[id] != nil }

// successor returns the sightings as the next process reads them.
func (s *memorySightings) successor() *memorySightings {
	next := &memorySightings{before: map[NexusID]map[uint16][16]byte{}, now: map[NexusID]map[uint16][16]byte{}}
	for id, luns := range s.now {
		next.before[id], next.now[id] = maps.Clone(luns), maps.Clone(luns)
	}
	return next
}

// world is a target with its model.
type world struct {
	t         *testing.T
	r         *rand.Rand
	model     model
	target    *Target
	made      map[byte]*LogicalUnit
	sightings *memorySightings
	pool      bufpool.Pool
	seed      uint64
	steps     []string
}

const (
	modelLUNs  = 4
	modelUnits = 4
	modelPorts = 3
)

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 17)), seed: seed, made: map[byte]*LogicalUnit{}, sightings: (&memorySightings{}).successor()}
	w.model = model{
		units: map[uint16]byte{}, nexuses: map[NexusID]*modelNexus{}, lost: map[NexusID]bool{},
		last: map[NexusID]map[uint16]byte{}, lastList: map[NexusID]string{},
	}
	w.begin()
	return w
}

// begin makes the target of a process.
func (w *world) begin() {
	w.target = NewTarget(TargetConfig{Name: "iqn.2026-11.example.odx:disks"})
	w.target.KeepSightings(w.sightings)
	w.made = map[byte]*LogicalUnit{}
	w.change()
}

// unit returns a logical unit, which is made once in a process.
func (w *world) unit(id byte) *LogicalUnit {
	if w.made[id] == nil {
		lu, err := NewLogicalUnit(LUConfig{Volume: newMemVolume(4096), ID: [16]byte{id}})
		if err != nil {
			w.t.Fatal(err)
		}
		w.made[id] = lu
	}
	return w.made[id]
}

// change gives the target, and sometimes a nexus with it, another configuration.
func (w *world) change() {
	c := Configuration{Units: map[uint16]*LogicalUnit{}, Replaced: map[uint16]bool{}}
	units := map[uint16]byte{}
	free := w.r.Perm(modelUnits)
	for lun := range uint16(modelLUNs) {
		was := w.model.units[lun]
		if i := slices.Index(free, int(was)-1); was != 0 && i >= 0 && w.r.IntN(4) > 0 {
			units[lun], free = was, slices.Delete(free, i, i+1)
		}
	}
	for lun := range uint16(modelLUNs) {
		if units[lun] == 0 && len(free) > 0 && w.r.IntN(2) == 0 {
			units[lun], free = byte(free[0]+1), free[1:]
		}
		if w.r.IntN(8) == 0 {
			c.Replaced[lun] = true
		}
	}
	for lun, id := range units {
		c.Units[lun] = w.unit(id)
	}
	w.model.units, w.model.replaced = units, c.Replaced
	views := map[*Nexus]modelView{}
	if w.r.IntN(2) == 0 {
		for _, n := range w.model.sorted() {
			if w.r.IntN(2) == 0 {
				n.view = w.view()
				views[n.nexus] = n.view
				w.steps = append(w.steps, fmt.Sprintf("with it: other rights for %d, view %v", n.id.ISID[0], n.view))
			}
		}
	}
	c.Rights = func(n *Nexus) (Rights, bool) {
		v, ok := views[n]
		return Rights{View: View(v)}, ok
	}
	w.steps = append(w.steps, fmt.Sprintf("reconfigure %v, %d views", units, len(views)))
	before := w.target.LUs()
	left, err := w.target.Reconfigure(c)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, lu := range before {
		if gone := !slices.Contains(w.target.LUs(), lu); gone != slices.Contains(left, lu) || gone == lu.Served() {
			w.t.Fatalf("logical unit %x: gone %t, left %t, served %t", lu.ID(), gone, slices.Contains(left, lu), lu.Served())
		}
	}
	for _, n := range w.model.nexuses {
		if !n.handed {
			w.model.renew(n)
		}
	}
}

// view returns a random view.
func (w *world) view() modelView {
	if w.r.IntN(3) == 0 {
		return nil
	}
	v := modelView{}
	at := w.r.Perm(modelLUNs)
	for _, lun := range w.r.Perm(modelLUNs)[:w.r.IntN(modelLUNs+1)] {
		v[uint16(at[0])], at = ViewedLU{LUN: uint16(lun), ReadOnly: w.r.IntN(3) == 0, Replaced: w.r.IntN(6) == 0}, at[1:]
	}
	return v
}

func (w *world) id() NexusID {
	return NexusID{InitiatorName: "iqn.a", ISID: [6]byte{byte(w.r.IntN(modelPorts))}, TargetName: w.target.Name(), TargetPortalGroupTag: 1}
}

// handOver passes the nexuses to another process, which may have another configuration.
func (w *world) handOver() {
	w.steps = append(w.steps, "hand over")
	states := map[NexusID]*handover.Nexus{}
	for id, n := range w.model.nexuses {
		states[id] = passed(w.t, w.target.Suspend(w.t.Context(), n.nexus))
		n.handed = true
	}
	w.sightings = w.sightings.successor()
	w.model.lost = map[NexusID]bool{}
	w.begin()
	for id, n := range w.model.nexuses {
		n.nexus = w.target.Continue(id, Rights{View: View(n.view)}, states[id])
		w.model.handedOver(n)
		n.handed = false
	}
}

// run runs a command without data and returns its additional sense code and Data-In.
func (w *world) run(n *modelNexus, lun uint16, cdb []byte) (asc sense.ASC, data []byte) {
	task := NewTask(&w.pool)
	defer task.Release()
	task.Reset(n.nexus, cdb)
	task.Lun, task.ExpectedIn = EncodeLUN(lun), 4096
	if !w.target.Prepare(task) {
		w.target.Execute(w.t.Context(), task)
	}
	if task.Result == StatusCheckCondition {
		_, asc = decodeSense(w.t, task.Sense())
	}
	return asc, slices.Clone(task.DataIn())
}

// step does something to the target and its model, and compares.
func (w *world) step() {
	id := w.id()
	n := w.model.nexuses[id]
	switch op := w.r.IntN(20); {
	case op < 3:
		w.change()
	case op == 3 && w.r.IntN(4) == 0:
		w.handOver()
	case n == nil:
		n = &modelNexus{id: id, view: w.view()}
		w.steps = append(w.steps, fmt.Sprintf("login of %d, view %v", id.ISID[0], n.view))
		n.nexus = w.target.AttachWith(id, Rights{View: View(n.view)})
		w.model.login(n)
	case op < 5:
		w.steps = append(w.steps, fmt.Sprintf("logout of %d", id.ISID[0]))
		w.target.Detach(n.nexus)
		w.model.lost[id] = true
		delete(w.model.nexuses, id)
	case op < 7:
		n.view = w.view()
		w.steps = append(w.steps, fmt.Sprintf("other rights for %d, view %v", id.ISID[0], n.view))
		w.target.Readmit(n.nexus, Rights{View: View(n.view)})
		w.model.renew(n)
	case op < 9:
		w.steps = append(w.steps, fmt.Sprintf("REPORT LUNS of %d", id.ISID[0]))
		_, data := w.run(n, 0, reportLUNs)
		w.model.learnsList(n)
		var want []byte
		for _, lun := range slices.Sorted(maps.Keys(n.has)) {
			at := EncodeLUN(lun)
			want = append(want, at[:]...)
		}
		if !slices.Equal(data[8:], want) {
			w.fail("LUNs % x, want % x", data[8:], want)
		}
	default:
		lun := uint16(w.r.IntN(modelLUNs))
		w.steps = append(w.steps, fmt.Sprintf("TEST UNIT READY of %d at LUN %d", id.ISID[0], lun))
		asc, _ := w.run(n, lun, testUnitReady)
		if want := w.model.reports(n, lun); asc != want {
			w.fail("ended with %s, want %s", asc, want)
		}
		if u := n.has[lun]; u != nil {
			if _, data := w.run(n, lun, []byte{opInquiry, 1, 0x80, 0, 255, 0}); string(data[4:]) != w.unit(u.unit).SerialNumber() {
				w.fail("serial number %s, want that of unit %d", data[4:], u.unit)
			}
			if got := n.nexus.unit(EncodeLUN(lun)).writeProtected() != nil; got != u.readOnly {
				w.fail("write protected %t, want %t", got, u.readOnly)
			}
		}
	}
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	for _, s := range w.steps {
		w.t.Log(s)
	}
	w.t.Fatalf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
}

// TestReconfigure_Model: after any sequence of reconfigurations, logins, logouts, changes
// of rights and handovers, each nexus finds what the configuration and its view say, and
// gets the unit attentions that it has to, each once.
func TestReconfigure_Model(t *testing.T) {
	const steps = 30
	for seed := range sample.Size[uint64](300, 3000, 10_000) {
		w := newWorld(t, seed)
		for range steps {
			w.step()
		}
		if t.Failed() {
			return
		}
	}
}
