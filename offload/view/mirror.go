package view

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/backstore/fence"
	"odx/blockdev"
	"odx/offload"
)

// Leg is a device of a mirror, with an identity that lasts as long as its data.
type Leg struct {
	Device
	ID string
	// Fresh reports that the device is newly created: it has none of the mirror's data,
	// even if an earlier device had its identity.
	Fresh bool
	// Files are the plain files outside the store with the leg's data.
	Files []Stamped
}

// MirrorConfig describes a mirror.
type MirrorConfig struct {
	// Name is the name of the view, and the key of the mirror's record.
	Name string
	// Legs are two to 64. The mirror has the size of the smallest.
	Legs    []Leg
	Engine  *offload.Engine
	Records Records
	Log     *logrus.Entry
	// StampEvery is the interval, while there are writes, of new generations in the
	// stamps of legs in plain files; the default is a minute. After an end without
	// Close, a copy of a leg younger than the interval cannot be distinguished from the
	// leg.
	StampEvery time.Duration
	// Hold leaves legs that are not in sync as they are until Begin.
	Hold bool
}

// Mirror is RAID 1: every leg has the data. A write goes to all legs in sync. A leg
// that fails a write or a flush is dropped: the mirror stores that before it
// acknowledges the write, stops reading from the leg, and copies all data to it in a
// resync, at the next start or by Resync. Reads use the first leg in sync, and the next
// one after an error; a failed read drops no leg. A write that all legs fail returns an
// error and drops no leg.
//
// After an end without Close the legs can differ in writes that were in progress, so
// the mirror copies the first leg in sync to the others.
//
// Legs in plain files have a stamp with the generation of the mirror, which increases
// at each start and end and while there are writes. A file of an older generation is an
// older copy, and is synced like a dropped leg.
type Mirror struct {
	MirrorConfig
	// inSync has a bit for each leg with the data, following for each leg that receives
	// all writes, including the one being synced. They change with state held.
	inSync, following atomic.Uint64
	state             sync.Mutex
	// generation is that of the legs in sync, last the largest ever started; both and
	// id are guarded by state. Each change sets written; a new generation clears it.
	generation uint64
	last       uint64
	id         mirrorID
	written    atomic.Bool
	regions    regions // exclusive: a write, or a step of a resync
	// writes makes the range of an aborted write that a leg has not ended busy for all
	// views of the mirror: the abort is not passed on to legs.
	writes fence.Writes

	run     context.Context // of the goroutines; stop ends it
	stop    context.CancelFunc
	resyncs sync.WaitGroup // the resync at the start
	syncing sync.Mutex     // held by a resync

	stamping sync.WaitGroup // new generations while there are writes
}

// mirrorVersion is the version of mirrorRecord. Records without a version are of the
// first format, which differs only in that.
const mirrorVersion = 1

// mirrorRecord is the stored state of a mirror. It is durable: a renamed field loses what
// mirrors know of their legs.
type mirrorRecord struct {
	Version int      `json:"version"`
	InSync  []string `json:"in_sync"` // identities of legs
	Clean   bool     `json:"clean"`   // the mirror was closed
	// ID and Generation are those in the stamps of legs in sync; some stamps may
	// already have generation Next. They are absent if no leg has a stamp.
	ID         mirrorID `json:"id,omitzero"`
	Generation uint64   `json:"generation,omitempty"`
	Next       uint64   `json:"next,omitempty"`
}

// mirrorID is the random identity of a mirror, in hexadecimal as text.
type mirrorID [16]byte

// MarshalText implements encoding.TextMarshaler.
func (id mirrorID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *mirrorID) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err == nil && len(b) != len(id) {
		err = fmt.Errorf("identity of %d bytes", len(b))
	}
	copy(id[:], b)
	return err
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
		return r, fmt.Errorf("record version %d, supported up to %d; use a newer version of odx", r.Version, mirrorVersion)
	}
	r.Version = mirrorVersion
	return r, nil
}

// OpenMirror returns a mirror and starts to sync legs that are not in sync. If no leg
// was in sync in a mirror of this name, the first leg that is not fresh is assumed to
// have the data.
func OpenMirror(ctx context.Context, c MirrorConfig) (*Mirror, error) {
	if len(c.Legs) < 2 || len(c.Legs) > 64 {
		return nil, fmt.Errorf("%w: mirror of %d legs", blockdev.ErrInvalid, len(c.Legs))
	}
	v := &Mirror{MirrorConfig: c}
	var r mirrorRecord
	text, err := c.Records.GetRecord(recordKey(c.Name, "mirror"))
	if err == nil {
		r, err = decodeMirror(text)
	}
	err = ignoreNotFound(err)
	if err != nil {
		return nil, fmt.Errorf("read the state of mirror %s: %w", c.Name, err)
	}
	inSync, generation, err := v.current(ctx, &r)
	if err != nil {
		return nil, err
	}
	if v.id = r.ID; v.id == (mirrorID{}) {
		rand.Read(v.id[:])
	}
	v.inSync.Store(inSync)
	v.following.Store(inSync)
	v.generation, v.last = generation, max(r.Generation, r.Next, generation)
	if err := v.advance(ctx, false); err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.Background())
	v.run, v.stop = run, stop
	if !c.Hold {
		v.Begin()
	}
	if v.stamps() {
		v.stamping.Go(func() { v.stampPeriodically(run) })
	}
	return v, nil
}

// Begin starts to sync legs that are not in sync, of a mirror that was opened with Hold. It is
// called at most once, and not after Close.
func (v *Mirror) Begin() {
	v.resyncs.Go(func() {
		if err := v.Resync(v.run); err != nil && v.run.Err() == nil {
			v.Log.WithField("view", v.Name).WithError(err).Error("mirror leg out of sync")
		}
	})
}

// current returns the legs with the data, by the record and their stamps, and the
// generation of those in plain files.
func (v *Mirror) current(ctx context.Context, r *mirrorRecord) (inSync, generation uint64, err error) {
	generation = r.Generation
	newest, newestLeg := uint64(0), -1
	for i := range v.Legs {
		leg := &v.Legs[i]
		if leg.Fresh {
			continue
		}
		known := slices.Contains(r.InSync, leg.ID)
		if len(leg.Files) > 0 && r.Generation > 0 {
			g, err := leg.generation(ctx, r.ID)
			if err != nil {
				return 0, 0, err
			}
			if g > newest {
				newest, newestLeg = g, i
			}
			if known && g != r.Generation && (r.Next == 0 || g != r.Next) {
				known = false
				v.Log.WithFields(logrus.Fields{"view": v.Name, "leg": leg.ID, "generation": g, "mirror_generation": r.Generation}).
					Warn("mirror leg has an older generation, perhaps an older copy; syncing it from another leg")
			}
			if known && inSync == 0 {
				generation = g
			}
		}
		if known && (r.Clean || inSync == 0) {
			inSync |= 1 << i
		}
	}
	if inSync != 0 {
		return inSync, generation, nil
	}
	// A new mirror, or no leg is known to have the latest data.
	first := max(0, slices.IndexFunc(v.Legs, func(l Leg) bool { return !l.Fresh }))
	if newestLeg >= 0 {
		first = newestLeg
	}
	if len(r.InSync) > 0 {
		v.Log.WithField("view", v.Name).WithField("leg", v.Legs[first].ID).Error("no mirror leg that was in sync is present; using the data of this leg")
	}
	return 1 << first, newest, nil
}

// Close ends the mirror and records that its legs are equal. There must be no writes
// after it.
func (v *Mirror) Close(ctx context.Context) error {
	v.stop()
	v.resyncs.Wait()
	v.stamping.Wait()
	if err := v.Flush(ctx); err != nil {
		return err
	}
	return v.advance(ctx, true)
}

// store stores durably which legs are in sync. state is held.
func (v *Mirror) store(ctx context.Context, inSync, next uint64, clean bool) error {
	r := mirrorRecord{Clean: clean}
	if v.stamps() {
		r.ID, r.Generation, r.Next = v.id, v.generation, next
	}
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

// stamps reports whether any leg is in a plain file.
func (v *Mirror) stamps() bool {
	return slices.ContainsFunc(v.Legs, func(l Leg) bool { return len(l.Files) > 0 })
}

// advance starts the next generation and stores the state of the mirror. A leg that
// cannot be stamped is dropped.
func (v *Mirror) advance(ctx context.Context, clean bool) error {
	v.state.Lock()
	defer v.state.Unlock()
	if !v.stamps() {
		return v.store(ctx, v.inSync.Load(), 0, clean)
	}
	// A crash can leave legs of this generation and of the next. Both are current, and
	// no older copy has the next.
	v.last++
	next := v.last
	if err := v.store(ctx, v.inSync.Load(), next, false); err != nil {
		return err
	}
	v.written.Store(false) // before the stamp: later writes are of the next generation
	var failed uint64
	var first error
	for i := range v.Legs {
		if v.inSync.Load()&(1<<i) == 0 {
			continue
		}
		if err := v.stampLeg(ctx, i, next); err != nil {
			if failed |= 1 << i; first == nil {
				first = err
			}
		}
	}
	if failed != 0 {
		if err := v.dropHeld(ctx, failed, first); err != nil {
			return err
		}
	}
	v.generation = next
	return v.store(ctx, v.inSync.Load(), 0, clean)
}

func (v *Mirror) stampLeg(ctx context.Context, i int, generation uint64) error {
	return v.Legs[i].stamp(ctx, Stamp{Mirror: v.id, Generation: generation})
}

// stampPeriodically starts new generations while there are writes, until ctx ends.
func (v *Mirror) stampPeriodically(ctx context.Context) {
	tick := time.NewTicker(cmp.Or(v.StampEvery, time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !v.written.Load() {
			continue
		}
		if err := v.advance(context.WithoutCancel(ctx), false); err != nil {
			v.Log.WithField("view", v.Name).WithError(err).Error("stamp of mirror legs failed")
		}
	}
}

// InSync returns the identities of the legs with the data.
func (v *Mirror) InSync() (ids []string) {
	for i, leg := range v.Legs {
		if v.inSync.Load()&(1<<i) != 0 {
			ids = append(ids, leg.ID)
		}
	}
	return ids
}

// drop removes legs from the mirror, durably, because of err.
func (v *Mirror) drop(ctx context.Context, legs uint64, err error) error {
	v.state.Lock()
	defer v.state.Unlock()
	return v.dropHeld(ctx, legs, err)
}

// dropHeld is drop. state is held.
func (v *Mirror) dropHeld(ctx context.Context, legs uint64, err error) error {
	inSync := v.inSync.Load()
	if legs&inSync == inSync {
		v.following.Store(v.following.Load() &^ (legs &^ inSync))
		return err
	}
	if legs&inSync != 0 {
		if err := v.store(ctx, inSync&^legs, v.last, false); err != nil {
			return fmt.Errorf("mirror %s: record a failed leg: %w", v.Name, err)
		}
	}
	v.inSync.Store(inSync &^ legs)
	v.following.Store(v.following.Load() &^ legs)
	for i, leg := range v.Legs {
		if legs&(1<<i) != 0 {
			v.Log.WithField("view", v.Name).WithField("leg", leg.ID).WithError(err).Error("mirror leg failed; dropped until it is synced")
		}
	}
	return nil
}

// Resync copies the data to every leg that does not have it. The mirror can be in use.
// Resync waits until another resync ends.
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

// syncStep is the number of bytes that a resync copies while it blocks writes to them.
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
		err = errors.New("the leg failed a write during the sync")
	}
	if err == nil {
		err = v.stampLeg(ctx, leg, v.generation)
	}
	if err == nil {
		err = v.store(ctx, v.inSync.Load()|bit, 0, false)
	}
	if err != nil {
		v.following.Store(v.following.Load() &^ bit)
		return err
	}
	v.inSync.Store(v.inSync.Load() | bit)
	v.Log.WithField("view", v.Name).WithField("leg", v.Legs[leg].ID).Info("mirror leg in sync")
	return nil
}

// copyTo copies all data to a leg in following.
func (v *Mirror) copyTo(ctx context.Context, leg int) error {
	size := v.Size()
	for off := int64(0); off < size; off += syncStep {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := v.copyRegion(ctx, leg, off, min(syncStep, size-off)); err != nil {
			return err
		}
	}
	return nil
}

// copyRegion copies a range to a leg in following.
func (v *Mirror) copyRegion(ctx context.Context, leg int, off, length int64) error {
	return v.Engine.WithMemory(ctx, inner{v}, func(ctx context.Context) error {
		held := v.regions.of(off, length)
		held.lock()
		defer held.unlock()
		return v.Engine.Copy(ctx, inner{v.Legs[v.first()].Device}, off, inner{v.Legs[leg].Device}, off, length, func(int64) {})
	})
}
