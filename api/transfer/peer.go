package transfer

import (
	"context"
	"fmt"

	"odx/admin"
	"odx/backstore"
	"odx/tokens"
)

// peerVolume is a volume or a file of a peer of the server. A token has all of it, as of the
// time of OpenPeer; it ends with Close.
type peerVolume struct {
	store        admin.Administrator
	peer, volume string
	token        *tokens.Token
	size         int64
}

// OpenPeer returns a volume of a peer of the server of a, or a file of it if the name begins
// with admin.FilePrefix, for reading.
func OpenPeer(ctx context.Context, a admin.Administrator, peer, volume string) (Disk, error) {
	made, err := a.CreateToken(ctx, admin.TokenRequest{Peer: peer, Volume: volume})
	if err != nil {
		return nil, err
	}
	t, err := admin.ParseToken(made.Token)
	if err != nil {
		return nil, err
	}
	return &peerVolume{store: a, peer: peer, volume: volume, token: t, size: made.Length}, nil
}

// Close implements Disk. A token that is not deleted expires.
func (v *peerVolume) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), forgetLimit)
	defer cancel()
	_ = v.store.RevokeToken(ctx, v.token)
	return nil
}

func (v *peerVolume) Size() int64      { return v.size }
func (v *peerVolume) BlockLength() int { return volumeBlockLength }

// ReadAt implements Disk.
func (v *peerVolume) ReadAt(ctx context.Context, p []byte, off int64) error {
	for len(p) > 0 {
		part := p[:min(len(p), maxTokenRead)]
		n, err := v.store.ReadToken(ctx, v.token, part, off)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("peer %s: the token of %s ends at byte %d of %d", v.peer, v.volume, off, v.size)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// maxTokenRead bounds a read of bytes of a token.
const maxTokenRead = 4 << 20

func (v *peerVolume) readOnly() error {
	return fmt.Errorf("%s of peer %s: %w", v.volume, v.peer, backstore.ErrReadOnly)
}

// WriteAt implements Disk.
func (v *peerVolume) WriteAt(context.Context, []byte, int64) error { return v.readOnly() }

// Zero implements Disk.
func (v *peerVolume) Zero(context.Context, int64, int64) error { return v.readOnly() }

// Flush implements Disk.
func (v *peerVolume) Flush(context.Context) error { return nil }

// Populate implements Offloader.
func (v *peerVolume) Populate(ctx context.Context, off, length int64) (Token, int64, error) {
	if off == 0 {
		return v.token[:], min(length, v.size), nil
	}
	t, err := v.store.CreateToken(ctx, admin.TokenRequest{Peer: v.peer, Volume: v.volume, Offset: off, Length: length})
	return t.Token, t.Length, err
}

// WriteUsing implements Offloader.
func (v *peerVolume) WriteUsing(context.Context, Token, int64, int64, int64) (int64, error) {
	return 0, v.readOnly()
}

// Forget implements Offloader. The token of all is needed until Close.
func (v *peerVolume) Forget(ctx context.Context, t Token) error {
	if string(t) == string(v.token[:]) {
		return nil
	}
	return revoke(ctx, v.store, t)
}
