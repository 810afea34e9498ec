package backstore

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"odx/backstore/segment"
	"odx/backstore/vfs/rados"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// shared is some stores of one pool, each with a twin of its part of it. Place N is the Nth.
type shared struct {
	t      testing.TB
	clocks []*atomic.Int64
	twins  []*rados.Twin
	client []*rados.Client // of the owners
	stores []*Store
	o      Options // of all
}

func newShared(t testing.TB, n int, o Options) *shared {
	p := &shared{t: t, o: o, stores: make([]*Store, n), client: make([]*rados.Client, n)}
	for range n {
		clock := new(atomic.Int64)
		p.clocks = append(p.clocks, clock)
		p.twins = append(p.twins, rados.NewTwin(func() time.Duration { return time.Duration(clock.Load()) }))
	}
	for i := range n {
		p.start(i)
	}
	return p
}

// start opens a store as another process would.
func (p *shared) start(i int) {
	p.t.Helper()
	p.client[i] = p.twins[i].Client()
	o := p.o
	o.Dir, o.Log, o.FS, o.Shared, o.Siblings = "/store", logs.Discard(), rados.New(p.client[i]), true, twinSiblings{p, i}
	o.FingerprintKey = &[32]byte{1, 2, 3}
	o.tuning.reserveBytes = 1 << 20
	if o.tuning.bringHomeAfter == 0 {
		o.tuning.bringHomeAfter = time.Hour // the test says when
	}
	s, err := Open(context.Background(), o)
	must.Succeed(p.t, err)
	p.stores[i] = s
}

// kill cuts the owner of a store off for good, and has another process take over.
func (p *shared) kill(i int) (before *rados.Client) {
	p.t.Helper()
	before, zombie := p.client[i], p.stores[i]
	before.Cut()
	p.clocks[i].Add(int64(5 * time.Second))
	if zombie.Close() == nil {
		p.t.Fatal("a store that was cut off was closed as if it were its own")
	}
	p.start(i)
	return before
}

func (p *shared) close() {
	p.t.Helper()
	for _, s := range p.stores {
		must.Succeed(p.t, s.Close())
	}
}

// twinSiblings has a client of its own for each file that it opens: it sees what has arrived.
type twinSiblings struct {
	p *shared
	i int
}

func (s twinSiblings) Place() string { return fmt.Sprint(s.i) }

func (s twinSiblings) Open(place, name string) (segment.File, error) {
	var i int
	if _, err := fmt.Sscan(place, &i); err != nil {
		return nil, err
	}
	return rados.NewSibling(s.p.twins[i].Client()).Open(name)
}

func (s twinSiblings) Forget(string) {} // it keeps no names

// adopt copies a range of a snapshot of store from to a volume of store to, as a server does, and
// returns what was not adopted.
func (p *shared) adopt(from int, n *Snapshot, v *Volume, off, src, length int64) (missing []Range, err error) {
	a, err := v.BeginAdoption(p.stores[from].ID())
	if err != nil {
		return nil, err
	}
	defer a.End()
	loan, err := n.Lend(context.Background(), a.Terms(), src, length)
	if err != nil {
		return nil, err
	}
	done, missing, err := a.Apply(context.Background(), off, loan)
	if err == nil && done != length {
		err = fmt.Errorf("%d bytes of %d done", done, length)
	}
	return missing, err
}

// settle has the makers settle the claims of a store.
func (p *shared) settle(i int) {
	p.t.Helper()
	for k, maker := range p.stores {
		if k == i {
			continue
		}
		claims, settled := p.stores[i].Claims(maker.ID())
		for _, c := range claims {
			missing, err := maker.Settle(context.Background(), c)
			must.Succeed(p.t, err)
			if len(missing) > 0 {
				p.t.Fatalf("store %d has aliases of segments %v of store %d, which are not held", i, missing, k)
			}
		}
		settled()
	}
}

func mustAdopt(t *testing.T, p *shared, from int, n *Snapshot, v *Volume, off, src, length int64, missing ...Range) {
	t.Helper()
	got, err := p.adopt(from, n, v, off, src, length)
	must.Succeed(t, err)
	if !slices.Equal(got, missing) {
		t.Errorf("missing %v, want %v", got, missing)
	}
}

func readAll(t testing.TB, v *Volume) []byte {
	t.Helper()
	p := make([]byte, v.Size())
	must.Succeed(t, v.ReadAt(context.Background(), p, 0))
	return p
}
