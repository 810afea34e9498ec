package pair

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "odx/api/v1"
	"odx/peer"
)

// Link is the way to the server of the other side.
type Link interface {
	// Name returns the name of the peer in the configuration, Store the ID of its store.
	Name() string
	Store() [16]byte
	// Ask sends a request. An error of the other side is a *RefusedError.
	Ask(ctx context.Context, r Request) (Answer, error)
	// Offered returns what a server with that store can keep replicas of (Manager.Offered).
	Offered(ctx context.Context, from [16]byte, prefix string) ([]Offered, error)
	// Move sends a request about a migration, likewise.
	Move(ctx context.Context, q v1.PeerMove) (v1.PeerMoveAnswer, error)
	// Hold holds a point of a pair, for differences to another one; base zero: to nothing.
	Hold(ctx context.Context, pair, point, base ID) (peer.Hold, error)
}

// Op is what a side asks the other one for.
type Op string

// The requests. All can be repeated.
const (
	// opBegin makes the other side the source of a new pair.
	opBegin Op = "begin"
	// opTake has the source pin a point. Known is the point that the caller has, Resume one
	// that it has not finished.
	opTake Op = "take"
	// opKeep says that the caller has the point, so that the source keeps no older one.
	opKeep Op = "keep"
	// opYield freezes the source, whose service ends.
	opYield Op = "yield"
	// opLead says that the caller is the source from Epoch on, since Point.
	opLead Op = "lead"
	// opState asks for the state.
	opState Op = "state"
	// opForget says that the caller has given up the pair.
	opForget Op = "forget"
	// opOrphan says that the caller, the source, has given up the pair.
	opOrphan Op = "orphan"
	// opList asks for what can be a source. It names no pair; Object is a prefix.
	opList Op = "list"
)

// Request is what one side asks of the other.
type Request struct {
	Op   Op
	Pair ID
	// From is the store of the caller; Name is what it calls the pair; Object is the volume,
	// or file:NAME, of the side that is asked.
	From         [16]byte
	Name, Object string
	Epoch        uint64
	Point        ID
	Known        ID
	Resume       ID
	// Full: a source that has not Known gives a point all the same.
	Full bool
	// Units: what the logical unit keeps is to be in the answer to opYield or opTake.
	Units bool
}

// Answer is what it gets.
type Answer struct {
	Role     Role
	Epoch    uint64
	Identity ID
	// Object is the volume, or file:NAME, of the side that answers.
	Object string
	Common ID
	Point  ID
	// Age is how long ago the point was taken.
	Age time.Duration
	// Final: nothing was written since the point was taken, and nothing can be.
	Final bool
	// Units is what the logical unit of a source keeps.
	Units []UnitRecord
}

// Why the other side, or this one, does not do what is asked.
var (
	// ErrNoPair: it knows no such pair.
	ErrNoPair = errors.New("no such replica")
	// ErrNoCommon: the two sides have no point in common.
	ErrNoCommon = errors.New("source and replica have no common snapshot")
	// ErrRole: a side has another role than what is asked for needs.
	ErrRole = errors.New("role does not fit")
	// ErrBusy: a round of the pair is under way.
	ErrBusy = errors.New("a round is under way")
	// ErrPaused: the replica is paused.
	ErrPaused = errors.New("paused")
)

// RefusedError is what the other side has answered. It wraps one of the errors above, or one
// of package backstore.
type RefusedError struct {
	Peer  string
	Text  string
	Cause error
}

func (e *RefusedError) Error() string { return fmt.Sprintf("peer %s: %s", e.Peer, e.Text) }
func (e *RefusedError) Unwrap() error { return e.Cause }
