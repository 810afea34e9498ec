package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"odx/admin"
	"odx/backstore"
	"odx/stream"
)

// How received content becomes visible. When all of it is there and durable, the record of
// the stream says so: Complete. From then on the rest is done, by this process or by the
// next one that opens the store (Recover), and every step of it finds out whether it was
// done before:
//
// A new volume: the snapshot is made of the hidden volume, which then gets its name, by one
// journal record each. Then the record goes, in one step with those of the origins.
//
// An existing volume: while it is as the base, it gets the content of the hidden volume, in
// one step (Revert). If it is not as the base, that was done, and it may have been written
// to since; what was written before is not there, because the commit begins with a volume
// that is as the base. Then the snapshot is made, the hidden volume deleted, and the record
// goes.

// commit makes what was received visible.
func (t *receiving) commit(ctx context.Context) error {
	s, p := t.streams, t.partial
	if p.Replaces {
		v, err := s.store.Volume(p.Name)
		if err != nil {
			return err
		}
		// Writes to it since then would be lost.
		if err := t.checkUnchanged(ctx, v); err != nil {
			return errors.Join(err, t.abandon(ctx, err))
		}
		same, err := s.equal(ctx, v, t.base)
		if err != nil {
			return err
		}
		if !same { // with Force
			if err := t.discard(ctx); err != nil {
				return err
			}
		}
	}
	ctx = context.WithoutCancel(ctx) // what is begun here is ended
	p.Complete = true
	if err := s.keep(ctx, p); err != nil {
		return err
	}
	if err := s.store.Flush(ctx); err != nil {
		return err
	}
	return s.finish(ctx, p, t.request.Force)
}

// discard gives the volume the content of the base.
func (t *receiving) discard(ctx context.Context) error {
	s := t.streams
	base, err := s.snapshotByIdentity(t.header.Base)
	if err != nil {
		return err
	}
	if base == nil {
		return fmt.Errorf("%w: snapshot %s was deleted in the meantime", ErrNoBase, t.header.BaseName)
	}
	return s.admin.ReplaceContent(ctx, t.partial.Name, base, t.request.Force)
}

// finishComplete finishes what is complete under the name of a request, and could not be made
// visible before.
func (s *Streams) finishComplete(ctx context.Context, r ReceiveRequest) error {
	p, err := s.partial(r.Name)
	if err != nil || p == nil || !p.Complete {
		return err
	}
	if r.Snapshot != "" {
		p.Made = r.Snapshot
	}
	if err := s.finish(context.WithoutCancel(ctx), p, r.Force); err != nil {
		return fmt.Errorf("%s was received completely before, and cannot be made visible: %w", r.Name, err)
	}
	return nil
}

// finish does what is left of a complete stream. It can be called again.
func (s *Streams) finish(ctx context.Context, p *storedPartial, force bool) error {
	hidden, err := s.hidden(p)
	if errors.Is(err, backstore.ErrNotFound) {
		hidden, err = nil, nil // it has its name, or was given to a volume, and deleted
	}
	if err != nil {
		return err
	}
	if p.Replaces {
		return s.finishReplacing(ctx, p, hidden, force)
	}
	made, err := s.makeSnapshot(ctx, p, hidden)
	if err != nil {
		return err
	}
	if hidden != nil {
		if err := s.admin.NameReceived(ctx, hidden, strings.TrimPrefix(p.Name, filePrefix(p))); err != nil {
			return err
		}
	}
	named, err := s.admin.Object(p.Name)
	if err != nil {
		return err
	}
	return s.end(ctx, p, named, made)
}

func filePrefix(p *storedPartial) string {
	if p.File {
		return admin.FilePrefix
	}
	return ""
}

// finishReplacing is finish where the content replaces that of an existing volume.
func (s *Streams) finishReplacing(ctx context.Context, p *storedPartial, hidden *backstore.Volume, force bool) error {
	v, err := s.store.Volume(p.Name)
	if err != nil {
		return err
	}
	if hidden != nil {
		if err := s.replaceOnce(ctx, p, v, hidden, force); err != nil {
			return err
		}
	}
	made, err := s.makeSnapshotOf(ctx, p, v, hidden)
	if err != nil {
		return err
	}
	if err := s.deleteHidden(ctx, p); err != nil {
		return err
	}
	return s.end(ctx, p, v, made)
}

// replaceOnce gives v the content of the hidden volume if it is as the base.
func (s *Streams) replaceOnce(ctx context.Context, p *storedPartial, v, hidden *backstore.Volume, force bool) error {
	id, err := parseID(p.Base)
	if err != nil {
		return err
	}
	base, err := s.snapshotByIdentity(id)
	if err != nil {
		return err
	}
	if base == nil {
		return fmt.Errorf("%w: snapshot %s was deleted in the meantime", ErrNoBase, p.BaseName)
	}
	n, err := s.admin.Pin(ctx, base)
	if err != nil {
		return err
	}
	defer n.Release()
	if same, err := s.equal(ctx, v, n); err != nil || !same {
		return err
	}
	return s.admin.ReplaceContent(ctx, p.Name, hidden, force)
}

// makeSnapshotOf makes the snapshot of a volume that has the content of the hidden one, so
// that it is known to be a snapshot of that. If the volume was written to in between, it is
// made of the hidden one.
func (s *Streams) makeSnapshotOf(ctx context.Context, p *storedPartial, v, hidden *backstore.Volume) (*backstore.Volume, error) {
	if p.Made == "" {
		return nil, nil
	}
	if _, err := s.store.Volume(p.Made); err == nil || hidden == nil {
		return s.makeSnapshot(ctx, p, hidden)
	}
	n, err := s.admin.Pin(ctx, hidden)
	if err != nil {
		return nil, err
	}
	defer n.Release()
	// Under a hidden name first: what is visible has to be right.
	early := hiddenPrefix + "of-" + strings.TrimPrefix(p.Hidden, hiddenPrefix)
	if err := s.store.DeleteVolume(ctx, early); err != nil && !errors.Is(err, backstore.ErrNotFound) {
		return nil, err
	}
	made, err := s.store.SnapshotVolume(ctx, v.Name(), early)
	if err != nil {
		return nil, err
	}
	same, err := s.equal(ctx, made, n)
	if err != nil {
		return nil, err
	}
	if !same {
		if err := s.store.DeleteVolume(ctx, early); err != nil {
			return nil, err
		}
		return s.makeSnapshot(ctx, p, hidden)
	}
	return made, s.store.RenameVolume(ctx, early, p.Made)
}

// makeSnapshot makes the snapshot of the hidden volume, if it is not there.
func (s *Streams) makeSnapshot(ctx context.Context, p *storedPartial, hidden *backstore.Volume) (*backstore.Volume, error) {
	if p.Made == "" {
		return nil, nil
	}
	made, err := s.store.Volume(p.Made)
	if err == nil {
		return made, s.checkMade(ctx, p, made, hidden)
	}
	if !errors.Is(err, backstore.ErrNotFound) || hidden == nil {
		return nil, err
	}
	return s.store.SnapshotVolume(ctx, hidden.Name(), p.Made)
}

// checkMade returns ErrExists if the volume with the name of the snapshot is something else:
// of a name that was given to another volume in the meantime.
func (s *Streams) checkMade(ctx context.Context, p *storedPartial, made, hidden *backstore.Volume) error {
	if hidden == nil || !made.ReadOnly() {
		if hidden == nil && made.ReadOnly() {
			return nil
		}
		return fmt.Errorf("%v, as the snapshot would be called: %w", made, backstore.ErrExists)
	}
	n, err := s.admin.Pin(ctx, hidden)
	if err != nil {
		return err
	}
	defer n.Release()
	same, err := s.equal(ctx, made, n)
	if err == nil && !same {
		err = fmt.Errorf("%v, as the snapshot would be called: %w", made, backstore.ErrExists)
	}
	return err
}

// end replaces the record of the stream by those of where the content is from, durably.
func (s *Streams) end(ctx context.Context, p *storedPartial, v, made *backstore.Volume) error {
	value, err := encodeRecord(p.From)
	if err != nil {
		return err
	}
	records := []backstore.Record{{Key: partialKey(p.Name)}, {Key: originKey(v), Value: value}}
	if made != nil {
		records = append(records, backstore.Record{Key: originKey(made), Value: value})
	}
	if err := s.store.PutRecords(ctx, records...); err != nil {
		return err
	}
	return s.store.Flush(ctx)
}

// dropPartial gives up what was received of a stream, durably. The volume goes before its
// record.
func (s *Streams) dropPartial(ctx context.Context, p *storedPartial) error {
	if err := s.deleteHidden(ctx, p); err != nil {
		return err
	}
	if err := s.store.PutRecords(ctx, backstore.Record{Key: partialKey(p.Name)}); err != nil {
		return err
	}
	return s.store.Flush(ctx)
}

// Partials implements Streamer.
func (s *Streams) Partials(ctx context.Context) ([]Partial, error) {
	all, err := s.partials()
	if err != nil {
		return nil, err
	}
	list := []Partial{}
	for _, p := range all {
		t, err := p.token()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		s.mu.Lock()
		now := s.receiving[p.Name]
		s.mu.Unlock()
		out := Partial{Name: p.Name, Snapshot: p.From.SnapshotName, Base: p.BaseName, OffsetBytes: p.Offset, SizeBytes: p.Size, Began: p.Began, Receiving: now}
		if p.Ready && t.snapshot != (stream.ID{}) {
			out.Token = t.String()
		}
		list = append(list, out)
	}
	return list, ctx.Err()
}

// DropPartial implements Streamer.
func (s *Streams) DropPartial(ctx context.Context, name string) error {
	end, err := s.begin(name)
	if err != nil {
		return err
	}
	defer end()
	p, err := s.partial(name)
	if err != nil {
		return err
	}
	if p == nil {
		return fmt.Errorf("nothing of a stream was received as %s: %w", name, backstore.ErrNotFound)
	}
	return s.dropPartial(ctx, p)
}

// Recover makes visible what was complete when the last process ended, gives up what no
// stream can continue, and forgets the origins of volumes that were deleted. One that cannot
// be finished, because its name was given away for example, is logged and stays.
func (s *Streams) Recover(ctx context.Context) error { return s.recoverOnce(ctx) }

func (s *Streams) recoverOnce(ctx context.Context) error {
	s.recovering.Lock()
	defer s.recovering.Unlock()
	if s.recovered || s.admin.ReadOnly() {
		return nil
	}
	all, err := s.partials()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, p := range all {
		known[p.Hidden] = true
		if !p.Complete {
			if p.Ready && p.From.Snapshot != (stream.ID{}).String() {
				continue
			}
			if err := s.dropPartial(ctx, p); err != nil {
				return err
			}
			continue
		}
		if err := s.finish(ctx, p, true); err != nil {
			s.log.WithError(err).WithField("volume", p.Name).Warn("a stream was received completely, and cannot be made visible")
			continue
		}
		s.log.WithField("volume", p.Name).Info("stream received before the last stop made visible")
	}
	if err := s.sweep(ctx, known); err != nil {
		return err
	}
	s.recovered = true
	return nil
}

// sweep deletes hidden volumes and files without a record, and records of origins without a
// volume.
func (s *Streams) sweep(ctx context.Context, known map[string]bool) error {
	origins := map[string]bool{}
	err := s.store.ScanRecords([]byte(originPrefix), func(key, _ []byte) error {
		origins[string(key)] = true
		return nil
	})
	if err != nil {
		return err
	}
	for _, v := range append(s.store.Volumes(), s.store.Files()...) {
		delete(origins, string(originKey(v)))
		if !strings.HasPrefix(v.Name(), hiddenPrefix) || known[v.Name()] {
			continue
		}
		if err := s.deleteHidden(ctx, &storedPartial{Hidden: v.Name(), File: v.IsFile()}); err != nil {
			return err
		}
	}
	var gone []backstore.Record
	for key := range origins {
		gone = append(gone, backstore.Record{Key: []byte(key)})
	}
	if gone == nil {
		return nil
	}
	return s.store.PutRecords(ctx, gone...)
}
