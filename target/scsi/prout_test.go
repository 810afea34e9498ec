package scsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"odx/target/scsi/nexus"
	"odx/target/scsi/reserve"
	"odx/target/scsi/sense"
)

// Statuses that tests of reservations are full of.
const (
	good     byte = 0x00
	checked  byte = 0x02
	conflict byte = 0x18
)

func prInCDB(action byte) []byte { return []byte{0x5E, action, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0} }

func prOutCDB(action byte, kind reserve.Type, length int) []byte {
	c := []byte{0x5F, action, byte(kind), 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(c[5:], uint32(length))
	return c
}

// prOutList is the basic parameter list; flags is byte 20.
func prOutList(key, actionKey uint64, flags byte) []byte {
	d := make([]byte, 24)
	binary.BigEndian.PutUint64(d, key)
	binary.BigEndian.PutUint64(d[8:], actionKey)
	d[20] = flags
	return d
}

// prOutNaming is the parameter list of REGISTER with SPEC_I_PT.
func prOutNaming(key, actionKey uint64, flags byte, ids ...[]byte) []byte {
	all := slices.Concat(ids...)
	d := binary.BigEndian.AppendUint32(prOutList(key, actionKey, flags|0x08), uint32(len(all)))
	return append(d, all...)
}

// prMoveList is the parameter list of REGISTER AND MOVE; flags is byte 17.
func prMoveList(key, actionKey uint64, flags byte, port uint16, id []byte) []byte {
	d := make([]byte, 24, 24+len(id))
	binary.BigEndian.PutUint64(d, key)
	binary.BigEndian.PutUint64(d[8:], actionKey)
	d[17] = flags
	binary.BigEndian.PutUint16(d[18:], port)
	binary.BigEndian.PutUint32(d[20:], uint32(len(id)))
	return append(d, id...)
}

// prFixture has three nexuses, a to c, which have the keys 0Ah to 0Ch if they
// are registered.
type prFixture struct {
	*fixture
	a, b, c *Nexus
}

func newPRFixture(t testing.TB, change ...func(*LUConfig)) *prFixture {
	f := &prFixture{fixture: newFixture(t, change...)}
	f.a = f.nexus
	f.b, f.c = f.attach("iqn.2026-11.example.initiator:b"), f.attach("iqn.2026-11.example.initiator:c")
	return f
}

func (f *prFixture) out(n *Nexus, action byte, kind reserve.Type, list []byte) result {
	f.t.Helper()
	return f.run(request{nexus: n, cdb: prOutCDB(action, kind, len(list)), out: list, expectedOut: -1})
}

// must runs a PERSISTENT RESERVE OUT that has to succeed.
func (f *prFixture) must(n *Nexus, action byte, kind reserve.Type, key, actionKey uint64) {
	f.t.Helper()
	f.out(n, action, kind, prOutList(key, actionKey, 0)).wantStatus(f.t, good)
}

// registerAll registers a with 0Ah, b with 0Bh and c with 0Ch.
func (f *prFixture) registerAll() {
	f.t.Helper()
	for i, n := range []*Nexus{f.a, f.b, f.c} {
		f.must(n, reserve.Register, 0, 0, 0x0A+uint64(i))
	}
}

// in returns the Data-In of a PERSISTENT RESERVE IN.
func (f *prFixture) in(action byte) []byte {
	f.t.Helper()
	return f.good(prInCDB(action), nil)
}

// generation returns PRGENERATION.
func (f *prFixture) generation() uint32 {
	f.t.Helper()
	return binary.BigEndian.Uint32(f.in(reserve.ReadKeys))
}

// keyOf returns the key of a nexus, attached or not, zero if it has none.
func (f *prFixture) keyOf(id NexusID) uint64 {
	f.t.Helper()
	key, _ := f.fullStatus(id)
	return key
}

// fullStatus returns what READ FULL STATUS reports of a nexus.
func (f *prFixture) fullStatus(id NexusID) (key uint64, holder bool) {
	f.t.Helper()
	want := nexus.AppendTransportID(nil, id)
	for d := f.in(reserve.ReadFullStatus)[8:]; len(d) > 0; {
		end := 24 + binary.BigEndian.Uint32(d[20:])
		if binary.BigEndian.Uint16(d[18:]) == f.lu.relativePort(id) && bytes.Equal(d[24:end], want) {
			return binary.BigEndian.Uint64(d), d[12]&0x01 != 0
		}
		d = d[end:]
	}
	return 0, false
}

// wantKeys compares the registered keys.
func (f *prFixture) wantKeys(keys ...uint64) {
	f.t.Helper()
	var got []uint64
	for d := f.in(reserve.ReadKeys)[8:]; len(d) > 0; d = d[8:] {
		got = append(got, binary.BigEndian.Uint64(d))
	}
	if !slices.Equal(got, keys) {
		f.t.Errorf("registered keys %x, want %x", got, keys)
	}
}

// wantReservation compares the reservation; type 0 stands for none.
func (f *prFixture) wantReservation(kind reserve.Type, key uint64) {
	f.t.Helper()
	d := f.in(reserve.ReadReservation)
	var gotKey uint64
	var got reserve.Type
	if len(d) == 24 {
		gotKey, got = binary.BigEndian.Uint64(d[8:]), reserve.Type(d[21])
	}
	if got != kind || gotKey != key {
		f.t.Errorf("reservation of type %d, key %x; want %d, %x", got, gotKey, kind, key)
	}
}

// wantAttentions takes the unit attentions of a nexus.
func (f *prFixture) wantAttentions(n *Nexus, want ...sense.ASC) {
	f.t.Helper()
	var got []sense.ASC
	itl := n.unit([8]byte{})
	for se := itl.takePending(); se != nil; se = itl.takePending() {
		got = append(got, se.ASC)
	}
	if !slices.Equal(got, want) {
		f.t.Errorf("%s has the unit attentions %v, want %v", n.ID.InitiatorName, got, want)
	}
}

// TestPersistentReserveOut_Register follows the tables of SPC-4 r37 5.12.7: what REGISTER and REGISTER
// AND IGNORE EXISTING KEY do to a nexus with the key 0Ah, or without one.
func TestPersistentReserveOut_Register(t *testing.T) {
	for _, tt := range []struct {
		registered     bool
		action         byte
		key, actionKey uint64
		status         byte
		keys           []uint64
	}{
		{false, reserve.Register, 0, 0, good, nil},
		{false, reserve.Register, 0, 5, good, []uint64{5}},
		{false, reserve.Register, 1, 0, conflict, nil},
		{false, reserve.Register, 1, 5, conflict, nil},
		{true, reserve.Register, 0x0A, 0, good, nil},
		{true, reserve.Register, 0x0A, 5, good, []uint64{5}},
		{true, reserve.Register, 0, 5, conflict, []uint64{0x0A}},
		{true, reserve.Register, 0, 0, conflict, []uint64{0x0A}},
		{true, reserve.Register, 1, 5, conflict, []uint64{0x0A}},
		{false, reserve.RegisterAndIgnore, 7, 5, good, []uint64{5}},
		{false, reserve.RegisterAndIgnore, 7, 0, good, nil},
		{true, reserve.RegisterAndIgnore, 7, 5, good, []uint64{5}},
		{true, reserve.RegisterAndIgnore, 7, 0, good, nil},
	} {
		t.Run(fmt.Sprintf("registered %t, action %d, keys %x %x", tt.registered, tt.action, tt.key, tt.actionKey), func(t *testing.T) {
			f := newPRFixture(t)
			if tt.registered {
				f.must(f.a, reserve.Register, 0, 0, 0x0A)
			}
			before := f.generation()
			f.out(f.a, tt.action, 0, prOutList(tt.key, tt.actionKey, 0)).wantStatus(t, tt.status)
			f.wantKeys(tt.keys...)
			if got := f.generation() - before; (got == 1) != (tt.status == good) {
				t.Errorf("PRGENERATION moved by %d", got)
			}
		})
	}
}

// Who is not registered, or gives another key, can do nothing but register.
func TestPersistentReserveOut_NotRegistered(t *testing.T) {
	for action := byte(reserve.Reserve); action <= reserve.RegisterAndMove; action++ {
		if action == reserve.RegisterAndIgnore {
			continue
		}
		f := newPRFixture(t)
		list := func(key uint64) []byte {
			if action == reserve.RegisterAndMove {
				return prMoveList(key, 9, 0, 1, nexus.AppendTransportID(nil, f.b.ID))
			}
			return prOutList(key, 0x0A, 0)
		}
		f.out(f.a, action, reserve.WriteExclusive, list(0)).wantStatus(t, conflict)
		f.must(f.a, reserve.Register, 0, 0, 0x0A)
		f.out(f.a, action, reserve.WriteExclusive, list(0)).wantStatus(t, conflict)
		f.out(f.a, action, reserve.WriteExclusive, list(0x0B)).wantStatus(t, conflict)
		f.wantKeys(0x0A)
		f.wantReservation(0, 0)
	}
}

func TestPersistentReserveOut_ReserveRelease(t *testing.T) {
	f := newPRFixture(t)
	f.registerAll()
	f.must(f.a, reserve.Reserve, reserve.WriteExclusive, 0x0A, 0)
	f.wantReservation(reserve.WriteExclusive, 0x0A)
	f.must(f.a, reserve.Reserve, reserve.WriteExclusive, 0x0A, 0) // again: no harm
	f.out(f.a, reserve.Reserve, reserve.ExclusiveAccess, prOutList(0x0A, 0, 0)).wantStatus(t, conflict)
	f.out(f.b, reserve.Reserve, reserve.WriteExclusive, prOutList(0x0B, 0, 0)).wantStatus(t, conflict)
	f.must(f.b, reserve.Release, reserve.WriteExclusive, 0x0B, 0) // not the holder: no effect
	f.wantReservation(reserve.WriteExclusive, 0x0A)
	for _, kind := range []reserve.Type{reserve.ExclusiveAccess, 0x10 | reserve.WriteExclusive} {
		f.out(f.a, reserve.Release, kind, prOutList(0x0A, 0, 0)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidReleaseOfPersistentReservation)
	}
	f.must(f.a, reserve.Release, reserve.WriteExclusive, 0x0A, 0)
	f.wantReservation(0, 0)
	f.must(f.a, reserve.Release, reserve.WriteExclusive, 0x0A, 0) // nothing to release
	for scopeType := range 256 {
		kind := reserve.Type(scopeType)
		if slices.Contains(prKinds, kind) {
			continue
		}
		f.out(f.a, reserve.Reserve, kind, prOutList(0x0A, 0, 0)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	}
	for _, n := range []*Nexus{f.a, f.b, f.c} {
		f.wantAttentions(n)
	}
	if g := f.generation(); g != 3 {
		t.Errorf("PRGENERATION %d, want 3: RESERVE and RELEASE do not count", g)
	}
}

// Registered nexuses that had access by the reservation learn that it has ended, others
// do not.
func TestPersistentReserveOut_UnitAttention(t *testing.T) {
	for kind, notified := range map[reserve.Type]bool{
		reserve.WriteExclusive: false, reserve.ExclusiveAccess: false,
		reserve.WriteExclusiveRegistrantsOnly: true, reserve.ExclusiveAccessRegistrantsOnly: true,
		reserve.WriteExclusiveAllRegistrants: true, reserve.ExclusiveAccessAllRegistrants: true,
	} {
		want := []sense.ASC{}
		if notified {
			want = append(want, sense.ASCReservationsReleased)
		}
		f := newPRFixture(t)
		f.must(f.a, reserve.Register, 0, 0, 0x0A)
		f.must(f.b, reserve.Register, 0, 0, 0x0B)
		f.must(f.a, reserve.Reserve, kind, 0x0A, 0)
		f.must(f.a, reserve.Release, kind, 0x0A, 0)
		f.wantAttentions(f.a)
		f.wantAttentions(f.b, want...)
		f.wantAttentions(f.c)

		f.must(f.a, reserve.Reserve, kind, 0x0A, 0)
		f.must(f.a, reserve.Register, 0, 0x0A, 0) // the holder unregisters
		if kind >= reserve.WriteExclusiveAllRegistrants {
			f.wantReservation(kind, 0) // b still holds it
			f.wantAttentions(f.b)
			f.must(f.b, reserve.Register, 0, 0x0B, 0)
		} else {
			f.wantAttentions(f.b, want...)
		}
		f.wantReservation(0, 0)
	}
}

func TestPersistentReserveOut_Clear(t *testing.T) {
	f := newPRFixture(t)
	f.must(f.a, reserve.Register, 0, 0, 0x0A)
	f.must(f.b, reserve.Register, 0, 0, 0x0B)
	f.must(f.a, reserve.Reserve, reserve.ExclusiveAccess, 0x0A, 0)
	f.must(f.b, reserve.Clear, 0, 0x0B, 0)
	f.wantAttentions(f.a, sense.ASCReservationsPreempted)
	f.wantAttentions(f.b)
	f.wantAttentions(f.c)
	f.wantKeys()
	f.wantReservation(0, 0)
	f.on(f.c, cdb10(0x28, 0, 0, 1)).wantStatus(t, good)
}

// TestPersistentReserveOut_Preempt follows SPC-4 r37 5.12.11.2.4: a holds a reservation of a type, b
// preempts with a service action reservation key.
func TestPersistentReserveOut_Preempt(t *testing.T) {
	const (
		we, ea, wero, wear = reserve.WriteExclusive, reserve.ExclusiveAccess, reserve.WriteExclusiveRegistrantsOnly, reserve.WriteExclusiveAllRegistrants
		released, removed  = sense.ASCReservationsReleased, sense.ASCRegistrationsPreempted
	)
	for name, tt := range map[string]struct {
		held, kind reserve.Type
		actionKey  uint64
		status     byte
		keys       []uint64
		after      reserve.Type
		key        uint64
		a, c       []sense.ASC
	}{
		"the holder":                 {we, we, 0x0A, good, []uint64{0x0B, 0x0C}, we, 0x0B, []sense.ASC{removed}, nil},
		"the holder, another type":   {we, ea, 0x0A, good, []uint64{0x0B, 0x0C}, ea, 0x0B, []sense.ASC{removed}, []sense.ASC{released}},
		"the holder, now for all":    {wero, wear, 0x0A, good, []uint64{0x0B, 0x0C}, wear, 0, []sense.ASC{removed}, []sense.ASC{released}},
		"another registration":       {we, ea, 0x0C, good, []uint64{0x0A, 0x0B}, we, 0x0A, nil, []sense.ASC{removed}},
		"its own registration":       {we, ea, 0x0B, good, []uint64{0x0A, 0x0C}, we, 0x0A, nil, nil},
		"a key without registration": {we, ea, 0x0D, conflict, []uint64{0x0A, 0x0B, 0x0C}, we, 0x0A, nil, nil},
		"no reservation":             {0, we, 0x0C, good, []uint64{0x0A, 0x0B}, 0, 0, nil, []sense.ASC{removed}},
		"all registrants":            {wear, we, 0, good, []uint64{0x0B}, we, 0x0B, []sense.ASC{removed}, []sense.ASC{removed}},
		"one of all registrants":     {wear, we, 0x0A, good, []uint64{0x0B, 0x0C}, wear, 0, []sense.ASC{removed}, nil},
		"key 0 with one holder":      {we, we, 0, checked, []uint64{0x0A, 0x0B, 0x0C}, we, 0x0A, nil, nil},
		"key 0, no reservation":      {0, we, 0, checked, []uint64{0x0A, 0x0B, 0x0C}, 0, 0, nil, nil},
		"the holder, no such type":   {we, 2, 0x0A, checked, []uint64{0x0A, 0x0B, 0x0C}, we, 0x0A, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newPRFixture(t)
			f.registerAll()
			if tt.held != 0 {
				f.must(f.a, reserve.Reserve, tt.held, 0x0A, 0)
			}
			f.out(f.b, reserve.Preempt, tt.kind, prOutList(0x0B, tt.actionKey, 0)).wantStatus(t, tt.status)
			f.wantAttentions(f.a, tt.a...)
			f.wantAttentions(f.b)
			f.wantAttentions(f.c, tt.c...)
			f.wantKeys(tt.keys...)
			f.wantReservation(tt.after, tt.key)
		})
	}
}

// A holder changes the type of its reservation by preempting itself, and stays
// registered; others with its key do not.
func TestPersistentReserveOut_PreemptOwn(t *testing.T) {
	f := newPRFixture(t)
	f.must(f.a, reserve.Register, 0, 0, 0x0A)
	f.must(f.b, reserve.Register, 0, 0, 0x0A)
	f.must(f.c, reserve.Register, 0, 0, 0x0C)
	f.must(f.a, reserve.Reserve, reserve.WriteExclusiveRegistrantsOnly, 0x0A, 0)
	f.must(f.a, reserve.Preempt, reserve.ExclusiveAccess, 0x0A, 0x0A)
	f.wantKeys(0x0A, 0x0C)
	f.wantReservation(reserve.ExclusiveAccess, 0x0A)
	f.wantAttentions(f.a)
	f.wantAttentions(f.b, sense.ASCRegistrationsPreempted)
	f.wantAttentions(f.c, sense.ASCReservationsReleased)
}

// A reservation of all registrants ends with the last of them, however that goes.
func TestPersistentReserveOut_LastRegistrant(t *testing.T) {
	f := newPRFixture(t)
	f.must(f.a, reserve.Register, 0, 0, 0x0A)
	f.must(f.a, reserve.Reserve, reserve.WriteExclusiveAllRegistrants, 0x0A, 0)
	f.must(f.a, reserve.Preempt, reserve.WriteExclusive, 0x0A, 0x0A)
	f.wantKeys()
	f.wantReservation(0, 0)
	f.on(f.c, cdb10(0x2A, 0, 0, 0)).wantStatus(t, good)
}

// abortCounter counts how often a nexus was asked to abort its task.
type abortCounter struct {
	task  *Task
	calls int
}

func (a *abortCounter) AbortTasks(match func(*Task) bool, except *Task) {
	if match(a.task) && except != nil {
		a.calls++
	}
}

func TestPersistentReserveOut_PreemptAndAbort(t *testing.T) {
	f := newPRFixture(t)
	f.registerAll()
	aborters := map[*Nexus]*abortCounter{}
	for _, n := range []*Nexus{f.a, f.b, f.c} {
		aborters[n] = &abortCounter{task: f.prepared(n, testUnitReady)}
		n.SetTaskAborter(aborters[n])
	}
	f.must(f.a, reserve.Reserve, reserve.WriteExclusive, 0x0A, 0)
	f.must(f.b, reserve.Preempt, reserve.WriteExclusive, 0x0B, 0x0C)
	if aborters[f.c].calls != 0 {
		t.Error("PREEMPT aborted tasks")
	}
	f.wantAttentions(f.c, sense.ASCRegistrationsPreempted)
	f.must(f.c, reserve.Register, 0, 0, 0x0C)
	f.must(f.b, reserve.PreemptAndAbort, reserve.WriteExclusive, 0x0B, 0x0A)
	for n, want := range map[*Nexus]int{f.a: 1, f.b: 0, f.c: 0} {
		if got := aborters[n].calls; got != want {
			t.Errorf("%s: tasks aborted %d times, want %d", n.ID.InitiatorName, got, want)
		}
	}
	f.wantAttentions(f.a, sense.ASCRegistrationsPreempted)
	f.wantReservation(reserve.WriteExclusive, 0x0B)
}

// A nexus is its ports.
func TestPersistentReserve_SessionEnd(t *testing.T) {
	f := newPRFixture(t)
	f.must(f.b, reserve.Register, 0, 0, 0x0B)
	f.must(f.b, reserve.Reserve, reserve.ExclusiveAccess, 0x0B, 0)
	f.target.Detach(f.b)
	f.wantReservation(reserve.ExclusiveAccess, 0x0B)
	f.on(f.a, cdb10(0x28, 0, 0, 1)).wantStatus(t, conflict)
	again := f.target.Attach(f.b.ID)
	again.unit([8]byte{}).takePending()
	f.on(again, cdb10(0x28, 0, 0, 1)).wantStatus(t, good)

	otherISID := f.b.ID
	otherISID.ISID[5]++
	n := f.target.Attach(otherISID)
	n.unit([8]byte{}).takePending()
	f.on(n, cdb10(0x28, 0, 0, 1)).wantStatus(t, conflict)
	f.target.ResetLU(f.a, [8]byte{}) // persistent is persistent
	f.wantAttentions(f.a, sense.ASCBusDeviceResetFunction)
	f.wantReservation(reserve.ExclusiveAccess, 0x0B)
}

// A write that was let in before another nexus took the logical unit does not reach the
// medium after it.
func TestPersistentReserve_FenceDuringDataOut(t *testing.T) {
	f := newPRFixture(t)
	task := NewTask(&f.pool)
	defer task.Release()
	task.Reset(f.a, cdb10(0x2A, 0, 0, 1))
	task.ExpectedOut = 512
	if f.target.Prepare(task) {
		t.Fatalf("refused: % x", task.Sense())
	}
	copy(task.AllocDataOut(512), pattern(512, 1))
	f.must(f.b, reserve.Register, 0, 0, 0x0B)
	f.must(f.b, reserve.Reserve, reserve.WriteExclusive, 0x0B, 0)
	f.target.Execute(t.Context(), task)
	if task.Result != conflict || slices.Contains(f.vol.data[:512], 1) {
		t.Errorf("status %02Xh", task.Result)
	}
}
