package pair

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	v1 "odx/api/v1"
	"odx/backstore"
	"odx/backstore/vfs"
	"odx/blockdev"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/peer"
)

// errKilled ends an operation of a server that has lost its power.
var errKilled = errors.New("killed")

// world has servers that are peers of each other, and can lose power before any step.
type world struct {
	t       testing.TB
	rng     *rand.Rand
	servers []*server
	mu      sync.Mutex // held for a step, since rounds can run at once
	// countdown is how many steps are left until victims lose power; negative: none does.
	countdown int
	victims   []*server
	steps     int // that were reached since the last kill was planned
	kills     int
	// loses: one of so many answers about migrations is lost; 0: none. late delivers requests to
	// take over that were sent.
	loses int
	late  []func()
}

// server is one of them.
type server struct {
	w     *world
	name  string
	fs    *vfs.Mem
	store *backstore.Store
	m     *Manager
	dead  bool
	off   bool // cut off from the others
	alone bool // its configuration names no peer
	id    [16]byte
	// refuses is why what is moved here cannot be served; nil: it can.
	refuses error
	// units is what its logical units keep, off counts how often that lost what outlives no loss of
	// power; adopted is what has come along, by object, of which dropped did not fit.
	units   []UnitRecord
	offs    int
	adopted map[string][]UnitRecord
	dropped int
}

func newWorld(t testing.TB, seed uint64, names ...string) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), countdown: -1}
	for _, name := range names {
		s := &server{w: w, name: name, fs: vfs.NewMem(), units: keptUnits, adopted: map[string][]UnitRecord{}}
		w.servers = append(w.servers, s)
		s.start()
	}
	t.Cleanup(func() {
		for _, s := range w.servers {
			must.Succeed(t, s.store.Close())
		}
	})
	return w
}

// following returns two servers: b has, as copy, a replica of the volume web of a, of size bytes,
// to which fill has written.
func following(t testing.TB, seed uint64, size int64, fill func(a *server, object string) error) (a, b *server) {
	t.Helper()
	ctx := context.Background()
	w := newWorld(t, seed, "a", "b")
	a, b = w.servers[0], w.servers[1]
	_, err := a.store.CreateVolume(ctx, "web", size)
	must.Succeed(t, err)
	must.Succeed(t, fill(a, "web"), b.m.Start(ctx, StartRequest{Peer: "a", Source: "web", Name: "copy"}))
	_, err = b.m.Round(ctx, "copy", RoundOptions{})
	must.Succeed(t, err)
	return a, b
}

func (s *server) start() {
	s.w.t.Helper()
	ctx := context.Background()
	var err error
	s.store, err = backstore.Open(ctx, backstore.Options{Dir: "/store", Log: logs.Discard(), FS: s.fs, CacheBytes: 4 << 20, ScrubEvery: 0})
	must.Succeed(s.w.t, err)
	s.dead, s.id = false, s.store.ID()
	s.m, err = Open(ctx, Options{Store: s.store, Log: logs.Discard(), Named: s.named, Resolve: s.resolve, Arrivals: s, reached: s.reached})
	s.m.background = func(ctx context.Context, job func(context.Context)) error {
		job(ctx)
		return nil
	}
	if !s.dead {
		must.Succeed(s.w.t, err)
	}
}

// kill takes the power of a server: what its disk has is what a power cut may leave.
func (s *server) kill() {
	s.fs, s.dead = s.fs.CrashClone(s.w.rng), true
	s.w.kills++
}

// restart starts the servers that were killed.
func (w *world) restart() {
	w.t.Helper()
	w.countdown = -1
	for _, s := range w.servers {
		for s.dead {
			_ = s.store.Close() // what is left of the process
			s.start()
		}
	}
}

// reached is called before each step of a server.
func (s *server) reached(string) error {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.dead {
		return errKilled
	}
	w.steps++
	if w.countdown >= 0 {
		if w.countdown--; w.countdown < 0 {
			for _, v := range w.victims {
				v.kill()
			}
		}
	}
	if s.dead {
		return errKilled
	}
	return nil
}

func (s *server) named(name string) (Link, bool) {
	for _, o := range s.w.servers {
		if o.name == name && o != s {
			return &twin{s, o}, true
		}
	}
	return nil, false
}

func (s *server) resolve(store [16]byte) (Link, bool) {
	for _, o := range s.w.servers {
		if o.id == store && o != s && !s.alone {
			return &twin{s, o}, true
		}
	}
	return nil, false
}

// twin is a link between two servers of a world.
type twin struct{ from, to *server }

func (l *twin) Name() string    { return l.to.name }
func (l *twin) Store() [16]byte { return l.to.id }

var errDown = fmt.Errorf("twin: %w", peer.ErrDown)

func (l *twin) Ask(ctx context.Context, q Request) (Answer, error) {
	if l.to.dead || l.to.off || l.from.off {
		return Answer{}, errDown
	}
	a, err := l.to.m.Serve(ctx, l.from.name, q)
	switch {
	case l.to.dead || errors.Is(err, errKilled):
		return Answer{}, errDown
	case err != nil:
		return Answer{}, &RefusedError{Peer: l.to.name, Text: err.Error(), Cause: err}
	}
	return a, nil
}

func (l *twin) Offered(_ context.Context, from [16]byte, prefix string) ([]Offered, error) {
	if l.to.dead || l.to.off || l.from.off {
		return nil, errDown
	}
	return l.to.m.Offered(from, prefix)
}

// Move loses answers, and keeps requests that can come a second time, late.
func (l *twin) Move(ctx context.Context, q v1.PeerMove) (v1.PeerMoveAnswer, error) {
	w := l.from.w
	if q.Op == moveTake {
		w.late = append(w.late, func() { _, _ = l.to.m.ServeMove(context.Background(), l.from.name, q) })
	}
	if l.to.dead || l.to.off || l.from.off {
		return v1.PeerMoveAnswer{}, errDown
	}
	a, err := l.to.m.ServeMove(ctx, l.from.name, q)
	switch {
	case l.to.dead || errors.Is(err, errKilled) || w.loses > 0 && w.rng.IntN(w.loses) == 0:
		return v1.PeerMoveAnswer{}, errDown
	case err != nil:
		return v1.PeerMoveAnswer{}, &RefusedError{Peer: l.to.name, Text: err.Error(), Cause: err}
	}
	return a, nil
}

func (l *twin) Hold(_ context.Context, pair, at, base ID) (peer.Hold, error) {
	if l.to.dead || l.to.off || l.from.off {
		return nil, errDown
	}
	h := &heldHere{link: l}
	for to, id := range map[**backstore.Snapshot]ID{&h.data: at, &h.base: base} {
		if id == (ID{}) {
			continue
		}
		n, ok, err := l.to.m.Snapshot(pointName(pair, id))
		if err != nil || !ok {
			_ = h.Release(context.Background())
			return nil, &RefusedError{Peer: l.to.name, Text: fmt.Sprint(err), Cause: err}
		}
		*to = n
	}
	return h, nil
}

// heldHere is a hold without a network.
type heldHere struct {
	link       *twin
	data, base *backstore.Snapshot
}

func (h *heldHere) gone() error {
	if h.link.to.dead || h.link.to.off {
		return errDown
	}
	return nil
}

func (h *heldHere) Length() int64   { return h.data.Length() }
func (h *heldHere) Store() [16]byte { return h.link.to.id }
func (h *heldHere) DedupUnit() int  { return 4096 }
func (h *heldHere) Runs(ctx context.Context, off, length int64, fn func(backstore.Run) error) error {
	if err := h.gone(); err != nil {
		return err
	}
	return h.data.Runs(ctx, off, length, fn)
}
func (h *heldHere) RunsOf(ctx context.Context, ranges []blockdev.Range, fn func(backstore.Run) error) error {
	for _, r := range ranges {
		if err := h.Runs(ctx, r.Offset, r.Length, fn); err != nil {
			return err
		}
	}
	return nil
}
func (h *heldHere) Diff(ctx context.Context, off, length int64, fn func(backstore.Difference) error) error {
	if err := h.gone(); err != nil {
		return err
	}
	return h.data.Diff(ctx, h.base, off, length, fn)
}
func (h *heldHere) Fingerprints(context.Context, [32]byte, int, []blockdev.Range) ([]backstore.Fingerprint, error) {
	return nil, errors.New("no fingerprints without a network")
}
func (h *heldHere) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := h.gone(); err != nil {
		return err
	}
	return h.data.ReadAt(ctx, p, off)
}
func (h *heldHere) ReadRanges(ctx context.Context, p []byte, ranges []blockdev.Range) error {
	for _, r := range ranges {
		if err := h.ReadAt(ctx, p[:r.Length], r.Offset); err != nil {
			return err
		}
		p = p[r.Length:]
	}
	return nil
}
func (h *heldHere) Release(context.Context) error {
	for _, n := range []*backstore.Snapshot{h.data, h.base} {
		if n != nil {
			n.Release()
		}
	}
	return nil
}

// sum identifies the content and size of an object.
func (s *server) sum(object string) (string, bool) {
	s.w.t.Helper()
	v, err := s.m.lookUp(object)
	if errors.Is(err, backstore.ErrNotFound) {
		return "", false
	}
	must.Succeed(s.w.t, err)
	return sumOf(s.w.t, v.ReadAt, v.Size()), true
}

func sumOf(t testing.TB, readAt func(context.Context, []byte, int64) error, size int64) string {
	t.Helper()
	p := make([]byte, size)
	must.Succeed(t, readAt(context.Background(), p, 0))
	return fmt.Sprintf("%d bytes %x", size, sha256.Sum256(p))
}

// hidden counts the hidden objects of a server.
func (s *server) hidden() (n int) {
	for _, v := range append(s.store.Volumes(), s.store.Files()...) {
		if strings.HasPrefix(v.Name(), ".") {
			n++
		}
	}
	return n
}

// pins returns how many snapshots the store has, and how many the records name.
func (s *server) pins() (have, named int) {
	s.w.t.Helper()
	f, err := s.store.Figures()
	must.Succeed(s.w.t, err)
	all, err := s.m.records()
	must.Succeed(s.w.t, err)
	for _, r := range all {
		named += len(r.points())
	}
	return f.Snapshots, named
}

// record returns the only record of a server, nil for none.
func (s *server) record(id ID) *record {
	s.w.t.Helper()
	r, err := s.m.load(id)
	if errors.Is(err, ErrNoPair) {
		return nil
	}
	must.Succeed(s.w.t, err)
	return r
}
