package replica

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	"odx/stream"
)

// hiddenPrefix begins the random names that what is being received has. No administrator
// can give such a name, and none is listed.
const hiddenPrefix = ".recv-"

const (
	// keepBytes and keepEvery are how much is received, and how much time passes, before
	// the record says how far it is.
	keepBytes = 64 << 20
	keepEvery = 2 * time.Second
)

// Receive implements Streamer. What arrives goes to a hidden volume or file, of which a
// record knows; receivecommit.go says how it becomes visible. A stream of a snapshot that
// ends too early leaves both, so that another one can continue it.
func (s *Streams) Receive(ctx context.Context, r ReceiveRequest, from io.Reader, progress func(Progress)) (Received, error) {
	in, err := stream.NewReader(from)
	if err != nil {
		return Received{}, err
	}
	defer in.Close()
	h := in.Header()
	end, err := s.begin(r.Name)
	if err != nil {
		return Received{}, err
	}
	defer end()
	if err := s.recoverOnce(ctx); err != nil {
		return Received{}, err
	}
	if err := s.finishComplete(ctx, r); err != nil {
		return Received{}, err
	}
	t := &receiving{streams: s, request: r, header: h, report: reporter{fn: progress}}
	if err := t.prepare(ctx); err != nil {
		return Received{}, err
	}
	defer t.release()
	if err := t.fill(ctx, in); err != nil {
		return Received{}, errors.Join(fmt.Errorf("receive %s: %w", r.Name, err), t.abandon(ctx, err))
	}
	if err := t.commit(ctx); err != nil {
		return Received{}, fmt.Errorf("receive %s: %w", r.Name, err)
	}
	s.log.WithField("volume", r.Name).WithField("origin", h.VolumeName).Info("stream received")
	return Received{Header: h, Totals: in.Totals(), Name: r.Name, Snapshot: t.partial.Made}, nil
}

// begin notes that a stream is being received under a name, until end.
func (s *Streams) begin(name string) (end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.receiving[name] {
		return nil, fmt.Errorf("%s: %w", name, ErrReceiving)
	}
	s.receiving[name] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.receiving, name)
	}, nil
}

// receiving is a stream that is being received.
type receiving struct {
	streams *Streams
	request ReceiveRequest
	header  stream.Header
	report  reporter
	partial *storedPartial
	hidden  *backstore.Volume
	base    *backstore.Snapshot // nil for a whole stream

	sinceKept int64 // bytes of the content
	kept      time.Time
}

func (t *receiving) release() {
	if t.base != nil {
		t.base.Release()
	}
}

// prepare checks that the stream fits, and makes the hidden volume, or finds the one that
// the stream continues.
func (t *receiving) prepare(ctx context.Context) (err error) {
	s, h := t.streams, &t.header
	file, isFile := strings.CutPrefix(t.request.Name, admin.FilePrefix)
	if isFile {
		err = admin.CheckFileName(file)
	} else if err = conf.CheckVolumeName(t.request.Name); err != nil {
		err = fmt.Errorf("%w: %w", blockdev.ErrInvalid, err)
	}
	if err != nil {
		return err
	}
	p := &storedPartial{
		Version: receiveVersion, Name: t.request.Name, Hidden: hiddenPrefix + rand.Text(), File: isFile,
		From: storeOrigin(h, time.Now().UTC().Truncate(time.Second)), BaseName: h.BaseName, Size: h.Size, Offset: 0, Began: time.Now().UTC().Truncate(time.Second),
	}
	if h.Incremental() {
		p.Base = h.Base.String()
	}
	if p.Made, err = t.snapshotName(isFile); err != nil {
		return err
	}
	if err := t.findBase(ctx); err != nil {
		return err
	}
	ok := false
	defer func() {
		if !ok {
			t.release()
			t.base = nil
		}
	}()
	if p.Replaces, err = t.checkTarget(ctx); err != nil {
		return err
	}
	if err := t.resume(ctx, p); err != nil {
		return err
	}
	if t.hidden == nil {
		if err := t.makeHidden(ctx, p); err != nil {
			return err
		}
	}
	t.kept, ok = time.Now(), true
	return s.store.WriteOut(ctx)
}

// snapshotName returns the name of the snapshot that the stream makes; "" if it makes none.
func (t *receiving) snapshotName(isFile bool) (string, error) {
	s, h := t.streams, &t.header
	if h.Snapshot == (stream.ID{}) || isFile {
		if t.request.Snapshot != "" {
			return "", fmt.Errorf("%w: the stream is not of a snapshot, or goes to a file: no snapshot %s can be made", blockdev.ErrInvalid, t.request.Snapshot)
		}
		return "", nil
	}
	have, err := s.snapshotByIdentity(h.Snapshot)
	if err != nil || have != nil {
		return "", err // it is here: nothing to make
	}
	name := cmp.Or(t.request.Snapshot, h.SnapshotName)
	if err := conf.CheckVolumeName(name); err != nil {
		return "", fmt.Errorf("%w: snapshot: %w", blockdev.ErrInvalid, err)
	}
	if name == t.request.Name {
		return "", fmt.Errorf("%w: %s would be both the volume and its snapshot; give one of them another name", blockdev.ErrInvalid, name)
	}
	if _, err := s.store.Volume(name); err == nil {
		return "", fmt.Errorf("volume %s, as the snapshot would be called: %w; give it another name", name, backstore.ErrExists)
	}
	return name, nil
}

// findBase pins the base of an incremental stream.
func (t *receiving) findBase(ctx context.Context) error {
	s, h := t.streams, &t.header
	if !h.Incremental() {
		return nil
	}
	v, err := s.snapshotByIdentity(h.Base)
	if err != nil {
		return err
	}
	if v == nil {
		return fmt.Errorf("%w: the stream has what differs from snapshot %s (%v); receive that first", ErrNoBase, h.BaseName, h.Base)
	}
	if v.Size() != h.BaseSize {
		return fmt.Errorf("%w: snapshot %s has %d bytes here, and %d where the stream is from", ErrNoBase, v.Name(), v.Size(), h.BaseSize)
	}
	t.base, err = s.admin.Pin(ctx, v)
	return err
}

// checkTarget checks that what the stream makes may have its name, and reports whether it
// replaces the content of an existing volume.
func (t *receiving) checkTarget(ctx context.Context) (replaces bool, err error) {
	s, r := t.streams, &t.request
	v, err := s.admin.Object(r.Name)
	if errors.Is(err, backstore.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	switch {
	case !t.header.Incremental():
		return false, fmt.Errorf("%v: %w; a whole stream needs a new name", v, backstore.ErrExists)
	case v.IsFile():
		return false, fmt.Errorf("%w: an incremental stream changes a volume, not a file", blockdev.ErrInvalid)
	case v.ReadOnly():
		return false, fmt.Errorf("volume %s is a snapshot: %w", r.Name, blockdev.ErrReadOnly)
	}
	if err := s.admin.CheckReplaceable(r.Name, t.header.Size, r.Force); err != nil {
		return false, err
	}
	return true, t.checkUnchanged(ctx, v)
}

// checkUnchanged returns ErrDiverged, or ErrReceived, for a volume that is not as the base,
// unless what was written to it is to be discarded.
func (t *receiving) checkUnchanged(ctx context.Context, v *backstore.Volume) error {
	s, h := t.streams, &t.header
	same, err := s.equal(ctx, v, t.base)
	if err != nil || same || t.request.Force {
		return err
	}
	if have, err := s.snapshotByIdentity(h.Snapshot); err != nil {
		return err
	} else if have != nil {
		n, err := s.admin.Pin(ctx, have)
		if err != nil {
			return err
		}
		defer n.Release()
		if same, err := s.equal(ctx, v, n); err != nil {
			return err
		} else if same {
			return fmt.Errorf("volume %s has snapshot %s, which the stream is of: %w", v.Name(), have.Name(), ErrReceived)
		}
	}
	return fmt.Errorf("%w: volume %s was written to since %s, or has a later snapshot", ErrDiverged, v.Name(), h.BaseName)
}

// equal reports whether a volume has the content of a snapshot: of the same extents, so that
// it reads metadata only, in proportion to what differs.
func (s *Streams) equal(ctx context.Context, v *backstore.Volume, n *backstore.Snapshot) (bool, error) {
	if v.Size() != n.Length() {
		return false, nil
	}
	now, err := s.admin.Pin(ctx, v)
	if err != nil {
		return false, err
	}
	defer now.Release()
	return equalSnapshots(ctx, now, n)
}

// errDiffers ends a comparison.
var errDiffers = errors.New("differs")

func equalSnapshots(ctx context.Context, a, b *backstore.Snapshot) (bool, error) {
	if a.Length() != b.Length() {
		return false, nil
	}
	err := a.Diff(ctx, b, 0, a.Length(), func(backstore.Difference) error { return errDiffers })
	if errors.Is(err, errDiffers) {
		return false, nil
	}
	return err == nil, err
}

// resume finds what is there of the stream already. What is there of another one under the
// name is given up, unless the stream continues it.
func (t *receiving) resume(ctx context.Context, p *storedPartial) error {
	s, h := t.streams, &t.header
	old, err := s.partial(p.Name)
	if err != nil {
		return err
	}
	same := old != nil && old.Ready && h.Snapshot != stream.ID{} && old.From.Snapshot == p.From.Snapshot && old.Base == p.Base && old.Size == p.Size && old.File == p.File && old.Replaces == p.Replaces
	if h.Start > 0 {
		switch {
		case old == nil:
			return fmt.Errorf("%w: it begins at byte %d, and nothing was received of it under the name %s", ErrResume, h.Start, p.Name)
		case !same:
			return fmt.Errorf("%w: what was received under the name %s is of another snapshot, or has another base", ErrResume, p.Name)
		case h.Start > old.Offset:
			return fmt.Errorf("%w: it begins at byte %d, and what was received ends at %d", ErrResume, h.Start, old.Offset)
		}
	} else if !same || !t.request.Resume {
		if old == nil {
			return nil
		}
		return s.dropPartial(ctx, old)
	}
	t.partial = old
	if t.request.Snapshot != "" {
		old.Made = p.Made
	}
	if t.hidden, err = s.hidden(old); errors.Is(err, backstore.ErrNotFound) {
		if h.Start > 0 {
			return fmt.Errorf("%w: %w", ErrResume, err)
		}
		return s.dropPartial(ctx, old)
	}
	return err
}

// makeHidden makes the hidden volume or file, with the content of the base. Its record comes
// first, so that there is none without one.
func (t *receiving) makeHidden(ctx context.Context, p *storedPartial) (err error) {
	s := t.streams
	t.partial = p
	if err := s.keep(ctx, p); err != nil {
		return err
	}
	if p.File {
		if t.hidden, err = s.store.CreateFile(ctx, p.Hidden); err == nil {
			err = t.hidden.Truncate(ctx, p.Size)
		}
	} else if t.hidden, err = s.store.CreateVolume(ctx, p.Hidden, p.Size); err == nil && t.base != nil {
		length := min(p.Size, t.base.Length())
		for done := int64(0); done < length && err == nil; {
			var n int64
			n, err = t.hidden.Map(ctx, done, t.base, done, length-done)
			done += n
		}
	}
	if err != nil {
		return errors.Join(err, s.dropPartial(context.WithoutCancel(ctx), p))
	}
	p.Ready = true
	return s.keep(ctx, p)
}

// fill writes the records of the stream, but those that are there.
func (t *receiving) fill(ctx context.Context, in *stream.Reader) error {
	p := Progress{OffsetBytes: t.partial.Offset, SizeBytes: t.header.Size}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := in.Next()
		if err == io.EOF {
			t.partial.Offset = t.header.Size
			return nil
		}
		if err != nil {
			return err
		}
		if r.End() > t.partial.Offset {
			if err := t.write(ctx, r); err != nil {
				return err
			}
			p.DataBytes += int64(len(r.Data))
		}
		p.OffsetBytes = max(p.OffsetBytes, r.End())
		t.report.report(p)
	}
}

// write writes a record, and notes from time to time how far the content is.
func (t *receiving) write(ctx context.Context, r stream.Record) error {
	var err error
	if r.Data == nil {
		err = t.hidden.Zero(ctx, r.Offset, r.Length)
	} else {
		err = t.hidden.WriteAt(ctx, r.Data, r.Offset)
	}
	if err != nil {
		return err
	}
	t.sinceKept += r.End() - t.partial.Offset
	t.partial.Offset = r.End()
	if t.sinceKept < keepBytes && time.Since(t.kept) < keepEvery {
		return nil
	}
	return t.keep(ctx)
}

// keep has the record say how far the content is. The journal has it after what it speaks
// of, so that it is never ahead.
func (t *receiving) keep(ctx context.Context) error {
	t.sinceKept, t.kept = 0, time.Now()
	if err := t.streams.keep(ctx, t.partial); err != nil {
		return err
	}
	return t.streams.store.WriteOut(ctx)
}

// abandon keeps what is there for a stream that continues it, if one can: what a damaged one
// has given is not to be built upon.
func (t *receiving) abandon(ctx context.Context, why error) error {
	ctx = context.WithoutCancel(ctx)
	if t.header.Snapshot == (stream.ID{}) || errors.Is(why, stream.ErrDamaged) || errors.Is(why, stream.ErrVersion) {
		return t.streams.dropPartial(ctx, t.partial)
	}
	return errors.Join(t.keep(ctx), t.streams.store.Flush(ctx))
}
