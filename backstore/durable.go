package backstore

import (
	"context"
	"sync/atomic"
)

// syncer keeps the order in which data and records become durable: data first.
type syncer struct {
	parts *parts
	opts  *Options
	// segmentDirty: the journal has records whose data lies only in segments.
	segmentDirty atomic.Bool
	unflushed    atomic.Int64 // bytes written since the last Flush began
	recovered    atomic.Bool  // the journal is open
}

// writeBack makes what is written durable, so that there is not too much of it
// that is not.
func (d *syncer) writeBack() error {
	if d.recovered.Load() {
		if err := d.parts.journal.Commit(context.Background(), d.parts.journal.Last()); err != nil {
			return err
		}
	}
	if d.parts.segments.Unsynced() < d.opts.tuning.writeBackBytes {
		return nil
	}
	return d.parts.segments.Sync() // of cleaning, which has no records
}

// syncSegments is called by the journal before it syncs records.
func (d *syncer) syncSegments() error {
	if !d.segmentDirty.Swap(false) {
		return nil
	}
	if err := d.parts.segments.Sync(); err != nil {
		d.segmentDirty.Store(true)
		return err
	}
	return nil
}
