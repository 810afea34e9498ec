package peer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"odx/backstore"
	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/offload"
	"odx/peer"
	"odx/peer/peertest"
	"odx/tokens"
)

// TestTokens_EachByte: a token of which any byte was changed is refused, by this server or by
// the one that made it.
func TestTokens_EachByte(t *testing.T) {
	a, b := pair(t, peertest.Options{})
	v := a.Volume("v", 64<<10, peertest.Random(1, 64<<10))
	dst := b.Volume("dst", 64<<10, nil)
	all := blockdev.Range{Length: 64 << 10}
	good := tokenOf(t, a, v, tokens.ReadOptions{}, all)
	for i := range tokens.TokenLength {
		bad := *good
		bad[i] ^= 1 << (i % 8)
		if n, err := write(b, &bad, dst, tokens.WriteOptions{Requester: tokens.Requester{Initiator: "i"}}, all); err == nil || n != 0 {
			t.Fatalf("byte %d: %d bytes done, %v", i, n, err)
		}
	}
	if n, err := write(b, good, dst, tokens.WriteOptions{Requester: tokens.Requester{Initiator: "i"}}, all); err != nil || n != all.Length {
		t.Errorf("the good one: %d, %v", n, err)
	}
}

// TestTokens_Down: a peer that is not there is a token made elsewhere, after a bound; then at
// once; and good again when it is back.
func TestTokens_Down(t *testing.T) {
	a, b := pair(t, peertest.Options{})
	v := a.Volume("v", 64<<10, peertest.Random(1, 64<<10))
	dst := b.Volume("dst", 64<<10, nil)
	all := blockdev.Range{Length: 64 << 10}
	token := tokenOf(t, a, v, tokens.ReadOptions{}, all)
	a.CutOff(true)
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for range 20 { // many commands wait for it once
		n, err := b.Tokens.OffloadWrite(limited, token, 0, offload.Destination{Volume: dst, BlockLength: 512}, []blockdev.Range{all}, tokens.WriteOptions{})
		if n != 0 || !errors.Is(err, tokens.ErrRemote) || !strings.Contains(err.Error(), ": a: ") {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if took := time.Since(began); took > 4500*time.Millisecond {
		t.Errorf("refused after %v", took)
	}
	a.CutOff(false)
	for end := time.Now().Add(20 * time.Second); ; {
		n, err := write(b, token, dst, tokens.WriteOptions{}, all)
		if err == nil && n == all.Length {
			break
		}
		if !errors.Is(err, tokens.ErrRemote) || time.Now().After(end) {
			t.Fatalf("after it was back: %d, %v", n, err)
		}
	}
}

// TestTokens_Restart: a write whose peer was restarted goes on with another hold.
func TestTokens_Restart(t *testing.T) {
	a, b := pair(t, peertest.Options{})
	const size = 4 << 20
	data := peertest.Random(1, size)
	v := a.Volume("v", size, data)
	dst := b.Volume("dst", size, nil)
	token := tokenOf(t, a, v, tokens.ReadOptions{}, blockdev.Range{Length: size})
	o := tokens.WriteOptions{Requester: tokens.Requester{Initiator: "i"}}
	half := blockdev.Range{Length: size / 2}
	n, err := write(b, token, dst, o, half)
	must.Succeed(t, err)
	a.Kill(rand.New(rand.NewPCG(1, 1)))
	a.Start()
	dest := offload.Destination{Volume: dst, BlockLength: 512}
	for end := time.Now().Add(20 * time.Second); n < size; {
		m, err := b.Tokens.OffloadWrite(ctx, token, n, dest, []blockdev.Range{{Offset: n, Length: size - n}}, o)
		if n += m; err != nil && (!errors.Is(err, tokens.ErrRemote) || time.Now().After(end)) {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(content(t, dst), data) {
		t.Error("other bytes")
	}
}

// TestTokens_FullDestination: a destination without space says so, keeps what it has, and
// holds nothing at the peer.
func TestTokens_FullDestination(t *testing.T) {
	a, b := pair(t, peertest.Options{})
	v := a.Volume("v", 1<<20, peertest.Random(1, 1<<20))
	token := tokenOf(t, a, v, tokens.ReadOptions{}, blockdev.Range{Length: 1 << 20})
	full := &refusing{Volume: b.Volume("dst", 1<<20, nil)}
	n, err := b.Tokens.OffloadWrite(ctx, token, 0, offload.Destination{Volume: full, BlockLength: 512}, []blockdev.Range{{Length: 1 << 20}}, tokens.WriteOptions{})
	if n != 0 || !errors.Is(err, blockdev.ErrNoSpace) {
		t.Errorf("%d, %v, want %v", n, err, blockdev.ErrNoSpace)
	}
	noHolds(t, a, 5*time.Second)
}

// refusing is a volume that is full.
type refusing struct{ blockdev.Volume }

func (refusing) WriteAt(context.Context, []byte, int64) error { return blockdev.ErrNoSpace }

// noHolds waits until a server holds nothing for others.
func noHolds(t testing.TB, s *peertest.Server, patience time.Duration) {
	t.Helper()
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.Keeper.AwaitNone(limited); err != nil {
		t.Fatalf("holds are left: %+v", s.Keeper.Holds())
	}
}

// TestKeeper_Lease: a hold of a peer that is gone ends with its lease, and its data with it.
func TestKeeper_Lease(t *testing.T) {
	a := peertest.New(t, "a", peertest.Options{Limits: peer.Limits{Lease: 300 * time.Millisecond}})
	a.Volume("v", 1<<20, peertest.Random(1, 1<<20))
	answers := make(chan struct{}, 1)
	a.Through(peertest.Link{Read: func() error {
		select {
		case answers <- struct{}{}:
		default:
		}
		return nil
	}})
	p := a.As("b")
	h, err := p.HoldVolume(ctx, "v", "")
	must.Succeed(t, err)
	patient, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for range 2 {
		for range 4 { // it is renewed four times in a lease
			select {
			case <-answers:
			case <-patient.Done():
				t.Fatal("it is not renewed")
			}
		}
		must.Succeed(t, h.ReadAt(ctx, make([]byte, 4096), 0))
	}
	a.CutOff(true)
	noHolds(t, a, 10*time.Second)
	if s := a.Keeper.Stats(); s.Expired != 1 {
		t.Errorf("%+v", s)
	}
	must.Succeed(t, a.Store.DeleteVolume(ctx, "v"))
	a.CutOff(false)
	_ = h.Release(ctx)
}

// TestKeeper_Bounds: no peer gets more holds than it may, nor all together, and none the hold of
// another.
func TestKeeper_Bounds(t *testing.T) {
	a := peertest.New(t, "a", peertest.Options{Limits: peer.Limits{Holds: 5, HoldsPerPeer: 3}})
	a.Volume("v", 1<<20, nil)
	take := func(name string, n int) (got []peer.Hold, err error) {
		p := a.As(name)
		for range n {
			h, err := p.HoldVolume(ctx, "v", "")
			if err != nil {
				return got, err
			}
			got = append(got, h)
		}
		return got, nil
	}
	first, err := take("b", 4)
	if len(first) != 3 || !errors.Is(err, peer.ErrLimit) {
		t.Errorf("%d holds of one peer: %v", len(first), err)
	}
	second, err := take("c", 3)
	if len(second) != 2 || !errors.Is(err, peer.ErrLimit) {
		t.Errorf("%d holds of the other: %v", len(second), err)
	}
	for _, h := range append(first, second...) {
		must.Succeed(t, h.Release(ctx))
	}
	noHolds(t, a, time.Second)
}

// TestRemote_Liar: a peer that lies costs an error, and a bounded time.
func TestRemote_Liar(t *testing.T) {
	store := [16]byte{1}
	hold := `{"hold": "h", "store": "01000000000000000000000000000000", "length": 8192, "dedup_unit": 65536, "lease_ms": 60000}`
	for name, tt := range map[string]struct {
		hold string
		body func(w io.Writer)
		want error
	}{
		"another store":   {hold: strings.Replace(hold, "0100", "0200", 1), want: peer.ErrDown},
		"negative length": {hold: strings.Replace(hold, "8192", "-1", 1), want: peer.ErrProtocol},
		"no lease":        {hold: strings.Replace(hold, "60000", "0", 1), want: peer.ErrProtocol},
		"a path as hold":  {hold: strings.Replace(hold, `"h"`, `"../x"`, 1), want: peer.ErrProtocol},
		"no JSON":         {hold: "<html>", want: peer.ErrProtocol},
		"endless JSON":    {hold: `{"hold": "` + strings.Repeat("h", 20<<20), want: peer.ErrProtocol},
		"no body":         {hold: hold, body: func(io.Writer) {}, want: peer.ErrProtocol},
		"endless body": {hold: hold, body: func(w io.Writer) {
			for p := bytes.Repeat([]byte("odxP"), 1<<16); ; {
				if _, err := w.Write(p); err != nil {
					return
				}
			}
		}, want: peer.ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/holds") {
					_, _ = io.WriteString(w, tt.hold)
				} else if tt.body != nil && r.Method != http.MethodDelete {
					tt.body(w)
				}
			}))
			defer server.Close()
			p := peer.NewRemote(peer.RemoteOptions{Name: "liar", Store: store, Addresses: []string{server.URL}})
			defer p.Close()
			h, err := p.HoldVolume(ctx, "v", "")
			if tt.body == nil {
				if !errors.Is(err, tt.want) {
					t.Fatalf("%.200v, want %v", err, tt.want)
				}
				return
			}
			must.Succeed(t, err)
			defer func() { _ = h.Release(ctx) }()
			if err := h.Runs(ctx, 0, 8192, func(backstore.Run) error { return nil }); !errors.Is(err, tt.want) {
				t.Errorf("runs: %v, want %v", err, tt.want)
			}
			if err := h.ReadAt(ctx, make([]byte, 8192), 0); !errors.Is(err, tt.want) {
				t.Errorf("bytes: %v, want %v", err, tt.want)
			}
		})
	}
}

// TestRemote_Refused: a peer that refuses this server, or is no odx, answers: its error says so,
// and what to do, and it is not up until a request succeeds.
func TestRemote_Refused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		answer string
		want   string
	}{
		{"wrong secret", http.StatusUnauthorized, `{"kind": "unauthorized", "error": "missing or wrong secret"}`,
			`it refuses this server: "missing or wrong secret"; the secret of the peer here has to be that of an entry of api.secrets there with "role: peer"`},
		{"too many", http.StatusTooManyRequests, `{"kind": "too_many_failures", "error": "too many wrong secrets"}`, `it refuses this server: "too many wrong secrets"; the secret of the peer`},
		{"wrong role", http.StatusForbidden, `{"kind": "forbidden", "error": "b has the role read"}`, `it refuses this server: "b has the role read"; set "role: peer" for it in api.secrets there`},
		{"another program", http.StatusNotFound, "<html>", `it answers "404 Not Found", as no odx does; check its addresses`},
		{"another store", http.StatusOK, `{"store": "0200"}`, `the server at its address has the store "0200", not 01000000000000000000000000000000; correct store or addresses`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var good atomic.Bool
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if good.Load() {
					fmt.Fprint(w, `{"store": "01000000000000000000000000000000"}`)
					return
				}
				w.WriteHeader(tt.status)
				fmt.Fprint(w, tt.answer)
			}))
			defer s.Close()
			r := peer.NewRemote(peer.RemoteOptions{Name: "a", Store: [16]byte{1}, Addresses: []string{s.URL}})
			defer r.Close()
			err := r.Hello(ctx)
			if !errors.Is(err, peer.ErrDown) || !strings.HasPrefix(err.Error(), "peer a: "+tt.want) {
				t.Errorf("%v", err)
			}
			if s := r.Status(); s.Up || !strings.HasPrefix(s.Problem, tt.want) {
				t.Errorf("up %v: %s", s.Up, s.Problem)
			}
			good.Store(true)
			must.Succeed(t, r.Hello(ctx))
			if s := r.Status(); !s.Up || s.Problem != "" {
				t.Errorf("up %v: %s", s.Up, s.Problem)
			}
		})
	}
}

// TestRemote_Drip: a peer that sends a byte now and then costs the time of the caller, not more.
func TestRemote_Drip(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte(" "))
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}))
	defer server.Close()
	p := peer.NewRemote(peer.RemoteOptions{Name: "drip", Addresses: []string{server.URL}})
	defer p.Close()
	limited, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := p.Hello(limited); err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// TestKeeper_Requests: requests that make no sense are refused, from any peer.
func TestKeeper_Requests(t *testing.T) {
	a := peertest.New(t, "a", peertest.Options{})
	id := a.Store.ID()
	for name, tt := range map[string]struct {
		method, path, body string
		status             int
		kind               string
	}{
		"no JSON":       {"POST", "holds", "{", 400, "invalid"},
		"unknown field": {"POST", "holds", `{"store": "x", "more": 1}`, 400, "invalid"},
		"another store": {"POST", "holds", `{"store": "00", "volume": "v"}`, 409, "store"},
		"neither":       {"POST", "holds", fmt.Sprintf(`{"store": "%x"}`, id), 400, "invalid"},
		"short token":   {"POST", "holds", fmt.Sprintf(`{"store": "%x", "token": "AAAA"}`, id), 400, "token_length"},
		"too long":      {"POST", "holds", `{"store": "` + strings.Repeat("x", 1<<20) + `"}`, 400, "invalid"},
		"no such hold":  {"POST", "holds/none/read", "", 404, "hold_gone"},
		"no such path":  {"GET", "none", "", 404, "not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			a.Keeper.Handler().ServeHTTP(w, httptest.NewRequest(tt.method, peer.Path+tt.path, strings.NewReader(tt.body)))
			var f struct{ Kind string }
			if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil || w.Code != tt.status || f.Kind != tt.kind {
				t.Errorf("%d %s, want %d %s", w.Code, w.Body, tt.status, tt.kind)
			}
		})
	}
}
