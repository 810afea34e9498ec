//go:build rados

package librados

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"odx/backstore/vfs"
	"odx/backstore/vfs/rados"
	"odx/backstore/vfs/vfstest"
	"odx/internal/kit/ceph"
	"odx/internal/kit/must"
	"odx/owner"
	"odx/owner/ownertest"
)

var cluster *ceph.Cluster

func TestMain(m *testing.M) {
	os.Exit(ceph.Main(m, ceph.Options{}, func(c *ceph.Cluster) { cluster = c }))
}

// connect connects to a namespace of the pool.
func connect(t *testing.T, namespace string) *Pool {
	t.Helper()
	p, err := Open(Options{Conf: cluster.Conf(), User: cluster.User(), Keyring: cluster.Keyring(), Pool: cluster.Pool(), Namespace: namespace, Timeout: 8 * time.Second})
	must.Succeed(t, err)
	t.Cleanup(func() { must.Succeed(t, p.Close()) })
	return p
}

func TestPool_Suite(t *testing.T) {
	for _, dir := range []string{"/a/b", "/a/segments"} {
		n := 0
		t.Run(dir, func(t *testing.T) {
			vfstest.Run(t, func(t *testing.T) (vfs.FS, string) {
				n++
				f := rados.New(connect(t, fmt.Sprintf("suite%s-%d", dir, n)))
				must.Succeed(t, f.MkdirAll(dir))
				return f, dir
			})
		})
	}
}

func TestDriver_Suite(t *testing.T) {
	n := 0
	ownertest.Run(t, func(t *testing.T) owner.Driver {
		n++
		f := rados.New(connect(t, fmt.Sprintf("owner-%d", n)))
		must.Succeed(t, f.MkdirAll("/store"))
		return f.Owner("/store")
	})
}

// The pool evaluates comparisons as the twin does.
func TestPool_Changes(t *testing.T) {
	start := time.Now()
	for name, p := range map[string]rados.Pool{"pool": connect(t, "changes"), "twin": rados.NewTwin(func() time.Duration { return time.Since(start) }).Client()} {
		t.Run(name, func(t *testing.T) {
			do := func(want error, c *rados.Change) {
				t.Helper()
				if err := p.Begin("o", c).Wait(); !errors.Is(err, want) {
					t.Errorf("%+v: %v, want %v", *c, err, want)
				}
			}
			do(os.ErrNotExist, &rados.Change{Data: []byte("x")})
			do(os.ErrNotExist, &rados.Change{Compare: rados.NoLater, Epoch: 3, Data: []byte("x")})
			if _, err := p.Length("o"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a refused change has made the object: %v", err)
			}
			do(nil, &rados.Change{Create: true, Data: []byte("abc")})
			do(os.ErrExist, &rados.Change{Create: true, Data: []byte("xyz")})
			do(nil, &rados.Change{Compare: rados.Equal, Epoch: 0, SetEpoch: 9, Set: map[string][]byte{"k": []byte("v"), "l": {}}})
			do(rados.ErrRefused, &rados.Change{Compare: rados.Equal, Epoch: 0, Set: map[string][]byte{"k": []byte("w")}})
			do(rados.ErrRefused, &rados.Change{Compare: rados.NoLater, Epoch: 8, Data: []byte("xyz")})
			do(nil, &rados.Change{Compare: rados.NoLater, Epoch: 16, SetEpoch: 16, Data: []byte("B"), Off: 1})
			do(rados.ErrRefused, &rados.Change{Compare: rados.NoLater, Epoch: 9, Truncate: true, Length: 0})
			do(nil, &rados.Change{Compare: rados.Equal, Epoch: 16, Truncate: true, Length: 5, Unset: []string{"l", "none"}})
			b := make([]byte, 10)
			if n, err := p.Read("o", b, 0); err != nil || !bytes.Equal(b[:n], []byte("aBc\x00\x00")) {
				t.Errorf("content %q, %v", b[:n], err)
			}
			rows, epoch, err := p.Rows("o")
			if err != nil || epoch != 16 || len(rows) != 1 || string(rows["k"]) != "v" {
				t.Errorf("rows %q, epoch %d, %v", rows, epoch, err)
			}
			must.Succeed(t, p.Lock("l", "one", time.Second, false))
			if err := p.Lock("l", "two", time.Second, false); !errors.Is(err, rados.ErrBusy) {
				t.Errorf("a second lock: %v", err)
			}
			must.Succeed(t, p.Lock("l", "one", time.Minute, true))
			if err := p.Lock("l", "two", time.Minute, true); err == nil {
				t.Error("a renewal of what is not held")
			}
			must.Succeed(t, p.Unlock("l", "one"))
			must.Succeed(t, p.Lock("l", "two", 10*time.Millisecond, false))
			// It has ended when another one gets it: the clock is the OSD's.
			for end := time.Now().Add(10 * time.Second); ; {
				if err := p.Lock("l", "three", time.Minute, false); err == nil {
					break
				} else if !errors.Is(err, rados.ErrBusy) || time.Now().After(end) {
					t.Fatal(err)
				}
			}
			held, err := p.Holder("l")
			if err != nil || held.Cookie != "three" {
				t.Errorf("holder %+v, %v", held, err)
			}
			other := held
			other.Cookie = "two"
			must.Succeed(t, p.Break("l", other))
			must.Succeed(t, p.Lock("l", "three", time.Minute, true))
			must.Succeed(t, p.Break("l", held))
			if err := p.Lock("l", "three", time.Minute, true); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a renewal of a lock that was broken: %v", err)
			}
			if err := p.Lock("l", "two", time.Minute, true); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a renewal of a lock that has ended: %v", err)
			}
			do(nil, &rados.Change{Remove: true})
			do(os.ErrNotExist, &rados.Change{Remove: true})
			free, total, err := p.Space()
			t.Logf("space: %d of %d bytes, %v", free, total, err)
		})
	}
}

// Another process takes over: what the first one has in flight is refused.
func TestPool_TakeOver(t *testing.T) {
	a, b := rados.New(connect(t, "takeover")), rados.New(connect(t, "takeover"))
	must.Succeed(t, a.MkdirAll("/journal"))
	first, err := a.Owner("/").Claim(t.Context())
	must.Succeed(t, err)
	f, err := a.Create("/journal/1")
	must.Succeed(t, err)
	_, err = f.WriteAt([]byte("acknowledged"), 0)
	must.Succeed(t, errors.Join(err, f.Sync()))
	// The first owner stops renewing, as a process that is stopped.
	start := time.Now()
	second, err := owner.Wait(t.Context(), b.Owner("/"))
	must.Succeed(t, err)
	defer second.Release()
	t.Logf("taken over after %v", time.Since(start).Round(time.Millisecond))
	if second.Epoch() <= first.Epoch() {
		t.Errorf("epoch %d after %d", second.Epoch(), first.Epoch())
	}
	g, err := b.Open("/journal/1")
	must.Succeed(t, err)
	_, err = f.WriteAt([]byte("late"), 0)
	must.Succeed(t, err)
	if err := f.Sync(); !errors.Is(err, owner.ErrLost) {
		t.Errorf("a write of the first owner: %v", err)
	}
	if _, err := a.Create("/journal/2"); !errors.Is(err, owner.ErrLost) {
		t.Errorf("a name of the first owner: %v", err)
	}
	if err := first.Renew(t.Context()); !errors.Is(err, owner.ErrLost) {
		t.Errorf("its renewal: %v", err)
	}
	p := make([]byte, 12)
	if _, err := g.ReadAt(p, 0); err != nil || string(p) != "acknowledged" {
		t.Errorf("the file has %q, %v", p, err)
	}
}
