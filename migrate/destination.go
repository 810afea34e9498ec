package migrate

import (
	"context"
	"time"

	"odx/backstore"
)

// destination is where a migration moves LUNs to. The coordinator (migration) decides when; a
// destination knows how. Its methods are called one at a time.
type destination interface {
	// begin checks the destination, makes it where that is needed, and stores the record of
	// the migration. After an error, drop follows, and the record is removed.
	begin(ctx context.Context) error
	// resume ends a cut that was interrupted. done: that is all there is to do for now.
	resume(ctx context.Context) (done bool, err error)
	// left reports whether the LUN is not certain to be served from the source, as far as is
	// known here.
	left() bool
	// ready prepares the destination for rounds, while the LUN is served from the source.
	ready(ctx context.Context, src *backstore.Volume) error
	// round makes the destination equal to the next point in time, durably, and returns how
	// long the copying took; a cut follows one that took at most short.
	round(ctx context.Context, src *backstore.Volume) (took time.Duration, err error)
	short() time.Duration
	// cut moves the LUN, or gives up before anything has changed: then rounds go on.
	cut(ctx context.Context, src *backstore.Volume) error
	// settle ends what was for the migration alone, once the LUN is served from the
	// destination.
	settle(ctx context.Context) error
	// stay makes sure that the LUN is served from the source from here on, before the
	// migration is aborted.
	stay(ctx context.Context) error
	// drop removes what was made for a migration that is aborted.
	drop(ctx context.Context) error
	// leave ends what others know of a migration that has moved its LUN, before its source is
	// released.
	leave(ctx context.Context) error
	// release closes what is open, once the migration does not run.
	release()
}

// newDestination returns the destination of a migration.
func newDestination(g *migration) destination {
	switch {
	case g.rec.remote():
		return &atPeer{migration: g}
	case g.rec.ToISCSI != "":
		return &onTarget{here: here{migration: g, copies: foreignCopies}}
	}
	return &inStore{here{migration: g}}
}
