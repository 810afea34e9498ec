package tokens

import (
	"context"
	"fmt"

	"odx/offload"
)

// A token without a snapshot of its own says where its data is in a volume.
// Each use of it takes a snapshot, so that what one use sees is of one moment;
// the snapshot lives as long as its handle (offload.Engine.Transient).

// openData opens what the token stands for now.
func (m *Manager) openData(ctx context.Context, e *entry) (offload.Snapshot, error) {
	rec := &e.rec // the fields read here are constant since the entry was made
	switch rec.Type.holding() {
	case inVolume:
		space, err := m.store.Space([16]byte(rec.Volume))
		if err != nil {
			return nil, err
		}
		return m.engine.Transient(ctx, space.Snapshot, rec.Ranges)
	case inUnchangedVolume:
		return m.engine.Transient(ctx, e.watch.Snapshot, rec.Ranges)
	case whereFound:
		return m.openHashed(ctx, e)
	}
	return m.store.Snapshot(rec.Snapshot)
}

// rewatch watches again over the data of the change vulnerable tokens that were
// loaded. Nobody else has the store yet, so nothing has changed since: every
// change that the last process made is behind the end of its token.
func (m *Manager) rewatch(ctx context.Context) error {
	for _, e := range m.live {
		if e.rec.Type.holding() != inUnchangedVolume {
			continue
		}
		space, err := m.store.Space([16]byte(e.rec.Volume))
		if err == nil {
			e.watch, err = space.Watch(ctx, e.rec.Ranges, nil, m.endOnChange(e))
		}
		if err == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		m.log.WithError(err).WithField("token", e.id).Warn("a change vulnerable token is cancelled: its data can no longer be watched")
		if err := m.kill(ctx, e, Cancelled, DataGone); err != nil {
			return fmt.Errorf("cancel token %v: %w", e.id, err)
		}
	}
	return nil
}
