package backstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"odx/backstore/vfs/rados"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

// adoptions is a random history of stores that adopt extents of each other: their owners are cut
// off at any change that they send to the pool, and taken over from; claims are lost and come late;
// data is unmapped, deleted, cleaned and brought home. The model has the value of each block.
type adoptions struct {
	*shared
	rng    *rand.Rand
	blocks [][]uint32 // of volume "v" of each store
	value  uint32
	late   []lateClaim
	left   []*rados.Client // of owners that were cut off
	log    []string
	kills  int
}

type lateClaim struct {
	maker int
	claim Claim
}

const adoptBlocks = 600 // more than two plans

// TestModel_Adoptions: whatever the order of these, every block of every store is what the model
// says, no store is without a hold that it needs, and every store is sound.
func TestModel_Adoptions(t *testing.T) {
	forSeeds(t, sample.Size[uint64](2, 6, 60), func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 21))
		o := Options{DedupUnit: 4 << 10 << rng.IntN(3), CacheBytes: []int64{1 << 20, 4 << 20}[rng.IntN(2)], StoreDuplicates: rng.IntN(6) == 0}
		o.tuning.segmentBlocks, o.tuning.writeBackBytes = []uint32{0, planBlocks + 8}[rng.IntN(2)], []int64{0, 64 << 10}[rng.IntN(2)]
		m := &adoptions{shared: newShared(t, 3, o), rng: rng}
		defer func() {
			if t.Failed() {
				for _, line := range m.log {
					t.Log(line)
				}
			}
		}()
		for i, s := range m.stores {
			createVolume(t, s, "v", adoptBlocks*BlockLength)
			must.Succeed(t, s.Flush(context.Background()))
			m.blocks = append(m.blocks, make([]uint32, adoptBlocks))
			m.write(i)
		}
		for range sample.Size(30, 60, 200) {
			m.step()
			m.needHolds()
		}
		m.end()
		t.Logf("%d kills", m.kills)
	})
}

func (m *adoptions) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

// volume returns the volume of a store.
func (m *adoptions) volume(i int) *Volume {
	v, err := m.stores[i].Volume("v")
	must.Succeed(m.t, err)
	return v
}

// span draws a range of blocks.
func (m *adoptions) span() (first, n int) {
	first = m.rng.IntN(adoptBlocks)
	return first, 1 + m.rng.IntN(adoptBlocks-first)
}

func (m *adoptions) step() {
	i := m.rng.IntN(len(m.stores))
	switch what := m.rng.IntN(20); {
	case what < 3:
		m.write(i)
	case what < 5:
		m.unmap(i)
	case what < 12:
		m.copy(i)
	case what < 13:
		m.note("checkpoint of %d", i)
		m.may(i, m.stores[i].Checkpoint)
	case what < 14:
		m.note("%d cleans", i)
		m.may(i, m.stores[i].Clean)
	case what < 15:
		m.note("%d brings home", i)
		m.may(i, m.stores[i].BringHome)
	case what < 18:
		m.claim(i)
	case what < 19 && len(m.left) > 0:
		m.note("what an owner of before has sent arrives")
		m.left[m.rng.IntN(len(m.left))].Deliver()
	default:
		m.replace(i, "between operations")
		m.verify()
	}
}

// errCut: an owner was cut off, also where what it did has succeeded before.
var errCut = errors.New("it was cut off")

// armed runs op, in which the owner of a store is cut off at one of its next changes, sometimes.
func (m *adoptions) armed(i int, op func() error) error {
	if m.rng.IntN(3) > 0 {
		return op()
	}
	client := m.client[i]
	var left atomic.Int64
	left.Store(1 + m.rng.Int64N(40))
	m.twins[i].SetHook(func(string, *rados.Change) error {
		if left.Add(-1) == 0 {
			client.Cut()
		}
		return nil
	})
	err := op()
	m.twins[i].SetHook(nil)
	if err == nil && left.Load() <= 0 {
		return errCut
	}
	return err
}

// may runs an operation that changes no content, in which the owner may be cut off.
func (m *adoptions) may(i int, op func(context.Context) error) {
	if err := m.armed(i, func() error { return op(context.Background()) }); err != nil {
		m.replace(i, err.Error())
		m.verify()
	}
}

// replace cuts the owner of a store off and has another process take over.
func (m *adoptions) replace(i int, why string) {
	m.note("the owner of %d is replaced: %s", i, why)
	m.kills++
	m.left = append(m.left, m.kill(i))
}

// change runs an operation after which blocks from first on have other values: if it fails, each
// of them has the new one or that of before, and the owner is replaced.
func (m *adoptions) change(i, first int, values []uint32, op func(v *Volume) error) {
	err := m.armed(i, func() error {
		if err := op(m.volume(i)); err != nil {
			return err
		}
		return m.stores[i].Flush(context.Background())
	})
	if err != nil {
		m.replace(i, err.Error())
	}
	found := m.read(i)
	for k, want := range values {
		got := found[first+k]
		if got != want && (err == nil || got != m.blocks[i][first+k]) {
			m.t.Fatalf("block %d of store %d is %d, want %d, before %d, after %v", first+k, i, got, want, m.blocks[i][first+k], err)
		}
		m.blocks[i][first+k] = got
	}
	m.same(i, found)
}

// blockBytes returns the content of blocks.
func blockBytes(values []uint32) []byte {
	p := make([]byte, len(values)*BlockLength)
	for i, v := range values {
		if v != 0 {
			fill(p[i*BlockLength:(i+1)*BlockLength], v)
		}
	}
	return p
}

// read returns the values of the blocks of a store.
func (m *adoptions) read(i int) []uint32 {
	p := readAll(m.t, m.volume(i))
	found := make([]uint32, adoptBlocks)
	for k := range found {
		b := p[k*BlockLength : (k+1)*BlockLength]
		found[k] = uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		if !slices.Equal(b, blockBytes(found[k:k+1])) {
			m.t.Fatalf("block %d of store %d is not one that was written", k, i)
		}
	}
	return found
}

func (m *adoptions) same(i int, found []uint32) {
	for k, got := range found {
		if got != m.blocks[i][k] {
			m.t.Fatalf("block %d of store %d is %d, want %d", k, i, got, m.blocks[i][k])
		}
	}
}

// verify compares all stores with the model.
func (m *adoptions) verify() {
	for i := range m.stores {
		m.same(i, m.read(i))
	}
}

// draw returns new values; some are those of other blocks.
func (m *adoptions) draw(n int) []uint32 {
	values := make([]uint32, n)
	for k := range values {
		m.value++
		if values[k] = m.value; m.rng.IntN(8) == 0 {
			values[k] = 1 + uint32(m.rng.IntN(int(m.value)))
		}
	}
	return values
}

func (m *adoptions) write(i int) {
	first, n := m.span()
	m.note("%d writes %d blocks at %d", i, n, first)
	values := m.draw(n)
	m.change(i, first, values, func(v *Volume) error {
		return v.WriteAt(context.Background(), blockBytes(values), int64(first)*BlockLength)
	})
}

func (m *adoptions) unmap(i int) {
	first, n := m.span()
	m.note("%d unmaps %d blocks at %d", i, n, first)
	m.change(i, first, make([]uint32, n), func(v *Volume) error {
		return v.Unmap(context.Background(), int64(first)*BlockLength, int64(n)*BlockLength)
	})
}

// copy adopts a range of another store, as a server does; what is not lent is read and written.
// Either owner can be cut off in it, and the answer can be lost.
func (m *adoptions) copy(to int) {
	from := (to + 1 + m.rng.IntN(len(m.stores)-1)) % len(m.stores)
	src, n := m.span()
	at := m.rng.IntN(adoptBlocks - n + 1)
	m.note("%d copies %d blocks at %d of %d to %d", to, n, src, from, at)
	ctx := context.Background()
	snapshot, err := m.volume(from).Snapshot(ctx, []Range{{Length: adoptBlocks * BlockLength}}, nil)
	must.Succeed(m.t, err)
	a, err := m.volume(to).BeginAdoption(m.stores[from].ID())
	must.Succeed(m.t, err)
	var loan Loan
	err = m.armed(from, func() (err error) {
		loan, err = snapshot.Lend(ctx, a.Terms(), int64(src)*BlockLength, int64(n)*BlockLength)
		return err
	})
	snapshot.Release()
	if err != nil {
		a.End()
		m.replace(from, err.Error())
		m.verify()
		return
	}
	must.Succeed(m.t, m.endSnapshots(from))
	if m.rng.IntN(5) == 0 {
		m.note("the answer is lost")
		a.End()
		return
	}
	if m.rng.IntN(4) == 0 {
		m.replace(from, "after its answer")
	}
	values := slices.Clone(m.blocks[from][src : src+n])
	m.change(to, at, values, func(v *Volume) error {
		defer a.End()
		done, missing, err := a.Apply(ctx, int64(at)*BlockLength, loan)
		if err != nil {
			return err
		}
		if done != int64(n)*BlockLength {
			m.t.Fatalf("%d bytes done, want %d blocks", done, n)
		}
		for _, r := range missing {
			k := int(r.Offset/BlockLength) - at
			if err := v.WriteAt(ctx, blockBytes(values[k:k+int(r.Length/BlockLength)]), r.Offset); err != nil {
				return err
			}
		}
		return nil
	})
}

// endSnapshots deletes the snapshots of a store.
func (m *adoptions) endSnapshots(i int) error {
	for _, id := range m.stores[i].catalog.snapshotIDs() {
		if err := m.stores[i].DeleteSnapshot(context.Background(), id); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

// claim sends the claims of a store: they are settled, lost, or come late.
func (m *adoptions) claim(i int) {
	for k := range m.stores {
		if k == i {
			continue
		}
		claims, settled := m.stores[i].Claims(m.stores[k].ID())
		switch m.rng.IntN(4) {
		case 0:
			m.note("a claim of %d on %d comes late", i, k)
			m.late = append(m.late, lateClaim{k, claims[0]})
		default:
			m.note("%d settles a claim of %d: %v", k, i, claims[0].Segments)
			if m.settleOne(k, claims[0]) {
				settled()
			}
		}
	}
	if len(m.late) > 0 && m.rng.IntN(2) == 0 {
		at := m.rng.IntN(len(m.late))
		m.note("a late claim arrives at %d", m.late[at].maker)
		m.settleOne(m.late[at].maker, m.late[at].claim)
	}
}

// settleOne settles a claim, in which the maker's owner may be cut off.
func (m *adoptions) settleOne(maker int, c Claim) bool {
	err := m.armed(maker, func() error {
		_, err := m.stores[maker].Settle(context.Background(), c)
		return err
	})
	if err != nil {
		m.replace(maker, err.Error())
		m.verify()
	}
	return err == nil
}

// needHolds proves that every alias has its hold.
func (m *adoptions) needHolds() {
	for i := range m.stores {
		for k := range m.stores {
			if k == i {
				continue
			}
			claims, _ := m.stores[i].Claims(m.stores[k].ID())
			if missing := m.stores[k].Unheld(claims[0]); len(missing) > 0 {
				m.t.Fatalf("store %d has aliases of segments %x of store %d, which are not held", i, missing, k)
			}
		}
	}
}

// end proves that all is right and sound, and that nothing is left once all is brought home.
func (m *adoptions) end() {
	ctx := context.Background()
	m.verify()
	for _, s := range m.stores {
		requireSound(m.t, s)
	}
	for _, s := range m.stores {
		must.Succeed(m.t, s.BringHome(ctx))
	}
	for i := range m.stores {
		m.settle(i)
	}
	for i, s := range m.stores {
		must.Succeed(m.t, m.endSnapshots(i), s.Checkpoint(ctx))
		if a, l := s.AdoptedBytes(), s.LentBytes(); a != 0 || l != 0 {
			m.t.Errorf("store %d: %d bytes are adopted, %d lent, after all was brought home", i, a, l)
		}
		requireSound(m.t, s)
	}
	m.verify()
	m.close()
}
