package foreign

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"odx/blockdev"
	"odx/initiator"
)

// Geometry is what a LUN has to keep.
type Geometry struct {
	// ID tells it from all others: see initiator.Disk.Identity.
	ID string
	// Size is its capacity in bytes, which can grow, and BlockLength its logical block length.
	Size        int64
	BlockLength int
}

// Options are the arguments of Open.
type Options struct {
	// URL is the LUN, with what to log in with.
	URL initiator.URL
	// InitiatorName and ISID are our port, which no other session may have.
	InitiatorName string
	ISID          [6]byte
	// Known is what the LUN was before: then it need not be reachable now. The zero value: what
	// it is now is what it has to stay.
	Known Geometry
	// Command bounds one command, and Wait all that a command waits for, sessions included. 0:
	// 8 and 20 s, which fit in the 30 s that Linux waits for a command.
	Command, Wait time.Duration
	// Grown is called once the LUN is larger than it was; nil: nothing is.
	Grown func(Geometry)
	Log   *logrus.Entry
}

const (
	defaultCommand = 8 * time.Second
	defaultWait    = 20 * time.Second
	// maxCommands bounds the commands that are outstanding.
	maxCommands = 32
	// zeroStep bounds what one command has to make zeros, in bytes: it has to end in time.
	zeroStep = 32 << 20
)

// Disk is a LUN of another target, as a volume that a copy is written to: blockdev.Volume.
// Ranges are whole logical blocks. Served is the same for LUNs.
type Disk struct {
	o     Options
	name  string
	slots chan struct{}

	base    context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex // guards what follows, and the login of o.URL
	geometry Geometry
	current  *session      // nil: there is none
	there    chan struct{} // closed while there is one
	problem  error         // why there is none
	// written and flushed count writes that are not durable by themselves; lost: some may be
	// gone, which the next flush reports.
	written, flushed uint64
	lost             bool

	changing sync.RWMutex // held to write, and alone to read, compare and write
}

// Open returns the LUN of another target. ctx bounds the first session, which it waits for if
// nothing is known of the LUN.
func Open(ctx context.Context, o Options) (*Disk, error) {
	o.Command, o.Wait = cmp.Or(o.Command, defaultCommand), cmp.Or(o.Wait, defaultWait)
	d := &Disk{o: o, name: o.URL.String(), geometry: o.Known, slots: make(chan struct{}, maxCommands), there: make(chan struct{})}
	d.o.Log = o.Log.WithField("lun", d.name)
	d.base, d.stop = context.WithCancel(context.Background())
	if o.Known == (Geometry{}) {
		s, err := d.open(ctx)
		if err != nil {
			d.stop()
			return nil, err
		}
		s.Drop() // connect takes its place at once
	}
	d.running.Go(d.connect)
	return d, nil
}

// Close ends the session. Commands that still run fail.
func (d *Disk) Close() error {
	d.stop()
	d.running.Wait()
	return nil
}

// Login is what a session proves itself with, and what the target proves itself with; the zero
// value of either: no proof.
type Login struct{ Initiator, Target initiator.Credentials }

// In makes a login that of a URL.
func (l Login) In(u *initiator.URL) { u.Login, u.TargetLogin = l.Initiator, l.Target }

// SetLogin changes what the next sessions log in with.
func (d *Disk) SetLogin(l Login) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l.In(&d.o.URL)
}

// Geometry returns what the LUN is.
func (d *Disk) Geometry() Geometry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.geometry
}

// String returns the URL, without a secret.
func (d *Disk) String() string { return d.name }

// Size returns the capacity in bytes.
func (d *Disk) Size() int64 { return d.Geometry().Size }

// check refuses a range outside of the LUN.
func (d *Disk) check(off, length int64) error {
	if r := (blockdev.Range{Offset: off, Length: length}); !r.In(d.Size()) {
		return fmt.Errorf("%s: %d bytes at %d: %w", d.name, length, off, blockdev.ErrRange)
	}
	return nil
}

// ReadAt fills p from byte off on.
func (d *Disk) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := d.check(off, int64(len(p))); err != nil || len(p) == 0 {
		return err
	}
	return d.run(ctx, off, func(ctx context.Context, s *session) error { return s.ReadAt(ctx, p, off) })
}

// WriteAt writes p at byte off.
func (d *Disk) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := d.check(off, int64(len(p))); err != nil || len(p) == 0 {
		return err
	}
	return d.run(ctx, off, func(ctx context.Context, s *session) error {
		return d.wrote(s, s.WriteAt(ctx, p, off))
	})
}

// Unmap makes a range read as zeros: the target gives its space back if it promises zeros then,
// otherwise they are written where it reads as something else.
func (d *Disk) Unmap(ctx context.Context, off, length int64) error {
	return d.zero(ctx, off, length, func(ctx context.Context, s *session, off, n int64) error {
		if !s.Unmaps() {
			return d.clear(ctx, s, off, n)
		}
		return d.wrote(s, s.Zero(ctx, off, n))
	})
}

// zero calls fn for the parts of a range.
func (d *Disk) zero(ctx context.Context, off, length int64, fn func(ctx context.Context, s *session, off, n int64) error) error {
	if err := d.check(off, length); err != nil {
		return err
	}
	for length > 0 {
		n := min(length, zeroStep)
		err := d.run(ctx, off, func(ctx context.Context, s *session) error { return fn(ctx, s, off, n) })
		if err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

// wrote counts a write that the target may keep in its cache.
func (d *Disk) wrote(s *session, err error) error {
	if err != nil || !s.cache.Volatile {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written++
	if d.current != s { // it has ended since
		d.lose()
	}
	return nil
}

// errLost is the error of a flush.
var errLost = errors.New("the session was lost since the last flush, and what was written since may be lost; it has to be written again")

// Flush makes every write that returned before it durable. Its error is one of the writes if
// the target may have lost them.
func (d *Disk) Flush(ctx context.Context) error {
	d.mu.Lock()
	upTo := d.written
	d.mu.Unlock()
	err := d.run(ctx, 0, func(ctx context.Context, s *session) error { return s.Flush(ctx) })
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err != nil:
		return err
	case d.lost:
		d.lost = false
		return fmt.Errorf("%s: %w", d.name, errLost)
	}
	d.flushed = max(d.flushed, upTo)
	return nil
}
