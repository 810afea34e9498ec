package tokens

import (
	"context"
	"fmt"

	"odx/offload"
)

// A token without a snapshot of its own refers to ranges of a volume. Each use takes a
// snapshot of them, so that it sees a single point in time; the snapshot exists as long
// as its handle (offload.Engine.Transient).

// openData opens the data that the token represents now.
func (m *Manager) openData(ctx context.Context, e *entry) (offload.Snapshot, error) {
	rec := &e.rec // the fields read here are constant since the entry was made
	switch rec.Type.holding() {
	case inVolume:
		object, err := m.store.ObjectByID([16]byte(rec.Volume))
		if err != nil {
			return nil, err
		}
		return m.engine.Transient(ctx, object.Snapshot, rec.Ranges)
	case inUnchangedVolume:
		return m.engine.Transient(ctx, e.watch.Snapshot, rec.Ranges)
	case whereFound:
		return m.openHashed(ctx, e)
	}
	return m.store.Snapshot(rec.Snapshot)
}

// rewatch sets up the watches of the change vulnerable tokens that were loaded. No
// other caller has the store yet, so the data is unchanged: the last process stored the
// end of a token before each change of its data.
func (m *Manager) rewatch(ctx context.Context) error {
	for _, e := range m.live {
		if e.rec.Type.holding() != inUnchangedVolume {
			continue
		}
		object, err := m.store.ObjectByID([16]byte(e.rec.Volume))
		if err == nil {
			e.watch, err = object.Watch(ctx, e.rec.Ranges, nil, m.endOnChange(e))
		}
		if err == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		m.log.WithError(err).WithField("token", e.id).Warn("change vulnerable token cancelled: its data cannot be watched")
		if err := m.end(ctx, e, Cancelled, DataGone); err != nil {
			return fmt.Errorf("cancel token %v: %w", e.id, err)
		}
	}
	return nil
}
