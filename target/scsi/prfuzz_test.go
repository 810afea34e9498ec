package scsi

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"odx/target/scsi/nexus"
	"odx/target/scsi/reserve"
)

// FuzzPersistentReserveOut sends any service action with any parameter list to a
// logical unit that is reserved, and asks everything about it afterwards.
func FuzzPersistentReserveOut(f *testing.F) {
	id := nexus.AppendTransportID(nil, NexusID{InitiatorName: "iqn.2026-11.example.initiator:b"})
	f.Add(byte(reserve.Register), byte(0), prOutList(0, 5, aptpl))
	f.Add(byte(reserve.Register), byte(0), prOutNaming(0, 5, 0x04, id, nameOnly("iqn.2026-11.example.initiator:b")))
	f.Add(byte(reserve.Reserve), byte(8), prOutList(0x0A, 0, 0))
	f.Add(byte(reserve.Release), byte(5), prOutList(0x0A, 0, 0))
	f.Add(byte(reserve.Clear), byte(0), prOutList(0x0A, 0, 0))
	f.Add(byte(reserve.PreemptAndAbort), byte(3), prOutList(0x0A, 0x0A, 0))
	f.Add(byte(reserve.RegisterAndIgnore), byte(0), prOutList(0, 0, 0))
	f.Add(byte(reserve.RegisterAndMove), byte(0), prMoveList(0x0A, 5, 3, 1, id))
	f.Fuzz(func(t *testing.T, action, kind byte, list []byte) {
		r := &prRecords{}
		fx := newPRFixture(t, keeping(r))
		fx.out(fx.a, reserve.Register, 0, prOutList(0, 0x0A, aptpl)).wantStatus(t, good)
		fx.must(fx.b, reserve.Register, 0, 0, 0x0B)
		fx.must(fx.a, reserve.Reserve, reserve.WriteExclusiveRegistrantsOnly, 0x0A, 0)
		list = list[:min(len(list), reserve.MaxList)]
		fuzzCommand(t, fx.fixture, [8]byte{}, prOutCDB(action&0x1F, reserve.Type(kind), len(list)), list, uint32(len(list)))
		for action := range byte(4) {
			fuzzCommand(t, fx.fixture, [8]byte{}, prInCDB(action), nil, 0)
		}
		if fx.in(reserve.ReportCapabilities)[3]&0x01 == 0 { // PTPL_A
			return
		}
		seen := func(fx *prFixture) string { // but for PRGENERATION
			return fmt.Sprintf("% x % x", fx.in(reserve.ReadFullStatus)[4:], fx.in(reserve.ReadReservation)[4:])
		}
		if now, again := seen(fx), seen(newPRFixture(t, keeping(r))); again != now {
			t.Fatalf("kept %s of %s", again, now)
		}
	})
}

// TestPersistentReserve_Concurrent lets nexuses come, reserve in every way, read,
// preempt each other, and go, all at once; the race detector looks on. In the
// end nothing is left that a CLEAR does not end.
func TestPersistentReserve_Concurrent(t *testing.T) {
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
						prOutCDB(reserve.Reserve, prKinds[random.IntN(len(prKinds))], 24),
						prOutCDB(reserve.RegisterAndIgnore, 0, 24),
						prOutCDB(reserve.PreemptAndAbort, prKinds[random.IntN(len(prKinds))], 24),
						prOutCDB(reserve.Register, 0, 24),
					}
					which := random.IntN(len(cdbs))
					f.run(request{nexus: n, cdb: cdbs[which], out: actions[which], expectedOut: -1})
					for _, cdb := range [][]byte{cdb10(0x28, 0, 0, 1), reserve6, prInCDB(reserve.ReadFullStatus), release6, reportTPG(0, 255)} {
						f.on(n, cdb)
					}
				}
				f.target.Detach(n)
			}
		})
	}
	all.Wait()
	f.wantAttentions(f.a)
	f.must(f.a, reserve.RegisterAndIgnore, 0, 0, 0x0A)
	f.must(f.a, reserve.Clear, 0, 0x0A, 0)
	if f.lu.Reserved(new(Nexus), AccessWrite) != nil {
		t.Error("a reservation is left")
	}
}
