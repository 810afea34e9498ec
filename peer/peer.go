package peer

import (
	"context"
	"errors"

	"odx/backstore"
	"odx/blockdev"
	"odx/tokens"
)

// Hold is data of another server that stays as it is until Release. It is renewed while it
// is open. Methods may be called concurrently. Offsets and lengths are in bytes.
type Hold interface {
	// Length returns how many bytes are held.
	Length() int64
	// Store returns the ID of the store whose slots the runs name, DedupUnit its dedup unit.
	Store() [16]byte
	DedupUnit() int
	// Runs calls fn with the runs of [off, off+length), in order and without gaps. A run
	// without slots that is no hole has bytes that are not whole blocks of the store. fn does
	// not keep the slices.
	Runs(ctx context.Context, off, length int64, fn func(backstore.Run) error) error
	// RunsOf is Runs of ranges, which are in order, in one request: at most MaxRanges.
	RunsOf(ctx context.Context, ranges []blockdev.Range, fn func(backstore.Run) error) error
	// Diff calls fn with what may differ between the base that the hold was taken with and
	// the hold, in order. Without a base, everything but holes differs.
	Diff(ctx context.Context, off, length int64, fn func(backstore.Difference) error) error
	// Fingerprints returns the fingerprints, by the key of another store, of the pieces of ranges
	// that its dedup unit, in bytes, makes extents of: of at most MaxRanges and 4 MiB.
	Fingerprints(ctx context.Context, key [32]byte, unit int, ranges []blockdev.Range) ([]backstore.Fingerprint, error)
	// ReadAt fills p from off.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// ReadRanges fills p with the bytes of ranges, laid end to end.
	ReadRanges(ctx context.Context, p []byte, ranges []blockdev.Range) error
	// Release ends the hold. If the other side does not get the request, its lease ends it.
	Release(ctx context.Context) error
}

// Peer is another server. Errors are those that its server decides on (package tokens for
// tokens, backstore.ErrNotFound, …), ErrDown, ErrProtocol and ErrGone.
type Peer interface {
	// Name returns the name in the configuration, Store the ID of its store.
	Name() string
	Store() [16]byte
	// HoldToken holds the bytes of a token that the peer made, for a requester of this
	// server.
	HoldToken(ctx context.Context, t *tokens.Token, who tokens.Requester) (Hold, error)
	// HoldVolume holds a volume, a snapshot, or file:NAME as it is now. base is empty, or
	// names an earlier state of it for Hold.Diff.
	HoldVolume(ctx context.Context, name, base string) (Hold, error)
	// Call sends another request below /v1/peer/, with JSON in and out; nil for none.
	Call(ctx context.Context, method, path string, in, out any) error
}

// Resolver finds the server of a store. A store that no configuration names is never asked
// for anywhere.
type Resolver interface {
	Resolve(store [16]byte) (Peer, bool)
	// All returns all servers that are known.
	All() []Peer
}

// Path begins the paths of all requests to a peer.
const Path = "/v1/peer/"

// Why a peer gives nothing.
var (
	// ErrDown: the peer does not answer, or refuses this server, or is not the one that the
	// configuration names.
	ErrDown = errors.New("peer does not answer")
	// ErrProtocol: the answer of the peer is damaged, or makes no sense.
	ErrProtocol = errors.New("answer of the peer is malformed")
	// ErrGone: the peer has the hold no more: its lease was over, or the peer was restarted.
	ErrGone = errors.New("hold has ended")
	// ErrLimit: the peer gives no more holds at this time.
	ErrLimit = errors.New("too many holds")
	// ErrStore: the request is for a server of another store.
	ErrStore = errors.New("this server has another store")
)
