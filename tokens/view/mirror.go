package view

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/backstore/fence"
)

// Leg is a device of a mirror, with an identity that it has for as long as its data
// is the same.
type Leg struct {
	Device
	ID string
	// Fresh: it was made just now, and holds nothing of the mirror's data, whatever
	// had its identity before.
	Fresh bool
}

// MirrorConfig describes a mirror.
type MirrorConfig struct {
	// Name is that of the view; what the mirror remembers is kept under it.
	Name string
	// Legs are two to 64. The mirror has the size of the smallest.
	Legs    []Leg
	Copier  Copier
	Records Records
	Log     *logrus.Entry
}

// Mirror is RAID 1: every leg has the data. A write goes to all legs that are in
// sync. A leg that fails one, or a flush, is dropped: that is stored before the
// write is acknowledged, nothing is read from it any more, and a resync, at the
// next start or by Resync, copies everything to it from one in sync. Reads come
// from the first leg in sync, and from the next one when that gives an error, which
// drops no leg. A write that all legs fail has failed, and drops none.
//
// After an end without Close the legs can differ in what was being written, so the
// first one in sync is copied to the others then.
type Mirror struct {
	MirrorConfig
	// inSync has a bit for each leg that holds the data; following one for each
	// that gets every write, which includes the one that is being synced. They
	// change with state held.
	inSync, following atomic.Uint64
	state             sync.Mutex
	regions           regions // exclusive: a write, or a step of a resync
	// writes closes the range of an aborted write that a leg has not ended, also to
	// other views of the mirror: legs do not see that it was aborted.
	writes fence.Writes

	stop    context.CancelFunc
	resyncs sync.WaitGroup // the resync of the start
	syncing sync.Mutex     // held by a resync
}

// mirrorVersion is the version of mirrorRecord. Records without one are of the
// first form, which lacked nothing else.
const mirrorVersion = 1

// mirrorRecord is what is stored of a mirror.
type mirrorRecord struct {
	Version int      `json:"version"`
	InSync  []string `json:"in_sync"` // identities of legs
	Clean   bool     `json:"clean"`   // the mirror was closed
}

func (r mirrorRecord) encode() ([]byte, error) {
	r.Version = mirrorVersion
	return json.Marshal(r)
}

func decodeMirror(text []byte) (r mirrorRecord, err error) {
	if err := json.Unmarshal(text, &r); err != nil {
		return r, err
	}
	if r.Version < 0 || r.Version > mirrorVersion {
		return r, fmt.Errorf("version %d of its record, this program knows up to %d; use a version of odx that reads it", r.Version, mirrorVersion)
	}
	r.Version = mirrorVersion
	return r, nil
}

// OpenMirror returns a mirror, and begins to sync the legs that need it. Of legs
// that no mirror of this name has known, the first one that is not fresh is taken
// to have the data.
func OpenMirror(ctx context.Context, c MirrorConfig) (*Mirror, error) {
	if len(c.Legs) < 2 || len(c.Legs) > 64 {
		return nil, fmt.Errorf("%w: mirror of %d legs", backstore.ErrInvalid, len(c.Legs))
	}
	v := &Mirror{MirrorConfig: c}
	var r mirrorRecord
	text, err := c.Records.GetRecord(recordKey(c.Name, "mirror"))
	if err == nil {
		r, err = decodeMirror(text)
	}
	err = ignoreNotFound(err)
	if err != nil {
		return nil, fmt.Errorf("state of mirror %s: %w", c.Name, err)
	}
	var inSync uint64
	for i, leg := range c.Legs {
		if slices.Contains(r.InSync, leg.ID) && !leg.Fresh && (r.Clean || inSync == 0) {
			inSync |= 1 << i
		}
	}
	if inSync == 0 {
		// A new mirror, or none of the legs is known to have what it held last.
		inSync = 1 << max(0, slices.IndexFunc(c.Legs, func(l Leg) bool { return !l.Fresh }))
		if len(r.InSync) > 0 {
			c.Log.WithField("view", c.Name).WithField("leg", c.Legs[bits.TrailingZeros64(inSync)].ID).Error("no leg of the mirror that was in sync is there; what this one has is taken")
		}
	}
	if err := v.store(ctx, inSync, false); err != nil {
		return nil, err
	}
	v.inSync.Store(inSync)
	v.following.Store(inSync)
	run, stop := context.WithCancel(context.Background())
	v.stop = stop
	v.resyncs.Go(func() {
		if err := v.Resync(run); err != nil && run.Err() == nil {
			v.Log.WithField("view", v.Name).WithError(err).Error("a leg of the mirror is out of sync")
		}
	})
	return v, nil
}

// Close ends the mirror, and says that its legs are equal. Nothing may be written
// any more.
func (v *Mirror) Close(ctx context.Context) error {
	v.stop()
	v.resyncs.Wait()
	if err := v.Flush(ctx); err != nil {
		return err
	}
	return v.store(ctx, v.inSync.Load(), true)
}

// store makes it durable which legs are in sync.
func (v *Mirror) store(ctx context.Context, inSync uint64, clean bool) error {
	r := mirrorRecord{Clean: clean}
	for i, leg := range v.Legs {
		if inSync&(1<<i) != 0 {
			r.InSync = append(r.InSync, leg.ID)
		}
	}
	text, err := r.encode()
	if err != nil {
		return err
	}
	if err := v.Records.PutRecords(ctx, backstore.Record{Key: recordKey(v.Name, "mirror"), Value: text}); err != nil {
		return err
	}
	return v.Records.Flush(ctx)
}

// InSync returns the identities of the legs that hold the data.
func (v *Mirror) InSync() (ids []string) {
	for i, leg := range v.Legs {
		if v.inSync.Load()&(1<<i) != 0 {
			ids = append(ids, leg.ID)
		}
	}
	return ids
}

// drop takes legs out of the mirror, durably, because of err.
func (v *Mirror) drop(ctx context.Context, legs uint64, err error) error {
	v.state.Lock()
	defer v.state.Unlock()
	inSync := v.inSync.Load()
	if legs&inSync == inSync {
		v.following.Store(v.following.Load() &^ (legs &^ inSync))
		return err
	}
	if legs&inSync != 0 {
		if err := v.store(ctx, inSync&^legs, false); err != nil {
			return fmt.Errorf("mirror %s: remember that a leg failed: %w", v.Name, err)
		}
	}
	v.inSync.Store(inSync &^ legs)
	v.following.Store(v.following.Load() &^ legs)
	for i, leg := range v.Legs {
		if legs&(1<<i) != 0 {
			v.Log.WithField("view", v.Name).WithField("leg", leg.ID).WithError(err).Error("a leg of the mirror failed and is out of it until it is synced again")
		}
	}
	return nil
}

// Resync copies the data to every leg that does not have it, while the mirror is
// in use. It waits for another resync to end first.
func (v *Mirror) Resync(ctx context.Context) error {
	v.syncing.Lock()
	defer v.syncing.Unlock()
	var errs []error
	for i := range v.Legs {
		if v.inSync.Load()&(1<<i) == 0 {
			if err := v.syncLeg(ctx, i); err != nil {
				errs = append(errs, fmt.Errorf("sync leg %s of mirror %s: %w", v.Legs[i].ID, v.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// syncStep is how many bytes a resync copies while nothing is written to them.
const syncStep = 16 << 20

func (v *Mirror) syncLeg(ctx context.Context, leg int) error {
	bit := uint64(1) << leg
	v.state.Lock()
	v.following.Store(v.following.Load() | bit)
	v.state.Unlock()
	err := v.copyTo(ctx, leg)
	if err == nil {
		err = v.Legs[leg].Flush(ctx)
	}
	v.state.Lock()
	defer v.state.Unlock()
	if err == nil && v.following.Load()&bit == 0 {
		err = errors.New("it failed a write meanwhile")
	}
	if err == nil {
		err = v.store(ctx, v.inSync.Load()|bit, false)
	}
	if err != nil {
		v.following.Store(v.following.Load() &^ bit)
		return err
	}
	v.inSync.Store(v.inSync.Load() | bit)
	v.Log.WithField("view", v.Name).WithField("leg", v.Legs[leg].ID).Info("a leg of the mirror is in sync")
	return nil
}

// copyTo copies everything to a leg that follows.
func (v *Mirror) copyTo(ctx context.Context, leg int) error {
	size := v.Size()
	for off := int64(0); off < size; off += syncStep {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(syncStep, size-off)
		held := v.regions.of(off, n)
		held.lock()
		err := v.Copier.Copy(ctx, inner{v.Legs[v.first()]}, off, inner{v.Legs[leg]}, off, n, func(int64) {})
		held.unlock()
		if err != nil {
			return err
		}
	}
	return nil
}
