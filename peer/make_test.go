package peer_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"odx/backstore"
	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/peer"
	"odx/peer/peertest"
	"odx/tokens"
)

// TestMakeToken: a peer makes a token of its volume, which is written here, is what the volume
// was, and ends when it is deleted here.
func TestMakeToken(t *testing.T) {
	a, b := pair(t, peertest.Options{})
	const size = 1 << 20
	data := peertest.Random(1, size)
	src := a.Volume("src", size, data)
	p, _ := b.Peers.ByName("a")
	token, info, err := peer.MakeToken(ctx, p, "src", blockdev.Range{Offset: 512}, tokens.ReadOptions{InactivityTimeout: time.Minute, Priority: 3})
	must.Succeed(t, err)
	if info.Length != size-512 || info.Inactivity != time.Minute || info.Priority != 3 || info.Server != "a" || info.Creator.Volume != "src" {
		t.Errorf("%+v", info)
	}
	must.Succeed(t, src.WriteAt(ctx, make([]byte, size), 0))
	dst := b.Volume("dst", size, nil)
	n, err := write(b, token, dst, tokens.WriteOptions{}, blockdev.Range{Length: size - 512})
	must.Succeed(t, err)
	if n != size-512 || !bytes.Equal(content(t, dst)[:n], data[512:]) {
		t.Errorf("%d bytes, or other bytes", n)
	}
	must.Succeed(t, b.Tokens.DeleteFor(ctx, token, tokens.Requester{}))
	if live := a.Tokens.List(); len(live) != 0 {
		t.Errorf("%d tokens are left", len(live))
	}
	for _, c := range []struct {
		name   string
		volume string
		r      blockdev.Range
		o      tokens.ReadOptions
		want   error
	}{
		{"no volume", "none", blockdev.Range{}, tokens.ReadOptions{}, backstore.ErrNotFound},
		{"no file", "file:none", blockdev.Range{}, tokens.ReadOptions{}, backstore.ErrNotFound},
		{"not whole blocks", "src", blockdev.Range{Length: 100}, tokens.ReadOptions{}, blockdev.ErrRange},
		{"past the end", "src", blockdev.Range{Offset: size}, tokens.ReadOptions{}, blockdev.ErrRange},
		{"a timeout that is too long", "src", blockdev.Range{}, tokens.ReadOptions{InactivityTimeout: 1e6 * time.Hour}, tokens.ErrTimeout},
		{"a type that there is not", "src", blockdev.Range{}, tokens.ReadOptions{Type: 0x12345678}, tokens.ErrUnsupportedType},
	} {
		if _, _, err := peer.MakeToken(ctx, p, c.volume, c.r, c.o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if live := a.Tokens.List(); len(live) != 0 {
		t.Errorf("%d tokens are left after refusals", len(live))
	}
}

// TestTokens_List: the tokens of one initiator on all peers, without those of others, and without
// waiting for a peer that does not answer.
func TestTokens_List(t *testing.T) {
	a, b := pair(t, peertest.Options{})
	c := peertest.New(t, "c", peertest.Options{})
	b.Know(a, c)
	who := tokens.Requester{Initiator: "iqn.2026-11.example:i"}
	var want []*tokens.Token
	for _, s := range []*peertest.Server{a, c} {
		v := s.Volume("v", 1<<20, nil)
		want = append(want, tokenOf(t, s, v, tokens.ReadOptions{Creator: tokens.Creator{Initiator: who.Initiator}}, blockdev.Range{Length: 4096}))
		tokenOf(t, s, v, tokens.ReadOptions{Creator: tokens.Creator{Initiator: "iqn.2026-11.example:other"}}, blockdev.Range{Length: 4096})
	}
	list := b.Tokens.ListAway(ctx, who)
	if len(list) != 2 {
		t.Fatalf("%d tokens, want 2: %+v", len(list), list)
	}
	for i, info := range list {
		if !bytes.Equal(info.Management[:], want[i][:tokens.ManagementLength]) || info.Server != []string{"a", "c"}[i] {
			t.Errorf("token %d: %+v", i, info)
		}
	}
	if list := b.Tokens.ListAway(ctx, tokens.Requester{}); len(list) != 0 {
		t.Errorf("without an initiator: %+v", list)
	}
	for i := range 3 * peer.MaxLists {
		b.Tokens.ListAway(ctx, tokens.Requester{Initiator: fmt.Sprint("iqn.2026-11.example:", i)})
	}
	if n := b.Remote.Lists(); n > peer.MaxLists {
		t.Errorf("%d lists are kept, at most %d", n, peer.MaxLists)
	}
	a.CutOff(true)
	defer a.CutOff(false)
	began := time.Now()
	b.Tokens.ListAway(ctx, tokens.Requester{Initiator: "iqn.2026-11.example:other"})
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("a peer that is away is waited for %v", took)
	}
}
