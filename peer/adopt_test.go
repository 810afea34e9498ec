package peer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"odx/backstore"
	"odx/backstore/segment"
	"odx/backstore/vfs"
	"odx/blockdev"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/offload"
	"odx/peer"
	"odx/peer/peertest"
	"odx/tokens"
)

// onePool has servers of which each reaches the files of all others.
type onePool struct {
	mu    sync.Mutex
	files map[string]vfs.FS // by the names of the servers
	key   map[string]byte   // that differ
}

func newPool() *onePool { return &onePool{files: map[string]vfs.FS{}, key: map[string]byte{}} }

// configure is peertest.Options.Configure.
func (p *onePool) configure(name string, o *backstore.Options) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files[name] = o.FS
	o.FS = inPool{o.FS.(*vfs.Mem)}
	o.Siblings = siblings{p, name}
	o.FingerprintKey = &[32]byte{1, p.key[name]}
}

// inPool is the files of a server, in the one pool.
type inPool struct{ *vfs.Mem }

func (inPool) Place(string) (vfs.Place, error) { return vfs.Place{FileSystem: [16]byte{1}}, nil }

type siblings struct {
	p    *onePool
	name string
}

func (s siblings) Place() string { return s.name }

func (s siblings) Open(place, name string) (segment.File, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if s.p.files[place] == nil {
		return nil, fmt.Errorf("no place %q", place)
	}
	return s.p.files[place].Open(name)
}

func (s siblings) Forget(string) {} // it keeps no names

// poolPair returns two servers of one pool that are peers of each other.
func poolPair(t testing.TB, p *onePool) (a, b *peertest.Server) {
	a, b = peertest.New(t, "a", peertest.Options{Configure: p.configure}), peertest.New(t, "b", peertest.Options{Configure: p.configure})
	a.Know(b)
	b.Know(a)
	return a, b
}

// TestAdopt_Token: a token of a server of the same pool is written without data: the bytes stay where
// they are, held, and are there without the other server.
func TestAdopt_Token(t *testing.T) {
	p := newPool()
	a, b := poolPair(t, p)
	const size = 80 << 20 // more than one loan
	data := peertest.Random(1, size)
	clear(data[1<<20 : 2<<20])
	src, dst := a.Volume("src", size, data), b.Volume("dst", size, nil)
	token := tokenOf(t, a, src, tokens.ReadOptions{}, blockdev.Range{Length: size})
	n, err := write(b, token, dst, tokens.WriteOptions{}, blockdev.Range{Length: size})
	must.Succeed(t, err)
	if n != size {
		t.Fatalf("%d bytes", n)
	}
	if got := b.Store.AdoptedBytes(); got != size-1<<20 {
		t.Errorf("%d bytes are adopted", got)
	}
	if got := a.Keeper.Stats().ReadBytes; got != 0 {
		t.Errorf("%d bytes were sent", got)
	}
	if got := b.Store.PhysicalBytes(); got > 1<<20 {
		t.Errorf("%d bytes of segments", got)
	}
	must.Succeed(t, b.Store.Flush(ctx))
	must.Succeed(t, a.Tokens.DeleteToken(ctx, token, tokens.Revoked), a.Store.DeleteVolume(ctx, "src"))
	claims := peer.NewClaims(b.Store, b.Peers, logs.Discard())
	defer func() { claims.Close() }()
	if findings, err := claims.Check(ctx); err != nil || len(findings) > 0 {
		t.Errorf("%v, %v", findings, err)
	}
	a.CutOff(true)
	if !bytes.Equal(content(t, dst), data) {
		t.Error("other data")
	}
	limited, cancel := context.WithTimeout(ctx, time.Second)
	if findings, err := claims.Check(limited); err == nil && len(findings) == 0 {
		t.Error("a check finds nothing while the other server is away")
	}
	cancel()
	a.CutOff(false)

	must.Succeed(t, b.Store.BringHome(ctx))
	await(t, "the other server to let go", func() bool { return a.Store.LentBytes() == 0 })
	if !bytes.Equal(content(t, dst), data) {
		t.Error("other data after it was brought home")
	}
	for _, s := range []*peertest.Server{a, b} {
		if findings, err := s.Store.Check(ctx); err != nil || len(findings) > 0 {
			t.Errorf("%v, %v", findings, err)
		}
	}
}

// await waits until something is so, by what the servers do in the background.
func await(t testing.TB, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(30 * time.Second)
	for !so() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waiting for %s", what)
		}
	}
}

// TestAdopt_Fallback: between servers that cannot adopt, and from an older one, bytes are read as
// ever.
func TestAdopt_Fallback(t *testing.T) {
	const size = 1 << 20
	for _, tt := range []struct {
		name  string
		pool  func(p *onePool)
		older bool
	}{
		{name: "another key", pool: func(p *onePool) { p.key["b"] = 9 }},
		{name: "an older server", older: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPool()
			if tt.pool != nil {
				tt.pool(p)
			}
			a, b := poolPair(t, p)
			if tt.older {
				a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.HasSuffix(r.URL.Path, "/lend") {
						return false
					}
					w.WriteHeader(http.StatusNotFound)
					_, _ = w.Write([]byte(`{"kind": "not_found", "error": "no such request of a peer"}`))
					return true
				})
			}
			data := peertest.Random(1, size)
			src := a.Volume("src", size, data)
			token := tokenOf(t, a, src, tokens.ReadOptions{}, blockdev.Range{Length: size})
			for _, name := range []string{"one", "two"} {
				dst := b.Volume(name, size, nil)
				n, err := write(b, token, dst, tokens.WriteOptions{}, blockdev.Range{Length: size})
				must.Succeed(t, err)
				if n != size || !bytes.Equal(content(t, dst), data) {
					t.Errorf("%d bytes, or other data", n)
				}
			}
			if b.Store.AdoptedBytes() != 0 || a.Store.LentBytes() != 0 {
				t.Error("something was adopted")
			}
		})
	}
}

// TestAdopt_Partly: what the maker has adopted itself, and what is not whole blocks, is read.
func TestAdopt_Partly(t *testing.T) {
	p := newPool()
	a, b := poolPair(t, p)
	c := peertest.New(t, "c", peertest.Options{Configure: p.configure})
	c.Know(a, b)
	const size = 4 << 20
	data := peertest.Random(1, size)
	src := a.Volume("src", size, data)
	mid := b.Volume("mid", size, nil)
	_, err := write(b, tokenOf(t, a, src, tokens.ReadOptions{}, blockdev.Range{Length: size}), mid, tokens.WriteOptions{}, blockdev.Range{Length: size})
	must.Succeed(t, err)
	for off := int64(0); off < size; off += 1 << 20 { // every other half MiB is its own
		part := peertest.Random(uint64(off+9), 1<<19)
		copy(data[off:], part)
		must.Succeed(t, mid.WriteAt(ctx, part, off))
	}
	dst := c.Volume("dst", size+512, nil)
	n, err := write(c, tokenOf(t, b, mid, tokens.ReadOptions{}, blockdev.Range{Length: size}), dst, tokens.WriteOptions{}, blockdev.Range{Length: size})
	must.Succeed(t, err)
	if n != size || !bytes.Equal(content(t, dst)[:size], data) {
		t.Errorf("%d bytes, or other data", n)
	}
	if got := c.Store.AdoptedBytes(); got != size/2 {
		t.Errorf("%d bytes are adopted, want those that lie in b", got)
	}
	// Not on blocks.
	n, err = write(c, tokenOf(t, b, mid, tokens.ReadOptions{}, blockdev.Range{Length: size}), dst, tokens.WriteOptions{}, blockdev.Range{Offset: 512, Length: size})
	must.Succeed(t, err)
	if n != size || !bytes.Equal(content(t, dst)[512:], data) {
		t.Errorf("%d bytes, or other data", n)
	}
}

// TestAdopt_Stops: a write whose time is over says how far it came, and goes on from there.
func TestAdopt_Stops(t *testing.T) {
	p := newPool()
	a, b := poolPair(t, p)
	const size = 8 << 20
	data := peertest.Random(1, size)
	token := tokenOf(t, a, a.Volume("src", size, data), tokens.ReadOptions{}, blockdev.Range{Length: size})
	dst := b.Volume("dst", size, nil)
	var done int64
	for steps := 0; done < size; steps++ {
		if steps > size/(1<<20) {
			t.Fatalf("%d bytes after %d writes", done, steps)
		}
		late := blockdev.StopAfter(ctx, 0)
		n, err := b.Tokens.OffloadWrite(late, token, done, offload.Destination{Volume: dst, BlockLength: 512}, []blockdev.Range{{Offset: done, Length: size - done}}, tokens.WriteOptions{})
		must.Succeed(t, err)
		if n == 0 || n%4096 != 0 {
			t.Fatalf("%d bytes", n)
		}
		done += n
	}
	if !bytes.Equal(content(t, dst), data) {
		t.Error("other data")
	}
}

// TestClaims_Retry: a claim that does not reach the peer is sent again.
func TestClaims_Retry(t *testing.T) {
	p := newPool()
	a, b := poolPair(t, p)
	const size = 1 << 20
	token := tokenOf(t, a, a.Volume("src", size, peertest.Random(1, size)), tokens.ReadOptions{}, blockdev.Range{Length: size})
	dst := b.Volume("dst", size, nil)
	_, err := write(b, token, dst, tokens.WriteOptions{}, blockdev.Range{Length: size})
	must.Succeed(t, err)
	must.Succeed(t, dst.Unmap(ctx, 0, size))
	var mu sync.Mutex
	refused := 0
	a.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if !strings.HasSuffix(r.URL.Path, "/claims") || refused == 2 {
			return false
		}
		refused++
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"kind": "busy", "error": "later"}`))
		return true
	})
	claims := peer.NewClaims(b.Store, b.Peers, logs.Discard())
	defer claims.Close()
	must.Succeed(t, b.Store.Checkpoint(ctx))
	await(t, "the other server to let go", func() bool {
		_ = b.Store.Checkpoint(ctx) // what was unmapped is freed in the background
		return a.Store.LentBytes() == 0
	})
	mu.Lock()
	defer mu.Unlock()
	if refused != 2 {
		t.Errorf("%d claims were refused", refused)
	}
}

// TestServeClaim_Invalid: requests that make no sense are refused, and change nothing.
func TestServeClaim_Invalid(t *testing.T) {
	p := newPool()
	a, b := poolPair(t, p)
	remote := a.As("b")
	for what, request := range map[string]any{
		"another store": map[string]any{"store": strings.Repeat("00", 16), "taker": strings.Repeat("11", 16)},
		"no taker":      map[string]any{"store": fmt.Sprintf("%x", a.Store.ID()), "taker": "xyz"},
		"not ascending": map[string]any{"store": fmt.Sprintf("%x", a.Store.ID()), "taker": strings.Repeat("11", 16), "segments": []int{3, 2}},
	} {
		if err := remote.Call(ctx, http.MethodPost, peer.Path+"claims", request, nil); err == nil || errors.Is(err, peer.ErrDown) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_ = b
}
