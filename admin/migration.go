package admin

import (
	"context"
	"errors"
	"time"

	"odx/conf"
)

// Migrator moves volumes that are LUNs to other places while they are written to.
type Migrator interface {
	// Migrations describes the migrations, those that have ended too until they are
	// forgotten, by the names of the volumes.
	Migrations(ctx context.Context) ([]Migration, error)
	// StartMigration begins to move a volume. It returns once that will go on after a
	// restart.
	StartMigration(ctx context.Context, r MigrationRequest) (Migration, error)
	// AbortMigration ends the migration of a volume. The LUN stays where it is, and what was
	// made for the migration is removed. ErrMigrated: the LUN is at the destination already.
	AbortMigration(ctx context.Context, volume string) (Migration, error)
	// FinishMigration forgets a migration that has ended. After one that has moved the LUN it
	// deletes the volume that the LUN has left, unless keepSource.
	FinishMigration(ctx context.Context, volume string, keepSource bool) (Migration, error)
}

// Errors of migrations.
var (
	// ErrNoMigration: the volume is not being migrated.
	ErrNoMigration = errors.New("no migration of this volume")
	// ErrMigrated: the LUN is at the destination already.
	ErrMigrated = errors.New("the LUN has moved to the destination; finish the migration, and migrate it back if it was not moved to another target")
	// ErrHandingOver: the destination may have the LUN already.
	ErrHandingOver = errors.New("the LUN is being handed over, and the destination has not answered; the migration goes on when it does")
	// ErrMigrating: the migration has not ended.
	ErrMigrating = errors.New("the migration has not ended; abort it, or wait")
)

// MigrationRequest says what is to be moved, and how.
type MigrationRequest struct {
	// Volume is the name of a volume that is a LUN, To the name of a view, or of a volume
	// that does not exist, or PEER:VOLUME for one of another server, or the LUN of another
	// target, as conf.ParseISCSI reads it.
	Volume, To string
	// Login is what the LUN of another target is logged in to with, by secrets in files or
	// environment variables; nil: nothing.
	Login *conf.Login
	// Portal is the address, host:port, of another server to which initiators are redirected
	// after the move; empty: none is.
	Portal string
	// Overwrite: what is at the destination is lost.
	Overwrite bool
	// Rate bounds the copying, in bytes a second; 0: no bound.
	Rate int64
	// Throttle bounds what initiators write and read, in bytes a second, once rounds do not
	// become shorter; 0: never.
	Throttle int64
}

// MigrationState says how far a migration is.
type MigrationState string

// States of a migration.
const (
	// MigrationCopying: the LUN is served from the source.
	MigrationCopying MigrationState = "copying"
	// MigrationHandingOver: the server has given up the LUN, and the one of the destination
	// has not answered yet that it serves it.
	MigrationHandingOver MigrationState = "handing-over"
	// MigrationMoved: the LUN is served from the destination.
	MigrationMoved MigrationState = "moved"
	// MigrationAborting and MigrationAborted: the LUN is served from the source, and stays
	// there.
	MigrationAborting MigrationState = "aborting"
	MigrationAborted  MigrationState = "aborted"
)

// Migration describes a migration.
type Migration struct {
	Volume, To string
	// Peer is the other server; empty: there is none.
	Peer  string
	State MigrationState
	// SizeBytes is the size of the volume.
	SizeBytes int64
	// Rounds are those that were copied, CopiedBytes what was copied in all of them.
	Rounds      int
	CopiedBytes int64
	// RoundBytes is what the current round has to copy, 0 before that is known; RoundCopied is
	// what it has, which is not in CopiedBytes yet.
	RoundBytes, RoundCopied int64
	// BytesPerSecond is how fast this process has copied so far.
	BytesPerSecond int64
	// Remaining estimates the time to the end of the round; 0: it is not known.
	Remaining time.Duration
	// Diverges: rounds do not become shorter, since as much is written as is copied.
	Diverges bool
	// Throttled: initiators are held back.
	Throttled bool
	// Cuts counts the attempts to move the LUN, Cut is how long commands were held in the
	// one that did, LongestCut in the longest of all.
	Cuts            int
	Cut, LongestCut time.Duration
	// Problem is why the last round or cut failed, which is tried again, or why the migration
	// ended.
	Problem string
	// Began, and Ended: zero while it is under way.
	Began, Ended time.Time
}
