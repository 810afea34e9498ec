package scsi

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"unicode/utf8"
)

// FuzzPersistentReserveOut sends any service action with any parameter list to a
// logical unit that is reserved, and asks everything about it afterwards.
func FuzzPersistentReserveOut(f *testing.F) {
	id := appendTransportID(nil, NexusID{InitiatorName: "iqn.2026-11.example.initiator:b"})
	f.Add(byte(prOutRegister), byte(0), prOutList(0, 5, aptpl))
	f.Add(byte(prOutRegister), byte(0), prOutNaming(0, 5, 0x04, id, nameOnly("iqn.2026-11.example.initiator:b")))
	f.Add(byte(prOutReserve), byte(8), prOutList(0x0A, 0, 0))
	f.Add(byte(prOutRelease), byte(5), prOutList(0x0A, 0, 0))
	f.Add(byte(prOutClear), byte(0), prOutList(0x0A, 0, 0))
	f.Add(byte(prOutPreemptAndAbort), byte(3), prOutList(0x0A, 0x0A, 0))
	f.Add(byte(prOutRegisterAndIgnore), byte(0), prOutList(0, 0, 0))
	f.Add(byte(prOutRegisterAndMove), byte(0), prMoveList(0x0A, 5, 3, 1, id))
	f.Fuzz(func(t *testing.T, action, kind byte, list []byte) {
		r := &prRecords{}
		fx := newPRFixture(t, keeping(r))
		fx.out(fx.a, prOutRegister, 0, prOutList(0, 0x0A, aptpl)).wantStatus(t, good)
		fx.must(fx.b, prOutRegister, 0, 0, 0x0B)
		fx.must(fx.a, prOutReserve, typeWriteExclusiveRegistrantsOnly, 0x0A, 0)
		list = list[:min(len(list), maxPROutList)]
		fuzzCommand(t, fx.fixture, [8]byte{}, prOutCDB(action&0x1F, reservationType(kind), len(list)), list, uint32(len(list)))
		for action := range byte(4) {
			fuzzCommand(t, fx.fixture, [8]byte{}, prInCDB(action), nil, 0)
		}
		s := fx.lu.persistent.Load()
		if !s.aptpl || !validNames(s) {
			return
		}
		if again := newPRFixture(t, keeping(r)).lu.persistent.Load(); !again.equal(s) && len(s.registrations) > 0 {
			t.Fatalf("kept %+v of %+v", again, s)
		}
	})
}

func validNames(s *persistentState) bool {
	for _, r := range s.registrations {
		if !utf8.ValidString(r.nexus.InitiatorName) {
			return false
		}
	}
	return true
}

func FuzzTransportID(f *testing.F) {
	f.Add(nameOnly("iqn.a"))
	f.Add(appendTransportID(nil, NexusID{InitiatorName: "iqn.a"}))
	f.Add(append(nameOnly("iqn.a"), appendTransportID(nil, NexusID{InitiatorName: "iqn.b", ISID: [6]byte{1, 2}})...))
	f.Fuzz(func(t *testing.T, p []byte) {
		list, ok := parseTransportIDs(p)
		if !ok {
			return
		}
		for _, id := range list {
			if id.isid == nil {
				continue
			}
			back, rest, ok := parseTransportID(appendTransportID(nil, NexusID{InitiatorName: id.name, ISID: *id.isid}))
			if !ok || back.name != id.name || *back.isid != *id.isid || len(rest) != 0 {
				t.Fatalf("%+v came back as %+v (%t)", id, back, ok)
			}
		}
	})
}

// FuzzReservationsRecord: whatever the store returns is a state that can be
// written again, or an error.
func FuzzReservationsRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"registrations":[{"key":1,"nexus":{"initiator":"iqn.a","isid":[0,0,0,0,0,1],"target":"iqn.t","portal_group_tag":1}}]}`))
	f.Add([]byte(`{"version":1,"type":5,"holder":{"initiator":"iqn.a"},"registrations":[{"key":1,"nexus":{"initiator":"iqn.a"}}]}`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeReservations(data)
		if err != nil || !validNames(s) {
			return
		}
		first, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeReservations(first)
		if err != nil {
			t.Fatal(err)
		}
		if second, _ := again.encode(); !bytes.Equal(first, second) {
			t.Fatalf("%s became %s", first, second)
		}
	})
}

// TestReservationsConcurrently lets nexuses come, reserve in every way, read,
// preempt each other, and go, all at once; the race detector looks on. In the
// end nothing is left that a CLEAR does not end.
func TestReservationsConcurrently(t *testing.T) {
	f := newPRFixture(t, keeping(&prRecords{}))
	var all sync.WaitGroup
	for i := range uint64(6) {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, i))
			id := NexusID{InitiatorName: "iqn.racer", ISID: [6]byte{5: byte(i)}, TargetName: f.target.Name(), TargetPortalGroupTag: 1}
			for range 20 {
				n := f.target.Attach(id)
				for range 20 {
					key, other := i+1, random.Uint64N(6)+1
					actions := [][]byte{prOutList(key, 0, 0), prOutList(0, key, 0), prOutList(key, other, 0), prOutList(0, key, aptpl)}
					cdbs := [][]byte{
						prOutCDB(prOutReserve, prKinds[random.IntN(len(prKinds))], 24),
						prOutCDB(prOutRegisterAndIgnore, 0, 24),
						prOutCDB(prOutPreemptAndAbort, prKinds[random.IntN(len(prKinds))], 24),
						prOutCDB(prOutRegister, 0, 24),
					}
					which := random.IntN(len(cdbs))
					f.run(request{nexus: n, cdb: cdbs[which], out: actions[which], expectedOut: -1})
					for _, cdb := range [][]byte{cdb10(0x28, 0, 0, 1), reserve6, prInCDB(prInReadFullStatus), release6, reportTPG(0, 255)} {
						f.on(n, cdb)
					}
				}
				f.target.Detach(n)
			}
		})
	}
	all.Wait()
	f.wantAttentions(f.a)
	f.must(f.a, prOutRegisterAndIgnore, 0, 0, 0x0A)
	f.must(f.a, prOutClear, 0, 0x0A, 0)
	if f.lu.reserved.Load() != nil {
		t.Error("a reservation is left")
	}
	if err := f.lu.changing.lock(context.Background()); err != nil {
		t.Fatal(err)
	}
}
