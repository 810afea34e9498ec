package peer_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"odx/backstore"
	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/offload"
	"odx/peer"
	"odx/peer/peertest"
	"odx/tokens"
)

var ctx = context.Background()

// pair returns a server with data, and one that knows it.
func pair(t testing.TB, o peertest.Options) (a, b *peertest.Server) {
	t.Helper()
	a, b = peertest.New(t, "a", o), peertest.New(t, "b", peertest.Options{})
	b.Know(a)
	return a, b
}

// tokenOf makes a token of ranges of a volume.
func tokenOf(t testing.TB, s *peertest.Server, v *backstore.Volume, o tokens.ReadOptions, ranges ...blockdev.Range) *tokens.Token {
	t.Helper()
	made, err := s.Tokens.OffloadRead(ctx, tokens.Source{Volume: v, LU: tokens.LU{BlockLength: 512}}, ranges, o)
	must.Succeed(t, err)
	return made.Token
}

// content returns all of a volume.
func content(t testing.TB, v *backstore.Volume) []byte {
	t.Helper()
	p := make([]byte, v.Size())
	must.Succeed(t, v.ReadAt(ctx, p, 0))
	return p
}

// write writes a token to a volume of a server.
func write(s *peertest.Server, token *tokens.Token, v *backstore.Volume, o tokens.WriteOptions, ranges ...blockdev.Range) (int64, error) {
	return s.Tokens.OffloadWrite(ctx, token, 0, offload.Destination{Volume: v, BlockLength: 512}, ranges, o)
}

// TestTokens_Write: a token of one server is written on another.
func TestTokens_Write(t *testing.T) {
	a, b := pair(t, peertest.Options{})
	const size = 4 << 20
	data := peertest.Random(1, size)
	clear(data[1<<20 : 2<<20])
	src := a.Volume("src", size, data)
	must.Succeed(t, src.Unmap(ctx, 1<<20, 1<<20))
	for _, tt := range []struct {
		name   string
		ranges []blockdev.Range
		to     []blockdev.Range
	}{
		{"whole", []blockdev.Range{{Length: size}}, []blockdev.Range{{Length: size}}},
		{"pieces", []blockdev.Range{{Offset: 64 << 10, Length: 128 << 10}, {Offset: 1 << 20, Length: 1 << 20}, {Offset: 3 << 20, Length: 4096}},
			[]blockdev.Range{{Offset: 1 << 20, Length: 1<<20 + 132<<10}}},
		{"not aligned", []blockdev.Range{{Offset: 512, Length: 1 << 20}, {Offset: 2<<20 + 1024, Length: 512}},
			[]blockdev.Range{{Offset: 1536, Length: 1 << 19}, {Offset: 2 << 20, Length: 1<<19 + 512}}},
		{"not congruent", []blockdev.Range{{Length: size}}, []blockdev.Range{{Offset: 512, Length: size / 2}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			token := tokenOf(t, a, src, tokens.ReadOptions{}, tt.ranges...)
			dst := b.Volume(tt.name, size, peertest.Random(2, size))
			want := content(t, dst)
			var bytesOf []byte
			for _, r := range tt.ranges {
				bytesOf = append(bytesOf, data[r.Offset:r.End()]...)
			}
			for _, r := range tt.to {
				n := copy(want[r.Offset:r.End()], bytesOf)
				bytesOf = bytesOf[n:]
			}
			n, err := write(b, token, dst, tokens.WriteOptions{}, tt.to...)
			must.Succeed(t, err)
			var all int64
			for _, r := range tt.to {
				all += r.Length
			}
			if n != all {
				t.Errorf("%d bytes done, want %d", n, all)
			}
			if !bytes.Equal(content(t, dst), want) {
				t.Error("the destination has other bytes")
			}
		})
	}
}

// TestTokens_Refused: the server that made a token decides about it.
func TestTokens_Refused(t *testing.T) {
	policy := tokens.Policy{Groups: []tokens.Group{{Name: "g", Initiators: []tokens.Pattern{"iqn.2026-11.example:m*"}}}}
	a, b := pair(t, peertest.Options{Policy: policy})
	src := a.Volume("src", 1<<20, peertest.Random(5, 1<<20))
	dst := b.Volume("dst", 1<<20, nil)
	all := blockdev.Range{Length: 1 << 20}
	member := tokens.Requester{Initiator: "iqn.2026-11.example:member"}
	end := func(reason tokens.Reason) func(*tokens.Token) {
		return func(token *tokens.Token) { must.Succeed(t, a.Tokens.Delete(ctx, token.ID(), reason)) }
	}
	for _, tt := range []struct {
		name   string
		o      tokens.ReadOptions
		change func(*tokens.Token)
		who    tokens.Requester
		want   error
	}{
		{name: "good", who: member},
		{name: "revoked", change: end(tokens.Revoked), who: member, want: tokens.ErrRevoked},
		{name: "expired", change: end(tokens.Expired), who: member, want: tokens.ErrExpired},
		{name: "deleted", change: end(tokens.Deleted), who: member, want: tokens.ErrDeleted},
		{name: "cancelled", change: end(tokens.Cancelled), who: member, want: tokens.ErrCancelled},
		{name: "member", o: tokens.ReadOptions{Access: tokens.AccessGroup("g")}, who: member},
		{name: "other", o: tokens.ReadOptions{Access: tokens.AccessGroup("g")}, who: tokens.Requester{Initiator: "iqn.2026-11.example:other"}, want: tokens.ErrAccess},
		{name: "administrator of the peer", o: tokens.ReadOptions{Access: tokens.AccessInitiator}, want: tokens.ErrAccess},
		{name: "seal", change: func(token *tokens.Token) { token[500] ^= 1 }, who: member, want: tokens.ErrCorrupt},
		{name: "store", change: func(token *tokens.Token) {
			other := peertest.New(t, "c", peertest.Options{})
			v := other.Volume("v", 1<<20, nil)
			*token = *tokenOf(t, other, v, tokens.ReadOptions{}, all)
		}, who: member, want: tokens.ErrRemote},
	} {
		t.Run(tt.name, func(t *testing.T) {
			token := tokenOf(t, a, src, tt.o, all)
			// A hold that is open does not make it good.
			if tt.want != nil && tt.o.Access == "" {
				_, err := write(b, token, dst, tokens.WriteOptions{Requester: tt.who}, all)
				must.Succeed(t, err)
			}
			if tt.change != nil {
				tt.change(token)
			}
			n, err := write(b, token, dst, tokens.WriteOptions{Requester: tt.who}, all)
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if tt.want != nil && n != 0 {
				t.Errorf("%d bytes done", n)
			}
		})
	}
}

// TestHold_Volume: a volume, a file and a snapshot are held as they are, with what differs.
func TestHold_Volume(t *testing.T) {
	a := peertest.New(t, "a", peertest.Options{})
	p := a.As("b")
	data := peertest.Random(6, 1<<20)
	v := a.Volume("v", 1<<20, data)
	_, err := a.Store.SnapshotVolume(ctx, "v", "v.1")
	must.Succeed(t, err)
	must.Succeed(t, v.WriteAt(ctx, peertest.Random(7, 8192), 64<<10))
	h, err := p.HoldVolume(ctx, "v", "v.1")
	must.Succeed(t, err)
	must.Succeed(t, v.WriteAt(ctx, peertest.Random(8, 8192), 0)) // after the hold
	var differ int64
	must.Succeed(t, h.Diff(ctx, 0, h.Length(), func(d backstore.Difference) error {
		differ += d.Length
		return nil
	}))
	if differ < 8192 || differ > 64<<10 {
		t.Errorf("%d bytes differ, two blocks were written", differ)
	}
	copy(data[64<<10:], peertest.Random(7, 8192))
	got := make([]byte, len(data))
	must.Succeed(t, h.ReadAt(ctx, got, 0))
	if !bytes.Equal(got, data) {
		t.Error("other bytes than when it was taken")
	}
	must.Succeed(t, h.Release(ctx))
	if list := a.Keeper.Holds(); len(list) != 0 {
		t.Errorf("%d holds are left: %+v", len(list), list)
	}
	if _, err := p.HoldVolume(ctx, "no such volume", ""); !errors.Is(err, backstore.ErrNotFound) {
		t.Errorf("%v, want %v", err, backstore.ErrNotFound)
	}
	if err := h.ReadAt(ctx, got, 0); !errors.Is(err, peer.ErrGone) {
		t.Errorf("after the release: %v, want %v", err, peer.ErrGone)
	}
}
