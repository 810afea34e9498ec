package backstore

import (
	"bytes"
	"errors"
	"testing"

	"odx/internal/kit/must"
)

// TestStore_EndHolds: an administrator ends the holds of a store that does not come back; another
// one's stay.
func TestStore_EndHolds(t *testing.T) {
	ctx := t.Context()
	p := newShared(t, 3, Options{DedupUnit: 4 << 10})
	src := createVolume(t, p.stores[0], "src", 1<<20)
	must.Succeed(t, src.WriteAt(ctx, randomBytes(1, 1<<20), 0))
	n := pin(t, src)
	for i := 1; i < 3; i++ {
		mustAdopt(t, p, 0, n, createVolume(t, p.stores[i], "v", 1<<20), 0, 0, 1<<20)
	}
	if list := p.stores[0].HeldBy(); len(list) != 2 || list[0].Segments != 1 || list[0].Bytes < 1<<20 {
		t.Errorf("%+v", list)
	}
	ended, err := p.stores[0].EndHolds(ctx, p.stores[1].ID())
	if err != nil || ended != 1 {
		t.Errorf("%d, %v", ended, err)
	}
	if list := p.stores[0].HeldBy(); len(list) != 1 || list[0].Taker != p.stores[2].ID() {
		t.Errorf("%+v", list)
	}
	if ended, err := p.stores[0].EndHolds(ctx, p.stores[1].ID()); err != nil || ended != 0 {
		t.Errorf("once more: %d, %v", ended, err)
	}
	claims, _ := p.stores[1].Claims(p.stores[0].ID())
	if missing := p.stores[0].Unheld(claims[0]); len(missing) != 1 {
		t.Errorf("missing: %v", missing)
	}
	p.close()
}

// TestClaim_Late: a claim or a hold that arrives late, from an owner of before too, ends no hold
// that is needed.
func TestClaim_Late(t *testing.T) {
	ctx := t.Context()
	p := newShared(t, 2, Options{DedupUnit: 4 << 10})
	src := createVolume(t, p.stores[0], "src", 1<<20)
	must.Succeed(t, src.WriteAt(ctx, randomBytes(1, 1<<20), 0))
	n := pin(t, src)
	v := createVolume(t, p.stores[1], "v", 1<<20)
	must.Succeed(t, p.stores[1].Flush(ctx))
	held := func(want bool) {
		t.Helper()
		if got := p.stores[0].LentBytes() > 0; got != want {
			t.Fatalf("held: %v, want %v", got, want)
		}
	}
	early, _ := p.stores[1].Claims(p.stores[0].ID()) // from before the hold
	mustAdopt(t, p, 0, n, v, 0, 0, 1<<20)
	_, err := p.stores[0].Settle(ctx, early[0])
	must.Succeed(t, err)
	held(true)

	// An adoption that has a hold and no alias yet.
	a, err := v.BeginAdoption(p.stores[0].ID())
	must.Succeed(t, err)
	must.Succeed(t, v.Unmap(ctx, 0, 1<<20))
	reaped(t, p.stores[1])
	must.Succeed(t, p.stores[1].Checkpoint(ctx))
	loan, err := n.Lend(ctx, a.Terms(), 0, 1<<20)
	must.Succeed(t, err)
	during, settled := p.stores[1].Claims(p.stores[0].ID())
	if len(during[0].Segments) != 0 {
		t.Fatal("the alias is there still")
	}
	_, err = p.stores[0].Settle(ctx, during[0])
	must.Succeed(t, err)
	settled()
	held(true)
	if _, _, err := a.Apply(ctx, 0, loan); err != nil {
		t.Fatal(err)
	}
	a.End()
	must.Succeed(t, p.stores[1].Flush(ctx))

	// One of the owner before, which has not met what its successor has adopted.
	must.Succeed(t, v.Unmap(ctx, 0, 1<<20))
	reaped(t, p.stores[1])
	must.Succeed(t, p.stores[1].Checkpoint(ctx))
	late, _ := p.stores[1].Claims(p.stores[0].ID())
	p.kill(1)
	v, err = p.stores[1].Volume("v")
	must.Succeed(t, err)
	mustAdopt(t, p, 0, n, v, 0, 0, 1<<20)
	_, err = p.stores[0].Settle(ctx, late[0])
	must.Succeed(t, err)
	held(true)
	must.Succeed(t, v.Unmap(ctx, 0, 1<<20))
	reaped(t, p.stores[1])
	must.Succeed(t, p.stores[1].Checkpoint(ctx))
	p.settle(1)
	held(false)
	p.close()
}

// TestAdoption_Owes: an adoption that did not use what it was lent owes a claim, which ends the
// hold.
func TestAdoption_Owes(t *testing.T) {
	ctx := t.Context()
	p := newShared(t, 2, Options{DedupUnit: 4 << 10})
	src := createVolume(t, p.stores[0], "src", 1<<20)
	must.Succeed(t, src.WriteAt(ctx, randomBytes(1, 1<<20), 0))
	v := createVolume(t, p.stores[1], "v", 1<<20)
	a, err := v.BeginAdoption(p.stores[0].ID())
	must.Succeed(t, err)
	_, err = pin(t, src).Lend(ctx, a.Terms(), 0, 1<<20)
	must.Succeed(t, err)
	if len(p.stores[1].Owed()) != 0 {
		t.Error("a claim is due before the adoption ends")
	}
	a.End() // the answer was lost
	if owed := p.stores[1].Owed(); len(owed) != 1 || owed[0] != p.stores[0].ID() {
		t.Errorf("owed: %x", owed)
	}
	select {
	case <-p.stores[1].ClaimsDue():
	default:
		t.Error("nothing says so")
	}
	p.settle(1)
	if p.stores[0].LentBytes() != 0 || len(p.stores[1].Owed()) != 0 {
		t.Error("the hold is there after the claim")
	}
	mustAdopt(t, p, 0, pin(t, src), v, 0, 0, 1<<20)
	if len(p.stores[1].Owed()) != 0 {
		t.Error("an adoption that has used all owes a claim")
	}
	p.close()
}

// FuzzHold: the record of a hold is refused, or is written as it was read.
func FuzzHold(f *testing.F) {
	f.Add(holdKey([16]byte{1, 2}, 0x42), encodeHold(Stamp{3, 4}))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if taker, id, ok := parseHoldKey(key); ok && !bytes.Equal(holdKey(taker, id), key) {
			t.Errorf("key %q is that of %x, %08x", key, taker, uint32(id))
		}
		if stamp, err := decodeHold(value); err == nil && !bytes.Equal(encodeHold(stamp), value) {
			t.Errorf("value %x reads as %+v", value, stamp)
		}
	})
}

// TestHolds_Record: a record that is no hold keeps the store from opening, before it gives up anything.
func TestHolds_Record(t *testing.T) {
	p := newShared(t, 1, Options{})
	s := p.stores[0]
	must.Succeed(t, s.PutRecords(t.Context(), Record{Key: holdKey([16]byte{1}, 5), Value: []byte("x")}))
	if err := s.loadHolds(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a hold of another form: %v, want ErrCorrupt", err)
	}
	must.Succeed(t, s.PutRecords(t.Context(), Record{Key: holdKey([16]byte{1}, 5), Value: encodeHold(Stamp{1, 2})}))
	must.Succeed(t, s.loadHolds())
	if !s.holds.has(5) || s.holds.leave(5) {
		t.Error("the segment is not held")
	}
	p.close()
}
