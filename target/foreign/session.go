package foreign

import (
	"context"
	"errors"
	"fmt"
	"time"

	"odx/blockdev"
	"odx/initiator"
)

const (
	// firstPause and longestPause bound the pause before another session is tried; it doubles
	// each time. shortSession is how long a session has to last for the next one to be tried
	// at once.
	firstPause   = 50 * time.Millisecond
	longestPause = 2 * time.Second
	shortSession = time.Second
)

// session is a session that has found the LUN as it was.
type session struct {
	*initiator.Disk
	cache initiator.WriteCache
}

// errChanged ends a session whose LUN may have changed.
var errChanged = errors.New("the LUN reports a change, and is looked at again")

// connect opens a session, and the next one once that has ended, until Close.
func (d *Disk) connect() {
	for pause := firstPause; ; {
		began := time.Now()
		s, err := d.open(d.base)
		if err == nil {
			d.publish(s)
			select {
			case <-s.Ended():
			case <-d.base.Done():
			}
			d.withdraw(s, nil)
			if d.base.Err() != nil {
				_ = s.Close() // nothing is written any more
				return
			}
			if time.Since(began) > shortSession {
				pause = firstPause
				continue
			}
		} else if d.base.Err() == nil {
			d.failed(err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-d.base.Done():
			timer.Stop()
			return
		}
		pause = min(2*pause, longestPause)
	}
}

// open logs in, and compares the LUN with what it was.
func (d *Disk) open(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.Command)
	defer cancel()
	d.mu.Lock()
	o := initiator.Options{InitiatorName: d.o.InitiatorName, ISID: d.o.ISID, URL: d.o.URL}
	d.mu.Unlock()
	disk, err := initiator.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &session{Disk: disk}
	g := Geometry{Size: disk.Size(), BlockLength: disk.BlockLength}
	if err = disk.Ready(ctx); err == nil { // it takes the unit attentions of a new session
		g.ID, err = disk.Identity(ctx)
	}
	if err == nil {
		s.cache, err = disk.WriteCache(ctx)
	}
	if err == nil {
		err = d.recognize(g)
	}
	if err != nil {
		disk.Drop()
		return nil, fmt.Errorf("%v: %w", o.URL, err)
	}
	disk.OnAttention(func(*initiator.SenseError) error { return errChanged })
	return s, nil
}

// recognize compares the LUN with what it was, and takes over that it has grown.
func (d *Disk) recognize(g Geometry) error {
	d.mu.Lock()
	was := d.geometry
	switch {
	case was == Geometry{}:
	case was.ID != g.ID:
		d.mu.Unlock()
		return fmt.Errorf("another LUN is there: its identity is %s, and was %s; take the LUN out of the configuration and add it again if that is meant", g.ID, was.ID)
	case was.BlockLength != g.BlockLength:
		d.mu.Unlock()
		return fmt.Errorf("its blocks have %d bytes, and had %d", g.BlockLength, was.BlockLength)
	case g.Size < was.Size:
		d.mu.Unlock()
		return fmt.Errorf("it has %d bytes, and had %d", g.Size, was.Size)
	}
	d.geometry = g
	d.mu.Unlock()
	if was != g && was != (Geometry{}) && d.o.Grown != nil {
		d.o.Grown(g)
	}
	return nil
}

// publish lets commands use a session.
func (d *Disk) publish(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.problem != nil {
		d.o.Log.Info("session with the LUN of another target is there again")
	}
	d.lose()
	d.current, d.problem = s, nil
	close(d.there)
}

// lose notes that writes that are not flushed may be lost. The caller holds mu.
func (d *Disk) lose() {
	if d.written > d.flushed {
		d.lost, d.flushed = true, d.written
	}
}

// withdraw ends a session that is of no use any more.
func (d *Disk) withdraw(s *session, why error) {
	d.mu.Lock()
	if d.current == s {
		d.current, d.there = nil, make(chan struct{})
		if d.base.Err() == nil {
			if why == nil {
				why = errors.New("the session has ended")
			}
			d.problem = why
			d.o.Log.WithError(why).Warn("session with the LUN of another target lost; commands wait for the next one")
		}
	}
	d.mu.Unlock()
	if d.base.Err() == nil {
		s.Drop()
	}
}

// failed notes why there is no session.
func (d *Disk) failed(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.problem == nil || d.problem.Error() != err.Error() {
		d.o.Log.WithError(err).Warn("no session with the LUN of another target; tried again")
	}
	d.problem = err
}

// session returns the session, once there is one.
func (d *Disk) session(ctx context.Context) (*session, error) {
	for {
		d.mu.Lock()
		s, there, problem := d.current, d.there, d.problem
		d.mu.Unlock()
		if s != nil {
			return s, nil
		}
		select {
		case <-there:
		case <-d.base.Done():
			return nil, blockdev.ErrClosed
		case <-ctx.Done():
			return nil, errors.Join(problem, ctx.Err())
		}
	}
}

// maxSessions bounds the sessions that one command is sent on.
const maxSessions = 4

// run sends commands, on another session if the first one ends. off is the byte that an error
// of the medium is at if it does not say where.
func (d *Disk) run(ctx context.Context, off int64, fn func(ctx context.Context, s *session) error) error {
	limited, cancel := context.WithTimeout(ctx, d.o.Wait)
	defer cancel()
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-d.base.Done():
		return d.closed()
	case <-limited.Done():
		return d.ended(ctx, errors.New("too many commands wait"))
	}
	for tries := 1; ; tries++ {
		s, err := d.session(limited)
		if err == nil {
			err = d.once(limited, s, fn)
			if err == nil {
				return nil
			}
			if answered(err) {
				return d.translate(err, off, int64(s.BlockLength))
			}
			d.withdraw(s, err)
		}
		switch {
		case d.base.Err() != nil:
			return d.closed()
		case limited.Err() != nil || tries == maxSessions:
			return d.ended(ctx, err)
		}
	}
}

// once sends commands on a session.
func (d *Disk) once(ctx context.Context, s *session, fn func(ctx context.Context, s *session) error) error {
	ctx, cancel := context.WithTimeout(ctx, d.o.Command)
	defer cancel()
	return fn(ctx, s)
}

func (d *Disk) closed() error { return fmt.Errorf("%s: %w", d.name, blockdev.ErrClosed) }

// ended returns the error of a command that had no answer in time.
func (d *Disk) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%s: %w: %w", d.name, blockdev.ErrUnavailable, err)
}

// answered reports whether an error is the answer of the LUN to a command. Anything else, and
// an answer that says that there is no such LUN, ends the session. So does a deferred error, of an
// earlier command that had succeeded: after it, what is not flushed counts as lost, as with a
// session that is.
func answered(err error) bool {
	sense, ok := errors.AsType[*initiator.SenseError](err)
	if ok {
		return sense.ASC != ascLUNNotSupported && !sense.Deferred
	}
	_, ok = errors.AsType[*initiator.StatusError](err)
	return ok
}

// Additional sense codes that decide what an answer means.
const (
	ascLUNNotSupported       = 0x2500
	ascSpaceAllocationFailed = 0x2707
)

// Sense keys, beyond those of package initiator.
const (
	keyNotReady       = 0x2
	keyMediumError    = 0x3
	keyDataProtect    = 0x7
	keyAbortedCommand = 0xb
)

// translate returns the answer of the LUN as an error of a volume.
func (d *Disk) translate(err error, off, blockLength int64) error {
	kind := blockdev.ErrUnavailable // a status: a reservation of another initiator, for one
	if sense, ok := errors.AsType[*initiator.SenseError](err); ok {
		switch {
		case sense.Key == keyMediumError:
			if at := int64(sense.Information); sense.InformationValid && at >= 0 && at < d.Size()/blockLength {
				off = at * blockLength
			}
			return &blockdev.CorruptError{Name: d.name, Offset: off, Err: err}
		case sense.Key == keyDataProtect && sense.ASC == ascSpaceAllocationFailed:
			kind = blockdev.ErrNoSpace
		case sense.Key == keyDataProtect:
			kind = blockdev.ErrReadOnly
		case sense.Key == keyAbortedCommand:
			kind = blockdev.ErrBusy
		case sense.Key != keyNotReady:
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return fmt.Errorf("%s: %w: %w", d.name, kind, err)
}
