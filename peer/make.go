package peer

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"time"

	v1 "odx/api/v1"
	"odx/blockdev"
	"odx/tokens"
)

// tokenBlockLength is the logical block length of tokens that peers ask for, in bytes: the
// shortest of any LUN, so that every LUN can use them.
const tokenBlockLength = 512

// MakeToken has p make a token of a range of one of its volumes, or of file:NAME; a length of 0
// is up to the end. The description is by the clock of this server.
func MakeToken(ctx context.Context, p Peer, volume string, r blockdev.Range, o tokens.ReadOptions) (*tokens.Token, tokens.Info, error) {
	store := p.Store()
	q := v1.PeerMakeRequest{
		Store: fmt.Sprintf("%x", store[:]), Volume: volume, Offset: r.Offset, Length: r.Length,
		Type: uint32(o.Type), InactivityMS: o.InactivityTimeout.Milliseconds(), Priority: o.Priority, Access: string(o.Access),
	}
	var a v1.PeerMade
	if err := p.Call(ctx, http.MethodPost, Path+"tokens", q, &a); err != nil {
		return nil, tokens.Info{}, fmt.Errorf("peer %s: %w", p.Name(), err)
	}
	info, err := infoOf(a.Info)
	if err != nil {
		return nil, info, err
	}
	if len(a.Token) != tokens.TokenLength || info.Length <= 0 {
		return nil, info, fmt.Errorf("%w: %s: a token of %d bytes for %d", ErrProtocol, p.Name(), len(a.Token), info.Length)
	}
	t := (*tokens.Token)(a.Token)
	if t.Store() != store {
		return nil, info, fmt.Errorf("%w: %s: a token of another store", ErrProtocol, p.Name())
	}
	info.Server = p.Name()
	return t, info, nil
}

// serveMake makes a token for a peer, of what it could hold, too.
func (k *Keeper) serveMake(r *http.Request, _ string) (any, error) {
	var p v1.PeerMakeRequest
	if err := decode(r, &p); err != nil {
		return nil, err
	}
	if err := k.expect(p.Store); err != nil {
		return nil, err
	}
	a, err := k.make(r.Context(), &p)
	k.given(r.Context(), "token of "+p.Volume, err)
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (k *Keeper) make(ctx context.Context, p *v1.PeerMakeRequest) (*v1.PeerMade, error) {
	v, err := k.find(p.Volume)
	if err != nil {
		return nil, err
	}
	if p.Length == 0 {
		p.Length = (v.Size() - p.Offset) / tokenBlockLength * tokenBlockLength
	}
	if p.InactivityMS < 0 || p.InactivityMS > int64(1<<63-1)/int64(time.Millisecond) {
		return nil, fmt.Errorf("%w: inactivity timeout of %d ms", blockdev.ErrInvalid, p.InactivityMS)
	}
	src := tokens.Source{Volume: v, LU: tokens.LU{BlockLength: tokenBlockLength}}
	binary.BigEndian.PutUint32(src.LU.ReadCapacity[:], tokenBlockLength)
	made, err := k.tokens.OffloadRead(ctx, src, []blockdev.Range{{Offset: p.Offset, Length: p.Length}}, tokens.ReadOptions{
		Type: tokens.RODType(p.Type), InactivityTimeout: time.Duration(p.InactivityMS) * time.Millisecond,
		Creator: tokens.Creator{Volume: p.Volume}, Priority: p.Priority, Use: "api", Access: tokens.Access(p.Access),
	})
	if err != nil {
		return nil, err
	}
	info, err := k.tokens.Lookup(made.Token)
	if err != nil {
		return nil, err
	}
	return &v1.PeerMade{Token: made.Token[:], Info: answerOf(info)}, nil
}
