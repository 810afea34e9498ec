package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"odx/admin"
	"odx/backstore"
	"odx/conf"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/stream"
)

// site is an open store and its streams.
type site struct {
	t     testing.TB
	cfg   *conf.Config
	admin *admin.Store
	*Streams
}

// aSite returns a new store, closed when the test ends.
func aSite(t testing.TB) *site {
	t.Helper()
	dir := t.TempDir()
	cfg, err := conf.Parse(filepath.Join(dir, "odx.yaml"), []byte("data_dir: data\nportals: [\"127.0.0.1:0\"]\ntargets: [{name: iqn.2026-11.example.odx:d, luns: [{lun: 0, volume: served, size: 1MiB}]}]\n"))
	must.Succeed(t, err)
	s := &site{t: t, cfg: cfg}
	s.open()
	t.Cleanup(func() { must.Succeed(t, s.admin.Close()) })
	return s
}

func (s *site) open() {
	s.t.Helper()
	var err error
	s.admin, err = admin.Open(context.Background(), s.cfg, logs.Discard(), admin.Options{})
	must.Succeed(s.t, err)
	s.Streams = NewStreams(s.admin, logs.Discard())
}

// again closes the store and opens it.
func (s *site) again() {
	s.t.Helper()
	must.Succeed(s.t, s.admin.Close())
	s.open()
}

func (s *site) volume(name string) *backstore.Volume {
	s.t.Helper()
	v, err := s.admin.Object(name)
	must.Succeed(s.t, err)
	return v
}

// content returns all bytes of an object; nil if it is not there.
func (s *site) content(name string) []byte {
	s.t.Helper()
	v, err := s.admin.Object(name)
	if errors.Is(err, backstore.ErrNotFound) {
		return nil
	}
	must.Succeed(s.t, err)
	p := make([]byte, v.Size())
	must.Succeed(s.t, v.ReadAt(context.Background(), p, 0))
	return p
}

func (s *site) write(name string, off int64, p []byte) {
	s.t.Helper()
	must.Succeed(s.t, s.volume(name).WriteAt(context.Background(), p, off))
}

func (s *site) snapshotOf(name, snapshot string) {
	s.t.Helper()
	_, err := s.admin.SnapshotVolume(context.Background(), name, snapshot)
	must.Succeed(s.t, err)
}

// send returns the stream of a request.
func (s *site) send(r SendRequest) []byte {
	s.t.Helper()
	var b bytes.Buffer
	_, err := s.Send(context.Background(), r, &b, nil)
	must.Succeed(s.t, err)
	return b.Bytes()
}

func (s *site) receive(r ReceiveRequest, b []byte) error {
	_, err := s.Receive(context.Background(), r, bytes.NewReader(b), nil)
	return err
}

// sound proves the references of the store, and that nothing hidden is left.
func (s *site) sound() {
	s.t.Helper()
	r, err := s.admin.Check(context.Background())
	must.Succeed(s.t, err)
	if !r.Sound {
		s.t.Fatalf("the store is not sound: %v", r.Findings)
	}
}

// leftovers returns the names of what is hidden, and of what partial records are for.
func (s *site) leftovers() (names []string) {
	s.t.Helper()
	for _, v := range append(s.store.Volumes(), s.store.Files()...) {
		if v.Name()[0] == '.' {
			names = append(names, v.Name())
		}
	}
	all, err := s.partials()
	must.Succeed(s.t, err)
	for _, p := range all {
		names = append(names, "record of "+p.Name)
	}
	return names
}

func (s *site) clean() {
	s.t.Helper()
	if left := s.leftovers(); left != nil {
		s.t.Fatalf("left over: %v", left)
	}
}

// fresh returns bytes that are nowhere else.
func fresh(rnd *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := 0; i < n; i += 8 {
		x := rnd.Uint64()
		for j := range min(8, n-i) {
			p[i+j] = byte(x >> (8 * j))
		}
	}
	return p
}

const mib = 1 << 20

func TestStreams_Whole(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	a, b := aSite(t), aSite(t)
	second := func(_ any, err error) error { return err }
	must.Succeed(t, second(a.admin.CreateVolume(t.Context(), "data", 8*mib+512)))
	a.write("data", 0, fresh(rnd, mib))
	a.write("data", 5*mib+4096, fresh(rnd, 3*mib+512-4096))
	a.snapshotOf("data", "monday")
	want := a.content("data")
	a.write("data", 0, fresh(rnd, mib)) // after the snapshot
	now := a.content("data")
	must.Succeed(t, second(a.admin.CreateFile(t.Context(), "images/x.raw", 300_001)))
	a.write("file:images/x.raw", 0, fresh(rnd, 300_001))

	for level := range stream.Best {
		name := fmt.Sprint("data-", level)
		r, err := b.Receive(t.Context(), ReceiveRequest{Name: name}, bytes.NewReader(a.send(SendRequest{Source: "monday", Level: level})), nil)
		must.Succeed(t, err)
		if !bytes.Equal(b.content(name), want) || !bytes.Equal(b.content("monday"), want) {
			t.Fatalf("level %v: the content differs", level)
		}
		if made := r.Snapshot == "monday"; made != (level == stream.None) {
			t.Errorf("level %v: snapshot %q", level, r.Snapshot)
		}
	}
	if !b.volume("monday").ReadOnly() || b.volume("data-none").ReadOnly() {
		t.Error("the snapshot can be written to, or the volume cannot")
	}
	if origin, ok := b.volume("monday").Origin(); !ok || origin != "data-none" {
		t.Errorf("the snapshot is of %q", origin)
	}
	o, ok, err := b.Origin(b.volume("monday"))
	if v, m := a.volume("data"), a.volume("monday"); err != nil || !ok || o.Store != a.store.ID() || o.Volume != v.ID() || o.VolumeName != "data" || o.Snapshot != m.ID() || o.SnapshotName != "monday" || !o.Created.Equal(m.Created()) {
		t.Errorf("origin %+v, %v, %v", o, ok, err)
	}
	// A volume that is no snapshot, and files.
	must.Succeed(t, b.receive(ReceiveRequest{Name: "live"}, a.send(SendRequest{Source: "data"})))
	must.Succeed(t, b.receive(ReceiveRequest{Name: "file:y/z.raw"}, a.send(SendRequest{Source: "file:images/x.raw"})))
	must.Succeed(t, b.receive(ReceiveRequest{Name: "file:data.raw"}, a.send(SendRequest{Source: "monday"})))
	if !bytes.Equal(b.content("live"), now) || !bytes.Equal(b.content("file:y/z.raw"), a.content("file:images/x.raw")) || !bytes.Equal(b.content("file:data.raw"), want) {
		t.Error("the content differs")
	}
	b.clean()
	b.sound()
	a.sound()
}

// history changes a volume at random.
func history(rnd *rand.Rand, s *site, name string, changes int) (written int64) {
	s.t.Helper()
	size := s.volume(name).Size()
	for range changes {
		off := rnd.Int64N(size/4096) * 4096
		length := min(int64(rnd.IntN(16)+1)*4096, size-off)
		switch rnd.IntN(4) {
		case 0:
			must.Succeed(s.t, s.volume(name).Unmap(context.Background(), off, length))
		default:
			s.write(name, off, fresh(rnd, int(length)))
			written += length
		}
	}
	return written
}

// A chain of incremental streams over random histories, with reverts, growth and restarts in
// between, keeps the other side equal, and each stream has little more than what changed.
func TestStreams_Incremental(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	a, b := aSite(t), aSite(t)
	_, err := a.admin.CreateVolume(t.Context(), "data", 16*mib)
	must.Succeed(t, err)
	history(rnd, a, "data", 50)
	a.snapshotOf("data", "s0")
	must.Succeed(t, b.receive(ReceiveRequest{Name: "copy"}, a.send(SendRequest{Source: "s0"})))
	for i := 1; i <= 12; i++ {
		base, name := fmt.Sprintf("s%d", i-1), fmt.Sprintf("s%d", i)
		switch rnd.IntN(5) {
		case 0:
			_, err := a.admin.ResizeVolume(t.Context(), "data", a.volume("data").Size()+int64(rnd.IntN(3)+1)*512)
			must.Succeed(t, err)
		case 1:
			_, err := a.admin.RevertVolume(t.Context(), admin.RevertRequest{Snapshot: fmt.Sprintf("s%d", rnd.IntN(i)), Volume: "data"})
			must.Succeed(t, err)
		}
		history(rnd, a, "data", rnd.IntN(30))
		a.snapshotOf("data", name)
		s := a.send(SendRequest{Source: name, Base: base})
		if changed := differing(a.content(base), a.content(name)); int64(len(s)) > changed*102/100+1024 {
			t.Errorf("%s: %d bytes of a stream for %d changed bytes", name, len(s), changed)
		}
		must.Succeed(t, b.receive(ReceiveRequest{Name: "copy"}, s))
		for _, n := range []string{"copy", name} {
			if !bytes.Equal(b.content(n), a.content(name)) {
				t.Fatalf("%s after %s: the content differs", n, name)
			}
		}
		if origin, ok := b.volume(name).Origin(); !ok || origin != "copy" {
			t.Errorf("%s is a snapshot of %q", name, origin)
		}
		if rnd.IntN(4) == 0 {
			b.again()
		}
		b.clean()
	}
	a.sound()
	b.sound()
}

// differing returns the length of the blocks that differ and are not zeros.
func differing(before, after []byte) (n int64) {
	zeros := make([]byte, 4096)
	for off := 0; off < len(after); off += 4096 {
		block := after[off:min(off+4096, len(after))]
		old := zeros[:len(block)]
		if off+len(block) <= len(before) {
			old = before[off : off+len(block)]
		}
		if !bytes.Equal(block, old) {
			n += int64(len(block))
		}
	}
	return n
}

// TestStreams_Refusals: each stream that does not fit is refused for its reason, and changes
// nothing.
func TestStreams_Refusals(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 2))
	a, b := aSite(t), aSite(t)
	for _, s := range []*site{a, b} {
		_, err := s.admin.CreateVolume(t.Context(), "data", 2*mib)
		must.Succeed(t, err)
	}
	for i := range 4 {
		a.write("data", int64(i)*8192, fresh(rnd, 4096))
		a.snapshotOf("data", fmt.Sprintf("s%d", i))
	}
	whole, first, second, third := a.send(SendRequest{Source: "s0"}), a.send(SendRequest{Source: "s1", Base: "s0"}), a.send(SendRequest{Source: "s2", Base: "s1"}), a.send(SendRequest{Source: "s3", Base: "s2"})
	live := a.send(SendRequest{Source: "data"})
	must.Succeed(t, b.receive(ReceiveRequest{Name: "copy"}, whole), b.receive(ReceiveRequest{Name: "copy"}, first), b.receive(ReceiveRequest{Name: "copy"}, second))
	_, err := b.admin.CloneVolume(t.Context(), "s0", "other")
	must.Succeed(t, err)
	b.write("other", 0, []byte("written"))
	_, err = b.admin.CreateVolume(t.Context(), "s3", 4096)
	must.Succeed(t, err)
	before := map[string][]byte{}
	for _, n := range []string{"copy", "other", "s0", "s1", "s2", "s3", "data"} {
		before[n] = b.content(n)
	}
	for name, tt := range map[string]struct {
		r    ReceiveRequest
		b    []byte
		want error
	}{
		"whole, existing name":       {ReceiveRequest{Name: "data"}, whole, backstore.ErrExists},
		"incremental without base":   {ReceiveRequest{Name: "new"}, a.send(SendRequest{Source: "s0", Base: "s3"}), ErrNoBase},
		"replay of an old stream":    {ReceiveRequest{Name: "copy"}, first, ErrDiverged},
		"the same stream again":      {ReceiveRequest{Name: "copy"}, second, ErrReceived},
		"written to since":           {ReceiveRequest{Name: "other"}, first, ErrDiverged},
		"another volume":             {ReceiveRequest{Name: "data"}, first, ErrDiverged},
		"onto a snapshot":            {ReceiveRequest{Name: "s0"}, first, backstore.ErrReadOnly},
		"name of snapshot taken":     {ReceiveRequest{Name: "copy"}, third, backstore.ErrExists},
		"volume is its own snapshot": {ReceiveRequest{Name: "x", Snapshot: "x"}, third, backstore.ErrInvalid},
		"snapshot of no snapshot":    {ReceiveRequest{Name: "x", Snapshot: "y"}, live, backstore.ErrInvalid},
		"hidden name":                {ReceiveRequest{Name: ".recv-x"}, whole, backstore.ErrInvalid},
		"no name":                    {ReceiveRequest{}, whole, backstore.ErrInvalid},
		"not a name of a file":       {ReceiveRequest{Name: "file:../x"}, whole, backstore.ErrInvalid},
		"no stream":                  {ReceiveRequest{Name: "x"}, []byte("something else"), stream.ErrFormat},
	} {
		if err := b.receive(tt.r, tt.b); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		for n, p := range before {
			if !bytes.Equal(b.content(n), p) {
				t.Fatalf("%s: %s has changed", name, n)
			}
		}
		b.clean()
	}
	for name, tt := range map[string]struct {
		r    SendRequest
		want error
	}{
		"no such volume":        {SendRequest{Source: "x"}, backstore.ErrNotFound},
		"no such base":          {SendRequest{Source: "s1", Base: "x"}, backstore.ErrNotFound},
		"base is no snapshot":   {SendRequest{Source: "s1", Base: "data"}, backstore.ErrInvalid},
		"base of itself":        {SendRequest{Source: "s1", Base: "s1"}, backstore.ErrInvalid},
		"start of what changes": {SendRequest{Source: "data", Start: 4096}, ErrResume},
		"start beyond the end":  {SendRequest{Source: "s1", Start: 1 << 40}, ErrResume},
		"no token":              {SendRequest{Resume: "x"}, ErrResume},
		"token of another":      {SendRequest{Resume: token{snapshot: stream.ID{9}}.String()}, backstore.ErrNotFound},
		"token and more":        {SendRequest{Resume: token{}.String(), Source: "s1"}, backstore.ErrInvalid},
	} {
		if _, err := a.Send(t.Context(), tt.r, io.Discard, nil); !errors.Is(err, tt.want) {
			t.Errorf("send, %s: %v, want %v", name, err, tt.want)
		}
	}
	// What the words above allow: by force, and by another name.
	must.Succeed(t, b.receive(ReceiveRequest{Name: "other", Force: true}, first), b.receive(ReceiveRequest{Name: "copy", Snapshot: "third"}, third))
	if !bytes.Equal(b.content("other"), a.content("s1")) || !bytes.Equal(b.content("copy"), a.content("s3")) || !bytes.Equal(b.content("third"), a.content("s3")) {
		t.Error("the content differs")
	}
	b.clean()
	b.sound()
}

// Snapshots keep their identity on the way: B sends back to A, and on to C, based on what
// those had from A.
func TestStreams_Around(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	a, b, c := aSite(t), aSite(t), aSite(t)
	_, err := a.admin.CreateVolume(t.Context(), "data", 2*mib)
	must.Succeed(t, err)
	a.write("data", 0, fresh(rnd, 8192))
	a.snapshotOf("data", "s0")
	must.Succeed(t, b.receive(ReceiveRequest{Name: "data"}, a.send(SendRequest{Source: "s0"})), c.receive(ReceiveRequest{Name: "third"}, a.send(SendRequest{Source: "s0"})))
	b.write("data", mib, fresh(rnd, 8192))
	b.snapshotOf("data", "s1")
	back := b.send(SendRequest{Source: "s1", Base: "s0"})
	must.Succeed(t, a.receive(ReceiveRequest{Name: "data"}, back), c.receive(ReceiveRequest{Name: "third"}, back))
	for _, s := range []*site{a, c} {
		if !bytes.Equal(s.content("s1"), b.content("s1")) {
			t.Error("the content differs")
		}
	}
}

// cut ends a stream with an error after some bytes.
type cut struct {
	r    io.Reader
	left int
}

var errCut = errors.New("connection reset")

func (c *cut) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, errCut
	}
	n, err := c.r.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// A stream that ends anywhere shows nothing, and is continued from where it was: by the
// same stream from its beginning, and by one that begins there; with a restart in between.
func TestStreams_Resume(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	a := aSite(t)
	_, err := a.admin.CreateVolume(t.Context(), "data", 6*mib)
	must.Succeed(t, err)
	history(rnd, a, "data", 20)
	a.snapshotOf("data", "s0")
	history(rnd, a, "data", 100)
	a.snapshotOf("data", "s1")
	for _, incremental := range []bool{false, true} {
		r := SendRequest{Source: "s1"}
		if incremental {
			r.Base = "s0"
		}
		whole := a.send(r)
		for i := range 6 {
			b := aSite(t)
			name := "copy"
			if incremental {
				must.Succeed(t, b.receive(ReceiveRequest{Name: name}, a.send(SendRequest{Source: "s0"})))
			}
			before := b.content(name)
			// twice, the second time further
			for k := range 2 {
				n := len(whole) * (i + 4*k + 1) / 12
				_, err := b.Receive(t.Context(), ReceiveRequest{Name: name, Resume: true}, &cut{bytes.NewReader(whole), n}, nil)
				if !errors.Is(err, errCut) {
					t.Fatalf("cut: %v", err)
				}
				if !bytes.Equal(b.content(name), before) || b.content("s1") != nil {
					t.Fatal("visible before it is complete")
				}
				if i%2 == 0 {
					b.again()
				}
			}
			all, err := b.Partials(t.Context())
			must.Succeed(t, err)
			if len(all) != 1 || all[0].Name != name || all[0].Snapshot != "s1" || all[0].SizeBytes != 6*mib || all[0].Receiving || all[0].OffsetBytes > 6*mib {
				t.Fatalf("partial %+v", all)
			}
			rest := whole
			if i%3 != 0 {
				rest = a.send(SendRequest{Resume: all[0].Token})
				if all[0].OffsetBytes > 0 && len(rest) >= len(whole) {
					t.Errorf("the continued stream has %d bytes, the whole one %d", len(rest), len(whole))
				}
			}
			must.Succeed(t, b.receive(ReceiveRequest{Name: name, Resume: true}, rest))
			if !bytes.Equal(b.content(name), a.content("s1")) || !bytes.Equal(b.content("s1"), a.content("s1")) {
				t.Fatal("the content differs")
			}
			b.clean()
			b.sound()
		}
	}
}

// What cannot be continued leaves nothing: damage, and a volume that changes.
func TestStreams_NotResumable(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	a, b := aSite(t), aSite(t)
	_, err := a.admin.CreateVolume(t.Context(), "data", 4*mib)
	must.Succeed(t, err)
	a.write("data", 0, fresh(rnd, 3*mib))
	a.snapshotOf("data", "s0")
	whole := a.send(SendRequest{Source: "s0"})
	for _, at := range []int{10, 400, len(whole) / 2, len(whole) - 1} {
		bad := bytes.Clone(whole)
		bad[at] ^= 1
		if err := b.receive(ReceiveRequest{Name: "copy"}, bad); err == nil || b.content("copy") != nil {
			t.Errorf("byte %d changed: %v", at, err)
		}
		b.clean()
	}
	live := a.send(SendRequest{Source: "data"})
	if err := b.receive(ReceiveRequest{Name: "copy"}, live[:len(live)/2]); !errors.Is(err, stream.ErrTruncated) {
		t.Errorf("half of a stream: %v", err)
	}
	b.clean()

	// Another stream than the one that is there does not continue it.
	if err := b.receive(ReceiveRequest{Name: "copy"}, whole[:len(whole)/2]); !errors.Is(err, stream.ErrTruncated) {
		t.Errorf("half of a stream: %v", err)
	}
	a.snapshotOf("data", "s1")
	if err := b.receive(ReceiveRequest{Name: "copy"}, a.send(SendRequest{Source: "s1", Start: mib})); !errors.Is(err, ErrResume) {
		t.Errorf("another snapshot: %v", err)
	}
	if err := b.receive(ReceiveRequest{Name: "copy"}, a.send(SendRequest{Source: "s0", Start: 4 * mib})); !errors.Is(err, ErrResume) {
		t.Errorf("a gap: %v", err)
	}
	if err := b.receive(ReceiveRequest{Name: "new"}, a.send(SendRequest{Source: "s0", Start: mib})); !errors.Is(err, ErrResume) {
		t.Errorf("nothing to continue: %v", err)
	}
	must.Succeed(t, b.DropPartial(t.Context(), "copy"))
	b.clean()
	if err := b.DropPartial(t.Context(), "copy"); !errors.Is(err, backstore.ErrNotFound) {
		t.Errorf("dropped twice: %v", err)
	}
}

func TestToken(t *testing.T) {
	want := token{stream.ID{1, 2}, stream.ID{3}, 1 << 40}
	text := want.String()
	if got, err := parseToken(text); err != nil || got != want {
		t.Errorf("%s: %+v, %v", text, got, err)
	}
	for i := range text {
		for _, c := range "Ax-_=\n" {
			bad := text[:i] + string(c) + text[i+1:]
			if got, err := parseToken(bad); err == nil && got != want {
				t.Errorf("%s: %+v", bad, got)
			} else if err != nil && !errors.Is(err, ErrResume) {
				t.Errorf("%s: %v", bad, err)
			}
		}
	}
}

// TestParseID: an identity of the wrong length is refused.
func TestParseID(t *testing.T) {
	id := strings.Repeat("0f", 16)
	if got, err := parseID(id); err != nil || got.String() != id {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{id[:30], id + "0f", id[1:], strings.Repeat("x", 32)} {
		if _, err := parseID(bad); !errors.Is(err, errRecord) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
