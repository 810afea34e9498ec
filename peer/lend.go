package peer

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"

	v1 "odx/api/v1"
	"odx/backstore"
	"odx/blockdev"
)

// lendMemory is what a loan takes, in bytes.
const lendMemory = 4 << 20

// id16 reads an identity.
func id16(text string) (id [16]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("%w: %.40q is no identity", blockdev.ErrInvalid, text)
	}
	return [16]byte(b), nil
}

// termsOf returns what a request says of the taker.
func termsOf(p *v1.PeerLendRequest) (t backstore.Terms, err error) {
	if t.Store, err = id16(p.Taker); err != nil {
		return t, err
	}
	if t.Pool, err = id16(p.Pool); err != nil {
		return t, err
	}
	proof, err := hex.DecodeString(p.Proof)
	if err != nil || len(proof) != len(t.Proof) {
		return t, fmt.Errorf("%w: proof of %d bytes", blockdev.ErrInvalid, len(proof))
	}
	t.Proof, t.Stamp = [32]byte(proof), backstore.Stamp{Epoch: p.Epoch, Seq: p.Seq}
	return t, nil
}

// serveLend lends a range of a hold: the answer says where it lies.
func (k *Keeper) serveLend(w http.ResponseWriter, r *http.Request, h *held) error {
	off, length, err := window(r, h.data.Length())
	if err != nil {
		return err
	}
	var p v1.PeerLendRequest
	if err := decode(r, &p); err != nil {
		return err
	}
	terms, err := termsOf(&p)
	if err != nil {
		return err
	}
	if err := k.memory.Take(r.Context(), h.peer, lendMemory); err != nil {
		return err
	}
	defer k.memory.Release(h.peer, lendMemory)
	loan, err := h.data.Lend(r.Context(), terms, off, length)
	if err != nil {
		return err
	}
	_ = writeLoan(w, &loan) // fails only if the peer has left; its claim ends what it does not use
	return nil
}

// serveClaim settles a claim, or only says what of it is not held.
func (k *Keeper) serveClaim(r *http.Request, _ string) (any, error) {
	var p v1.PeerClaim
	if err := decode(r, &p); err != nil {
		return nil, err
	}
	if err := k.expect(p.Store); err != nil {
		return nil, err
	}
	taker, err := id16(p.Taker)
	if err != nil {
		return nil, err
	}
	c := backstore.Claim{Taker: taker, Stamp: backstore.Stamp{Epoch: p.Epoch, Seq: p.Seq}, First: p.First, Last: p.Last, Segments: p.Segments}
	if p.Check {
		return v1.PeerClaimed{Missing: orNone(k.store.Unheld(c))}, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), k.limits.AnswerTime)
	defer cancel()
	missing, err := k.store.Settle(ctx, c)
	return v1.PeerClaimed{Missing: orNone(missing)}, err
}

// orNone has JSON show an empty list.
func orNone(list []uint32) []uint32 {
	if list == nil {
		return []uint32{}
	}
	return list
}
