package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/stream"
)

// The errors of streams that a caller decides on, besides those of package stream and of
// the store.
var (
	// ErrNoBase: the store has not the snapshot that an incremental stream is based on.
	ErrNoBase = errors.New("the base of the stream is not here")
	// ErrDiverged: the volume is not as the base of an incremental stream.
	ErrDiverged = errors.New("the volume is not as the base of the stream")
	// ErrReceived: the volume has the content of the stream already.
	ErrReceived = errors.New("received already")
	// ErrResume: a stream cannot be continued there.
	ErrResume = errors.New("the stream cannot be continued")
	// ErrReceiving: another stream is being received under the name.
	ErrReceiving = errors.New("another stream is being received")
)

// Streamer sends and receives streams. Streams implements it on an open store, the client of
// package api on a store that another process serves.
type Streamer interface {
	// Send writes a stream. progress, which may be nil, is called about ten times a second.
	Send(ctx context.Context, r SendRequest, w io.Writer, progress func(Progress)) (Sent, error)
	// Receive reads a stream. The content is visible when all of it is there.
	Receive(ctx context.Context, r ReceiveRequest, from io.Reader, progress func(Progress)) (Received, error)
	// Partials lists streams that ended too early, and can be continued, by name.
	Partials(ctx context.Context) ([]Partial, error)
	// DropPartial gives up what was received of one; backstore.ErrNotFound.
	DropPartial(ctx context.Context, name string) error
}

// SendRequest says what is sent.
type SendRequest struct {
	// Source is a snapshot or any other volume, or admin.FilePrefix and the name of a file.
	Source string
	// Base is the snapshot to which the stream has the differences; empty: none.
	Base string
	// Start is where the stream begins, in bytes.
	Start int64
	// Resume has source, base and start instead, as Partial.Token; empty: it does not.
	Resume string
	Level  stream.Level
}

// Sent says what was sent.
type Sent struct {
	Header stream.Header
	Totals stream.Totals
}

// ReceiveRequest says where a stream goes.
type ReceiveRequest struct {
	// Name is that of the volume, or admin.FilePrefix and that of the file. With an
	// incremental stream, it may be a volume that has the content of its base.
	Name string
	// Snapshot is the name of the snapshot that is made; empty: that of the sender's.
	Snapshot string
	// Resume goes on with what is there of the same stream, which is read from its
	// beginning, too.
	Resume bool
	// Force discards what was written to the volume since the base, and replaces the
	// content of a LUN that initiators are logged in to.
	Force bool
}

// Received says what was received.
type Received struct {
	Header stream.Header
	Totals stream.Totals
	Name   string
	// Snapshot is the name of the snapshot; empty where there is none.
	Snapshot string
}

// Progress says how far a stream is.
type Progress struct {
	// OffsetBytes of the SizeBytes of the content are done, or are as in the base.
	OffsetBytes, SizeBytes int64
	// DataBytes were sent or received.
	DataBytes int64
}

// progressPeriod is the time between two calls of a function for progress.
const progressPeriod = 100 * time.Millisecond

// reporter calls a function for progress now and then.
type reporter struct {
	fn   func(Progress)
	last time.Time
}

func (r *reporter) report(p Progress) {
	if now := time.Now(); r.fn != nil && now.Sub(r.last) >= progressPeriod {
		r.last = now
		r.fn(p)
	}
}

// Streams sends and receives streams of an open store. It implements Streamer.
type Streams struct {
	admin *admin.Store
	store *backstore.Store
	log   *logrus.Entry

	recovering sync.Mutex // guards recovered
	recovered  bool

	mu        sync.Mutex // guards receiving
	receiving map[string]bool
}

// NewStreams returns the streams of a store.
func NewStreams(store *admin.Store, log *logrus.Entry) *Streams {
	return &Streams{admin: store, store: store.Backstore(), log: log, receiving: map[string]bool{}}
}

// identity returns what a snapshot is known by in streams: its own number, or that of the
// snapshot that it was received from. Both stand for the same content for ever.
func (s *Streams) identity(v *backstore.Volume) (stream.ID, error) {
	o, ok, err := s.Origin(v)
	if err != nil || !ok {
		return v.ID(), err
	}
	return o.Snapshot, nil
}

// snapshotByIdentity returns the snapshot that an identity stands for; nil if the store
// has none.
func (s *Streams) snapshotByIdentity(id stream.ID) (*backstore.Volume, error) {
	for _, v := range s.store.Volumes() {
		if !v.ReadOnly() {
			continue
		}
		found, err := s.identity(v)
		if err != nil {
			return nil, err
		}
		if found == id {
			return v, nil
		}
	}
	return nil, nil
}

// snapshot returns the snapshot of a name.
func (s *Streams) snapshot(name string) (*backstore.Volume, error) {
	v, err := s.admin.Object(name)
	if err != nil {
		return nil, err
	}
	if !v.ReadOnly() {
		return nil, fmt.Errorf("%w: %v is not a snapshot; make one with odx volume snapshot", blockdev.ErrInvalid, v)
	}
	return v, nil
}
