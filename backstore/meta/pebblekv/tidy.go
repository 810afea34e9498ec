package pebblekv

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"odx/backstore/meta"
)

// Tidy implements meta.KV: it compacts tables until Pebble sees no need to.
func (d *db) Tidy(ctx context.Context) error {
	d.mu.Lock()
	idle := d.closed || !d.settled || d.o.ReadOnly || d.current == nil
	d.mu.Unlock()
	if idle || ctx.Err() != nil {
		return ctx.Err()
	}
	d.tidying.Lock()
	defer d.tidying.Unlock()
	d.storing.Lock()
	_, err := d.writable()
	d.storing.Unlock()
	if err != nil {
		return err
	}
	return d.withInstance(func(in *instance) error {
		for !in.fs.broken() && ctx.Err() == nil {
			if ran, err := in.turns.next(); err != nil || !ran {
				return d.readError(err)
			}
		}
		if err := in.fs.change(); err != nil {
			return err
		}
		return ctx.Err()
	})
}

// turns lets Pebble compact one thing at a time, when Tidy says so.
type turns struct {
	db pebble.DBForCompaction

	mu     sync.Mutex // guards what follows
	gone   bool
	done   chan struct{}
	failed error
}

// Register implements pebble.CompactionScheduler.
func (t *turns) Register(_ int, db pebble.DBForCompaction) { t.db = db }

// Unregister implements pebble.CompactionScheduler.
func (t *turns) Unregister() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gone = true
}

// TrySchedule implements pebble.CompactionScheduler: what Pebble wants to compact waits.
func (t *turns) TrySchedule() (bool, pebble.CompactionGrantHandle) { return false, nil }

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler.
func (t *turns) UpdateGetAllowedWithoutPermission() {}

// listener returns what Pebble reports the end of a compaction to.
func (t *turns) listener() *pebble.EventListener {
	l := pebble.EventListener{
		CompactionEnd: func(info pebble.CompactionInfo) {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.failed = info.Err
		},
		BackgroundError: func(error) {},                     // of a compaction: it was reported as its end
		DataCorruption:  func(pebble.DataCorruptionInfo) {}, // who reads gets it as an error
	}
	l.EnsureDefaults(nil) // without a log
	return &l
}

// next runs the next compaction to its end, and reports whether there was one.
func (t *turns) next() (ran bool, err error) {
	done := make(chan struct{})
	t.mu.Lock()
	t.done, t.failed = done, nil
	gone := t.gone
	t.mu.Unlock()
	if gone {
		return false, nil
	}
	if waiting, _ := t.db.GetWaitingCompaction(); !waiting || !t.db.Schedule(turn{t, done}) {
		return false, nil
	}
	<-done
	t.mu.Lock()
	defer t.mu.Unlock()
	return true, t.failed
}

// turn is the permission for one compaction.
type turn struct {
	t    *turns
	done chan struct{}
}

func (turn) Started()                                          {}
func (turn) MeasureCPU(pebble.CompactionGoroutineKind)         {}
func (turn) CumulativeStats(pebble.CompactionGrantHandleStats) {}
func (t turn) Done()                                           { close(t.done) }

// Scrub implements meta.KV: every block of every table is read and its checksum compared.
func (d *db) Scrub(ctx context.Context, wait func(ctx context.Context, bytes int) error) error {
	return d.withInstance(func(in *instance) error {
		if in == nil {
			return nil
		}
		tables, err := in.tables()
		if err != nil {
			return d.readError(err)
		}
		var damage []error
		for _, number := range slices.Sorted(maps.Keys(tables)) {
			if err := wait(ctx, int(tables[number])); err != nil {
				return err
			}
			err := d.proveTable(tableName(number))
			if errors.Is(err, fs.ErrNotExist) {
				// It may have been compacted meanwhile.
				if now, lerr := in.tables(); lerr == nil && now[number] == 0 {
					continue
				}
			}
			if errors.Is(err, meta.ErrDamaged) {
				damage = append(damage, err)
			} else if err != nil {
				return err
			}
		}
		return errors.Join(damage...)
	})
}

// tables returns the tables in the list, with their lengths in bytes.
func (in *instance) tables() (map[uint64]uint64, error) {
	levels, err := in.p.SSTables()
	found := make(map[uint64]uint64)
	for _, table := range slices.Concat(levels...) {
		found[uint64(table.BackingSSTNum)] = max(table.Size, 1)
	}
	return found, err
}
