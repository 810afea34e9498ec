package scsi

import (
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"odx/target/scsi/nexus"
	"odx/target/scsi/reserve"
	"odx/target/scsi/sense"
)

// TestPersistentReserve_Model sends random PERSISTENT RESERVE
// OUT commands from several nexuses, with restarts between, and compares status,
// keys, reservation, unit attentions, and what conflicts, with a model that is
// written from the prose of SPC-4 r37 5.12.
func TestPersistentReserve_Model(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &prModel{records: &prRecords{}, keys: map[int]uint64{}}
		m.start(t)
		rt.Repeat(map[string]func(*rapid.T){
			"": m.compare, "register": m.register, "reserve": m.reserve, "release": m.release, "clear": m.clear,
			"preempt": m.preempt, "move": m.move, "relogin": m.relogin, "restart": func(*rapid.T) { m.restart(t) },
		})
	})
}

// prNexuses is how many nexuses the model has.
const prNexuses = 3

// prModel is what there should be. Nexuses are numbers.
type prModel struct {
	f       *fixture
	nexus   [prNexuses]*Nexus
	records *prRecords

	order      []int // of registration
	keys       map[int]uint64
	kind       reserve.Type
	holder     int
	generation uint32
	kept       bool
	attentions [prNexuses][]sense.ASC
}

// start makes the logical unit, from what the records have.
func (m *prModel) start(t *testing.T) {
	m.f = newFixture(t, keeping(m.records))
	for i := range m.nexus {
		m.nexus[i] = m.f.attach("iqn.2026-11.example.initiator:" + string(rune('k'+i)))
		m.attentions[i] = nil
	}
}

// send sends a PERSISTENT RESERVE OUT and compares its status. It says whether
// the model has to do anything.
func (m *prModel) send(rt *rapid.T, action byte, kind reserve.Type, n int, key, actionKey uint64, flags, want byte) bool {
	list := prOutList(key, actionKey, flags)
	if action == reserve.RegisterAndMove {
		list = prMoveList(key, actionKey, flags>>4|flags&aptpl, 1, nexus.AppendTransportID(nil, m.nexus[m.neighbour()].ID))
	}
	for range m.attentions[n] { // they come first; compare has seen them
		m.f.on(m.nexus[n], testUnitReady)
	}
	m.attentions[n] = nil
	r := m.f.run(request{nexus: m.nexus[n], cdb: prOutCDB(action, kind, len(list)), out: list, expectedOut: -1})
	if r.status != want {
		rt.Fatalf("action %d, type %d of nexus %d, keys %x, %x: status %02Xh (%s), want %02Xh\n%+v", action, kind, n, key, actionKey, r.status, r.asc, want, m)
	}
	return r.status == good
}

// neighbour is the nexus that REGISTER AND MOVE gives the reservation to.
func (m *prModel) neighbour() int { return (m.holder + 1) % prNexuses }

// sender draws a nexus and the key it gives: usually its own.
func (m *prModel) sender(rt *rapid.T) (n int, key uint64, known bool) {
	n = rapid.IntRange(0, prNexuses-1).Draw(rt, "nexus")
	if key = m.keys[n]; rapid.IntRange(0, 9).Draw(rt, "wrong key") == 7 {
		key = m.drawKey(rt)
	}
	return n, key, m.keys[n] != 0 && m.keys[n] == key
}

// drawKey draws one of few keys, so that nexuses often share one; zero is rare.
func (m *prModel) drawKey(rt *rapid.T) uint64 {
	return rapid.SampledFrom([]uint64{1, 2, 1, 2, 0}).Draw(rt, "key")
}

var prKinds = []reserve.Type{reserve.WriteExclusive, reserve.ExclusiveAccess, reserve.WriteExclusiveRegistrantsOnly,
	reserve.ExclusiveAccessRegistrantsOnly, reserve.WriteExclusiveAllRegistrants, reserve.ExclusiveAccessAllRegistrants}

func (m *prModel) drawKind(rt *rapid.T) reserve.Type {
	if m.kind != 0 && rapid.Bool().Draw(rt, "same type") {
		return m.kind
	}
	return rapid.SampledFrom(prKinds).Draw(rt, "type")
}

func (m *prModel) holds(n int) bool {
	return m.kind != 0 && m.keys[n] != 0 && (m.kind >= 7 || m.holder == n)
}

func (m *prModel) tellRegistered(except int, asc sense.ASC) {
	for n := range m.keys {
		m.tell(n, except, asc)
	}
}

func (m *prModel) tell(n, except int, asc sense.ASC) {
	if n != except && !slices.Contains(m.attentions[n], asc) {
		m.attentions[n] = append(m.attentions[n], asc)
	}
}

func (m *prModel) drop(n int) {
	delete(m.keys, n)
	m.order = slices.DeleteFunc(m.order, func(o int) bool { return o == n })
}

func (m *prModel) add(n int, key uint64) {
	if m.keys[n] == 0 {
		m.order = append(m.order, n)
	}
	m.keys[n] = key
}

// endReservation ends the reservation by nexus n; nexuses that shared it are notified.
func (m *prModel) endReservation(n int) {
	if m.kind >= 5 {
		m.tellRegistered(n, sense.ASCReservationsReleased)
	}
	m.kind = 0
}

func (m *prModel) register(rt *rapid.T) {
	n, key, _ := m.sender(rt)
	actionKey := m.drawKey(rt)
	action := rapid.SampledFrom([]byte{reserve.Register, reserve.RegisterAndIgnore}).Draw(rt, "action")
	flags := rapid.SampledFrom([]byte{0, aptpl, aptpl}).Draw(rt, "APTPL")
	want := good
	if action == reserve.Register && key != m.keys[n] {
		want = conflict
	}
	if !m.send(rt, action, 0, n, key, actionKey, flags, want) {
		return
	}
	m.generation++
	m.kept = flags == aptpl
	if actionKey != 0 {
		m.add(n, actionKey)
		return
	}
	held := m.holds(n)
	m.drop(n)
	if held && (m.kind < 7 || len(m.keys) == 0) {
		m.endReservation(n)
	}
}

func (m *prModel) reserve(rt *rapid.T) {
	n, key, known := m.sender(rt)
	kind := m.drawKind(rt)
	want := conflict
	if known && (m.kind == 0 || m.holds(n) && m.kind == kind) {
		want = good
	}
	if m.send(rt, reserve.Reserve, kind, n, key, 0, 0, want) && m.kind == 0 {
		m.kind, m.holder = kind, n
	}
}

func (m *prModel) release(rt *rapid.T) {
	n, key, known := m.sender(rt)
	kind := m.drawKind(rt)
	want := good
	switch {
	case !known:
		want = conflict
	case m.holds(n) && kind != m.kind:
		want = checked
	}
	if m.send(rt, reserve.Release, kind, n, key, 0, 0, want) && m.holds(n) {
		m.endReservation(n)
	}
}

func (m *prModel) clear(rt *rapid.T) {
	n, key, known := m.sender(rt)
	want := conflict
	if known {
		want = good
	}
	if !m.send(rt, reserve.Clear, 0, n, key, 0, 0, want) {
		return
	}
	m.tellRegistered(n, sense.ASCReservationsPreempted)
	m.keys, m.order, m.kind = map[int]uint64{}, nil, 0
	m.generation++
}

func (m *prModel) preempt(rt *rapid.T) {
	n, key, known := m.sender(rt)
	kind, actionKey := m.drawKind(rt), m.drawKey(rt)
	action := rapid.SampledFrom([]byte{reserve.Preempt, reserve.PreemptAndAbort}).Draw(rt, "action")
	takeOver := m.kind >= 7 && actionKey == 0 || m.kind != 0 && m.kind < 7 && m.keys[m.holder] == actionKey
	want := good
	switch {
	case !known:
		want = conflict
	case actionKey == 0 && m.kind < 7:
		want = checked
	case !takeOver && !slices.Contains(slices.Collect(maps.Values(m.keys)), actionKey):
		want = conflict
	}
	if !m.send(rt, action, kind, n, key, actionKey, 0, want) {
		return
	}
	m.generation++
	for other, k := range maps.Clone(m.keys) {
		if (k == actionKey || actionKey == 0) && !(takeOver && other == n) {
			m.tell(other, n, sense.ASCRegistrationsPreempted)
			m.drop(other)
		}
	}
	switch {
	case takeOver:
		if kind != m.kind {
			m.tellRegistered(n, sense.ASCReservationsReleased)
		}
		m.kind, m.holder = kind, n
	case len(m.keys) == 0:
		m.kind = 0
	}
}

func (m *prModel) move(rt *rapid.T) {
	n, key, known := m.sender(rt)
	actionKey := rapid.Uint64Range(1, 2).Draw(rt, "action key")
	unreg := rapid.SampledFrom([]byte{0, 0x20}).Draw(rt, "UNREG")
	to := m.neighbour()
	want := good
	switch {
	case !known || m.kind >= 7:
		want = conflict
	case !m.holds(n):
		want = checked
	}
	if !m.send(rt, reserve.RegisterAndMove, 0, n, key, actionKey, unreg|aptpl, want) {
		return
	}
	m.generation++
	m.kept = true
	m.add(to, actionKey)
	m.holder = to
	if unreg != 0 {
		m.drop(n)
	}
}

// relogin ends a session: registrations stay, unit attentions go.
func (m *prModel) relogin(rt *rapid.T) {
	n := rapid.IntRange(0, prNexuses-1).Draw(rt, "nexus")
	m.f.target.Detach(m.nexus[n])
	m.nexus[n] = m.f.target.Attach(m.nexus[n].ID)
	m.nexus[n].unit([8]byte{}).takePending()
	m.attentions[n] = nil
}

// restart loses power: what was not to be kept is gone.
func (m *prModel) restart(t *testing.T) {
	m.start(t)
	m.generation = 0
	if !m.kept {
		m.keys, m.order, m.kind = map[int]uint64{}, nil, 0
	}
	if len(m.keys) == 0 {
		m.kept = false
	}
}

// compare looks at everything that can be seen.
func (m *prModel) compare(rt *rapid.T) {
	watcher := m.f.nexus // registers nothing
	in := func(action byte) []byte {
		r := m.f.on(watcher, prInCDB(action))
		if r.status != good || binary.BigEndian.Uint32(r.data) != m.generation {
			rt.Fatalf("PERSISTENT RESERVE IN: status %02Xh, % x; PRGENERATION %d", r.status, r.data, m.generation)
		}
		return r.data[8:]
	}
	var keys []byte
	for _, n := range m.order {
		keys = binary.BigEndian.AppendUint64(keys, m.keys[n])
	}
	if got := in(reserve.ReadKeys); !slices.Equal(got, keys) {
		rt.Fatalf("keys % x, want % x", got, keys)
	}
	d := in(reserve.ReadReservation)
	switch {
	case (len(d) > 0) != (m.kind != 0):
		rt.Fatalf("reservation % x, want type %d", d, m.kind)
	case m.kind == 0:
	case d[13] != byte(m.kind), m.kind < 7 && binary.BigEndian.Uint64(d) != m.keys[m.holder], m.kind >= 7 && binary.BigEndian.Uint64(d) != 0:
		rt.Fatalf("reservation % x, want type %d of nexus %d", d, m.kind, m.holder)
	}
	for n, nexus := range m.nexus {
		var pending []sense.ASC
		itl := nexus.unit([8]byte{})
		pending = append(pending, itl.attentions...)
		if !slices.Equal(pending, m.attentions[n]) {
			rt.Fatalf("nexus %d has the unit attentions %v, want %v", n, pending, m.attentions[n])
		}
		free := m.kind == 0 || m.holds(n) || m.kind >= 5 && m.keys[n] != 0
		writeOnly := m.kind%2 == 1 && m.kind != 3 // the write exclusive types
		if got := m.f.lu.Reserved(nexus, AccessWrite) == nil; got != free {
			rt.Fatalf("nexus %d may write: %t", n, got)
		}
		if got := m.f.lu.Reserved(nexus, AccessRead) == nil; got != (free || writeOnly) {
			rt.Fatalf("nexus %d may read: %t", n, got)
		}
	}
}
