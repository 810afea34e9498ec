package backstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"odx/backstore/vfs"
)

// What the store does at once for concurrent clients is written down as steps,
// and porcupine looks for an order of them that a plain array could have
// followed.

// step is something that is atomic: a read of sectors, a write of sectors, or a
// compare and write. A call can be several (see actions).
type step struct {
	kind     stepKind
	volume   int
	at       int      // first sector, counted from the start of the window
	values   []uint32 // read or written, by sector
	compare  []uint32 // stepCompare only
	mismatch int      // stepCompare only: what CompareAndWrite returned
	who      int
	call     int64 // the step took effect between call and end
	end      int64
}

type stepKind int

const (
	stepRead stepKind = iota
	stepWrite
	stepCompare
)

func (s *step) String() string {
	name := [...]string{"read", "write", "compare"}[s.kind]
	if s.kind == stepCompare {
		return fmt.Sprintf("%d..%d client %d: compare %d with %d, write %d: %d", s.call, s.end, s.who, s.at, s.compare, s.values, s.mismatch)
	}
	return fmt.Sprintf("%d..%d client %d: %s %d: %d", s.call, s.end, s.who, name, s.at, s.values)
}

// within returns the part of a step that lies in sectors [lo, hi), counted from
// lo; ok is false when there is none or it says nothing.
func (s step) within(lo, hi int) (_ step, ok bool) {
	from, to := max(s.at, lo), min(s.at+len(s.values), hi)
	if from >= to {
		return s, false
	}
	first, last := from-s.at, to-s.at
	bad := s.mismatch / sector
	switch {
	case s.kind == stepCompare && s.mismatch >= 0 && bad < first:
		return s, false // it was not looked at
	case s.kind == stepCompare && s.mismatch >= 0 && bad >= last:
		s.kind, s.values = stepRead, s.compare // it was equal
	case s.kind == stepCompare && s.mismatch >= 0:
		s.mismatch -= first * sector
	}
	s.at, s.values = from-lo, s.values[first:last]
	if s.kind == stepCompare {
		s.compare = s.compare[first:last]
	}
	return s, true
}

// sectorState is the values of consecutive sectors, 4 bytes each as fill
// repeats them. A string, because states are compared and never changed.
type sectorState string

func packed(values []uint32) sectorState {
	b := make([]byte, 0, 4*len(values))
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return sectorState(b)
}

// apply says whether the step can happen in this state, and what follows.
func (st sectorState) apply(s *step) (bool, sectorState) {
	lo, hi := 4*s.at, 4*(s.at+len(s.values))
	now := st[lo:hi]
	after := st[:lo] + packed(s.values) + st[hi:]
	switch s.kind {
	case stepRead:
		return now == packed(s.values), st
	case stepWrite:
		return true, after
	}
	compare := packed(s.compare)
	for i := range len(now) {
		if now[i] != compare[i] {
			return s.mismatch == i/4*sector+i%4, st
		}
	}
	return s.mismatch < 0, after
}

func sectorModel(sectors int) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return packed(make([]uint32, sectors)) },
		Step: func(state, input, _ any) (bool, any) { return state.(sectorState).apply(input.(*step)) },
	}
}

const (
	// The window of blocks that clients use lies across two leaves of the map,
	// so that there are inner nodes too.
	windowBlocks  = 8
	windowSectors = windowBlocks * BlockLength / sector
	windowAt      = (512 - windowBlocks/2) * BlockLength
	linearSize    = 4 << 20
	linearClients = 5
	linearVolumes = 2
	blockSectors  = BlockLength / sector
	// checkLimit bounds the search for an order of steps, which takes
	// milliseconds.
	checkLimit = 2 * time.Minute
)

// linear is a store under the load of concurrent clients.
type linear struct {
	t       *testing.T
	store   *Store
	volumes [linearVolumes]*Volume
	start   time.Time
	value   atomic.Uint32 // the last that was written
	// single lets clients make only calls that are one step: an order of many
	// steps over the whole window takes too long to find.
	single bool
}

// client is one of them.
type client struct {
	*linear
	id    int
	rng   *rand.Rand
	steps []step
}

func (c *client) now() int64 { return int64(time.Since(c.start)) }

// do records the steps that a call consists of, which op gives after it.
func (c *client) do(op func(ctx context.Context) ([]step, error)) {
	call := c.now()
	steps, err := op(context.Background())
	end := c.now()
	if err != nil {
		c.t.Errorf("client %d: %v", c.id, err)
		return
	}
	for _, s := range steps {
		s.who, s.call, s.end = c.id, call, end
		c.steps = append(c.steps, s)
	}
}

// actions cuts a write of any kind at the borders where one step of it ends:
// part of a block, whole blocks, part of a block.
func actions(volume, at int, values []uint32) []step {
	var steps []step
	for len(values) > 0 {
		n := len(values)
		if head := at % blockSectors; head != 0 || n < blockSectors {
			n = min(n, blockSectors-head)
		} else {
			n -= n % blockSectors
		}
		steps = append(steps, step{kind: stepWrite, volume: volume, at: at, values: values[:n]})
		at, values = at+n, values[n:]
	}
	return steps
}

// offset returns where a sector of the window is in bytes.
func offset(at int) int64 { return windowAt + int64(at)*sector }

// span draws sectors of the window, now and then whole blocks.
func (c *client) span() (at, n int) {
	if c.rng.IntN(3) == 0 {
		n = 1 + c.rng.IntN(windowBlocks/2)
		return c.rng.IntN(windowBlocks-n+1) * blockSectors, n * blockSectors
	}
	n = 1 + c.rng.IntN(2*blockSectors)
	return c.rng.IntN(windowSectors - n + 1), n
}

// part shortens a range to what is written to in one step, where it must be.
func (c *client) part(at, n int) int {
	if !c.single || at%blockSectors == 0 && n%blockSectors == 0 {
		return n
	}
	return min(n, blockSectors-at%blockSectors)
}

// fresh draws values to write: mostly new ones, sometimes such as others write
// too, which the store keeps once.
func (c *client) fresh(at, n int) []uint32 {
	values := make([]uint32, n)
	if c.rng.IntN(4) == 0 {
		same := 1 + c.rng.Uint32N(3)
		for i := range values {
			values[i] = same<<8 + uint32((at+i)%blockSectors)
		}
		return values
	}
	for i := range values {
		values[i] = 1<<16 + c.value.Add(1)
	}
	return values
}

// found turns data that was read into values.
func (c *client) found(p []byte) []uint32 {
	out := make([]uint32, len(p)/sector)
	for i, v := range values(p) {
		if v < 0 {
			c.t.Errorf("client %d: a sector holds what was never written", c.id)
		}
		out[i] = uint32(v)
	}
	return out
}

func (c *client) read(v, at, n int) (values []uint32) {
	c.do(func(ctx context.Context) ([]step, error) {
		p := make([]byte, n*sector)
		err := c.volumes[v].ReadAt(ctx, p, offset(at))
		values = c.found(p)
		return []step{{kind: stepRead, volume: v, at: at, values: values}}, err
	})
	return values
}

func (c *client) write(v, at, n int) {
	n = c.part(at, n)
	values := c.fresh(at, n)
	c.do(func(ctx context.Context) ([]step, error) {
		return actions(v, at, values), c.volumes[v].WriteAt(ctx, content(values), offset(at))
	})
}

func (c *client) zero(v, at, n int) {
	n = c.part(at, n)
	c.do(func(ctx context.Context) ([]step, error) {
		return actions(v, at, make([]uint32, n)), c.volumes[v].Zero(ctx, offset(at), int64(n)*sector)
	})
}

// compareAndWrite replaces what was there a moment ago.
func (c *client) compareAndWrite(v, at, n int) {
	compare, values := c.read(v, at, n), c.fresh(at, n)
	c.do(func(ctx context.Context) ([]step, error) {
		mismatch, err := c.volumes[v].CompareAndWrite(ctx, content(compare), content(values), offset(at))
		return []step{{kind: stepCompare, volume: v, at: at, values: values, compare: compare, mismatch: mismatch}}, err
	})
}

// copyByToken takes a snapshot, a read at that moment of what it shows later,
// and maps it elsewhere: a write at that other moment.
func (c *client) copyByToken(v, at, n int) {
	to := c.rng.IntN(linearVolumes)
	dst := c.rng.IntN(windowSectors - n + 1)
	if c.rng.IntN(2) == 0 { // congruent: blocks are shared, not copied
		dst = min(dst/blockSectors*blockSectors+at%blockSectors, windowSectors-n)
	}
	n = min(c.part(at, n), c.part(dst, n))
	r := Range{Offset: offset(at), Length: int64(n) * sector}
	c.fork(v, at, n, r, to, dst, offset(dst))
}

// copyAll copies the whole volume: whole nodes are shared.
func (c *client) copyAll(v int) {
	c.fork(v, 0, windowSectors, Range{Length: linearSize}, (v+1)%linearVolumes, 0, 0)
}

func (c *client) fork(v, at, n int, r Range, to, dst int, dstOffset int64) {
	var snapshot *Snapshot
	var values []uint32
	c.do(func(ctx context.Context) (_ []step, err error) {
		snapshot, err = c.volumes[v].Snapshot(ctx, []Range{r}, nil)
		// Of its values only the contents come later.
		values = make([]uint32, n)
		return []step{{kind: stepRead, volume: v, at: at, values: values}}, err
	})
	if snapshot == nil {
		return
	}
	defer snapshot.Release()
	p := make([]byte, n*sector)
	if err := snapshot.ReadAt(context.Background(), p, offset(at)-r.Offset); err != nil {
		c.t.Errorf("client %d: %v", c.id, err)
	}
	copy(values, c.found(p))
	drop := func() {
		if err := c.store.DeleteSnapshot(context.Background(), snapshot.ID()); err != nil {
			c.t.Errorf("client %d: %v", c.id, err)
		}
	}
	if c.rng.IntN(2) == 0 {
		drop()
	} else {
		defer drop()
	}
	c.do(func(ctx context.Context) ([]step, error) {
		// It may stop between two steps to bound its time.
		for done := int64(0); done < r.Length; {
			n, err := c.volumes[to].Map(ctx, dstOffset+done, snapshot, done, r.Length-done)
			if err != nil {
				return nil, err
			}
			done += n
		}
		return actions(to, dst, values), nil
	})
}

func (c *client) act() {
	v := c.rng.IntN(linearVolumes)
	at, n := c.span()
	switch k := c.rng.IntN(100); {
	case k < 30:
		c.read(v, at, n)
	case k < 60:
		c.write(v, at, n)
	case k < 75:
		c.compareAndWrite(v, at, n)
	case k < 82:
		c.zero(v, at, n)
	case k < 97:
		c.copyByToken(v, at, n)
	default:
		c.copyAll(v)
	}
}

// load lets the clients make that many calls each, while checkpoints and
// cleaning go on, and returns what they saw.
func (l *linear) load(seed uint64, calls int) []step {
	ctx, stop := context.WithCancel(context.Background())
	var clients, others sync.WaitGroup
	for _, work := range []func(context.Context) error{l.store.Checkpoint, l.store.Clean} {
		others.Go(func() {
			for ctx.Err() == nil {
				if err := work(ctx); err != nil && ctx.Err() == nil {
					l.t.Error(err)
				}
			}
		})
	}
	all := make([]*client, linearClients)
	for i := range all {
		c := &client{linear: l, id: i, rng: rand.New(rand.NewPCG(seed, uint64(i)))}
		all[i] = c
		clients.Go(func() {
			for range calls {
				c.act()
			}
		})
	}
	clients.Wait()
	stop()
	others.Wait()
	var steps []step
	for _, c := range all {
		steps = append(steps, c.steps...)
	}
	return steps
}

// linearizable looks for an order of the steps, separately for each part of
// the window that is that many sectors long.
func linearizable(steps []step, sectors int) (problem string) {
	for v := range linearVolumes {
		for lo := 0; lo < windowSectors; lo += sectors {
			var history []porcupine.Operation
			for _, s := range steps {
				if part, ok := s.within(lo, lo+sectors); ok && s.volume == v {
					history = append(history, porcupine.Operation{ClientId: s.who, Input: &part, Call: s.call, Return: s.end})
				}
			}
			result := porcupine.CheckOperationsTimeout(sectorModel(sectors), history, checkLimit)
			if result == porcupine.Unknown {
				return fmt.Sprintf("volume %d, %d sectors from %d: undecided after %v", v, sectors, lo, checkLimit)
			}
			if result != porcupine.Ok {
				return fmt.Sprintf("volume %d, %d sectors from %d: %s\n%s", v, sectors, lo, result, printed(history))
			}
		}
	}
	return ""
}

func printed(history []porcupine.Operation) string {
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var b strings.Builder
	for _, op := range history {
		fmt.Fprintln(&b, op.Input.(*step))
	}
	return b.String()
}

func runLinear(t *testing.T, seed uint64, calls, sectors int) {
	d := newDisk()
	// Give way in the middle of operations, between look-up and read, say.
	d.fs.SetHook(func(vfs.OpKind, string) error { runtime.Gosched(); return nil })
	checkLinear(t, d.open(t, 16<<10), seed, calls, sectors)
}

// checkLinear loads a new store, which it closes.
func checkLinear(t *testing.T, store *Store, seed uint64, calls, sectors int) {
	l := &linear{t: t, store: store, start: time.Now(), single: sectors > blockSectors}
	for i := range l.volumes {
		l.volumes[i] = createVolume(t, l.store, fmt.Sprint("v", i), linearSize)
	}
	steps := l.load(seed, calls)
	if t.Failed() {
		t.Fatalf("seed %d: a call failed, so the history is not all there", seed)
	}
	if problem := linearizable(steps, sectors); problem != "" {
		t.Fatalf("seed %d: %s", seed, problem)
	}
	if findings, err := l.store.Check(context.Background()); err != nil || len(findings) > 0 {
		t.Fatal(findings, err)
	}
	if err := l.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestLinearizable looks at the blocks of the window one by one, which allows
// long histories, and at the window as a whole: an aligned write of several
// blocks, a read and a snapshot each see all of it at one instant.
func TestLinearizable(t *testing.T) {
	forSeeds(t, 3, func(t *testing.T, seed uint64) {
		t.Run("blocks", func(t *testing.T) { runLinear(t, seed, 400, blockSectors) })
		t.Run("window", func(t *testing.T) { runLinear(t, seed, 100, windowSectors) })
	})
}

// TestLinearizableCanFail shows that the check finds what must not happen.
func TestLinearizableCanFail(t *testing.T) {
	write := func(value uint32, call, end int64) step {
		return step{kind: stepWrite, values: []uint32{value, value}, call: call, end: end}
	}
	read := func(first, second uint32, call, end int64) step {
		return step{kind: stepRead, values: []uint32{first, second}, call: call, end: end}
	}
	swap := func(from, to uint32, mismatch int, call, end int64) step {
		return step{kind: stepCompare, compare: []uint32{from, from}, values: []uint32{to, to}, mismatch: mismatch, call: call, end: end}
	}
	tests := []struct {
		name  string
		steps []step
		ok    bool
	}{
		{"one after the other", []step{write(1, 0, 1), read(1, 1, 2, 3)}, true},
		{"either of two at once", []step{write(1, 0, 9), write(2, 0, 9), read(1, 1, 10, 11)}, true},
		{"lost write", []step{write(1, 0, 1), read(0, 0, 2, 3)}, false},
		{"torn write", []step{write(1, 0, 9), read(1, 0, 2, 3)}, false},
		{"back in time", []step{write(1, 0, 9), read(1, 1, 2, 3), read(0, 0, 4, 5)}, false},
		{"two compares of one value", []step{swap(0, 1, -1, 0, 9), swap(0, 2, -1, 0, 9)}, false},
		{"one wins", []step{swap(0, 1, -1, 0, 9), swap(0, 2, 0, 0, 9)}, true},
		{"difference at another byte", []step{swap(1, 2, 1, 0, 9)}, false},
		{"difference where there is none", []step{swap(0, 1, 512, 0, 9)}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if problem := linearizable(tt.steps, windowSectors); (problem == "") != tt.ok {
				t.Errorf("want linearizable %v, got: %s", tt.ok, problem)
			}
		})
	}
}
