package extent

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"odx/backstore/meta"
	"odx/backstore/segment"
	"odx/internal/kit/must"
)

// TestTable_Claim: a claim adds references to what is there with the checksum, to nothing
// else, and says which that is.
func TestTable_Claim(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	m := newTableModel(t, meta.NewMem(), testUnit)
	var slots []Slot
	var crcs []uint32
	for i := range 700 { // more than a page of counts
		id, x := mustCreate(t, m.table)
		own := slotsOf(m.table, id)
		if i%5 == 0 {
			must.Succeed(t, m.table.Unref(own))
		}
		for k, s := range own {
			slots, crcs = append(slots, s), append(crcs, x.CRC[k])
		}
	}
	dead := func(id ID) bool { _, ok, _ := m.table.Get(id); return !ok }
	before := func(id ID) int64 {
		if dead(id) {
			return 0
		}
		n, _, err := m.table.References(id)
		must.Succeed(t, err)
		return int64(n)
	}
	for range 200 {
		n := 1 + rng.IntN(60)
		claim, want, crc := make([]Slot, n), make([]Slot, n), make([]uint32, n)
		added, had := make(map[ID]int64), make(map[ID]int64)
		at := rng.IntN(len(slots))
		for i := range claim {
			k := (at + i) % len(slots)
			if rng.IntN(10) == 0 {
				k = rng.IntN(len(slots))
			}
			claim[i], crc[i] = slots[k], crcs[k]
			id := m.table.id(claim[i])
			had[id] = before(id)
			switch {
			case rng.IntN(10) == 0:
				crc[i]++
			case rng.IntN(20) == 0:
				claim[i] = 0
			case rng.IntN(20) == 0:
				claim[i] += 1 << 40
			case !dead(id):
				want[i] = claim[i]
				added[id]++
			}
		}
		must.Succeed(t, m.table.Claim(claim, crc))
		for i := range claim {
			if claim[i] != want[i] {
				t.Fatalf("slot %d is claimed as %d, want %d", i, claim[i], want[i])
			}
		}
		for id, n := range had {
			if got := before(id); got != n+added[id] {
				t.Fatalf("extent %d has %d references, want %d and %d more", id, got, n, added[id])
			}
		}
		must.Succeed(t, m.table.Unref(claim))
	}
}

// TestTable_Claim_Unread: after an error of reading, what is claimed can be given back; damage
// is as if the extent were gone.
func TestTable_Claim_Unread(t *testing.T) {
	kv := &failingKV{Mem: meta.NewMem()}
	m := newTableModel(t, kv, 1)
	slots, crcs := []Slot(nil), []uint32(nil)
	for range 1200 {
		id := m.table.Allocate(1)
		x := Extent{Addr: segment.Addr{Segment: 3, Block: uint32(id)}, Blocks: 1, CRC: [MaxUnit]uint32{uint32(id) * 7}}
		must.Succeed(t, m.table.Create(id, &x))
		slots, crcs = append(slots, m.table.Slot(id, 0)), append(crcs, x.CRC[0])
	}
	m.checkpoint(t)
	for _, prefix := range []byte{CountPrefix, PagePrefix} {
		for _, cause := range []error{meta.ErrDamaged, errBroken} {
			m.open(t)
			kv.fail = func(key []byte) error {
				if key[0] == prefix && binary.BigEndian.Uint64(key[1:]) == 1 {
					return cause
				}
				return nil
			}
			claim := append([]Slot(nil), slots...)
			err := m.table.Claim(claim, crcs)
			kv.fail = nil
			if cause == meta.ErrDamaged && err != nil || cause == errBroken && !errors.Is(err, errBroken) {
				t.Fatalf("%c: %v, want %v", prefix, err, cause)
			}
			// Slots are claimed by the page of their counts, all or none of them.
			first := prefix == CountPrefix || cause == meta.ErrDamaged
			if (claim[0] == slots[0]) != first || claim[600] != 0 && prefix == CountPrefix || claim[200] != 0 && prefix == PagePrefix {
				t.Errorf("%c, %v: what cannot be read was claimed, or nothing was", prefix, cause)
			}
			if last := len(claim) - 1; (claim[last] != 0) != (cause == meta.ErrDamaged) {
				t.Errorf("%c, %v: the last slot is claimed as %d", prefix, cause, claim[last])
			}
			for i, s := range slots {
				want := uint64(1)
				if claim[i] != 0 {
					want = 2
				}
				if n, _, err := m.table.References(m.table.id(s)); n != want || err != nil {
					t.Fatalf("%c, %v: slot %d has %d references, %v, want %d", prefix, cause, i, n, err, want)
				}
			}
			must.Succeed(t, m.table.Unref(claim))
		}
	}
}

// failingKV fails reads with the error of fail.
type failingKV struct {
	*meta.Mem
	fail func(key []byte) error
}

func (k *failingKV) Get(key []byte) ([]byte, error) {
	if k.fail != nil {
		if err := k.fail(key); err != nil {
			return nil, err
		}
	}
	return k.Mem.Get(key)
}
