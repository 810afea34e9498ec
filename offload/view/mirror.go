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

// Leg is a device of a mirror, with an identity that it has for as long as its data
// is the same.
type Leg struct {
	Device
	ID string
	// Fresh: it was made just now, and holds nothing of the mirror's data, whatever
	// had its identity before.
	Fresh bool
	// Files are the plain files outside the store that the leg's data is in.
	Files []Stamped
}

// MirrorConfig describes a mirror.
type MirrorConfig struct {
	// Name is that of the view; what the mirror remembers is kept under it.
	Name string
	// Legs are two to 64. The mirror has the size of the smallest.
	Legs    []Leg
	Engine  *offload.Engine
	Records Records
	Log     *logrus.Entry
	// StampEvery is how often, while there are writes, legs in plain files are
	// stamped with a new generation: a minute by default. An older copy that is no
	// older than that is not told from its leg after an end without Close.
	StampEvery time.Duration
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
//
// Legs in plain files carry the generation of the mirror, which grows with each start
// and end and while there are writes: a file of an older generation is an older copy,
// and is synced as one that was dropped.
type Mirror struct {
	MirrorConfig
	// inSync has a bit for each leg that holds the data; following one for each
	// that gets every write, which includes the one that is being synced. They
	// change with state held.
	inSync, following atomic.Uint64
	state             sync.Mutex
	// generation, that of the legs in sync, last, the largest that was ever begun, and
	// id are guarded by state. written is set by each change, until the next
	// generation.
	generation uint64
	last       uint64
	id         mirrorID
	written    atomic.Bool
	regions    regions // exclusive: a write, or a step of a resync
	// writes closes the range of an aborted write that a leg has not ended, also to
	// other views of the mirror: legs do not see that it was aborted.
	writes fence.Writes

	stop    context.CancelFunc
	resyncs sync.WaitGroup // the resync of the start
	syncing sync.Mutex     // held by a resync

	stamping sync.WaitGroup // new generations while there are writes
}

// mirrorVersion is the version of mirrorRecord. Records without one are of the
// first form, which lacked nothing else.
const mirrorVersion = 1

// mirrorRecord is what is stored of a mirror.
type mirrorRecord struct {
	Version int      `json:"version"`
	InSync  []string `json:"in_sync"` // identities of legs
	Clean   bool     `json:"clean"`   // the mirror was closed
	// ID and Generation are those of the stamps of legs in sync; Next is a generation
	// that some may have already. They are missing where no leg has a stamp.
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
		return nil, fmt.Errorf("state of mirror %s: %w", c.Name, err)
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
	v.stop = stop
	v.resyncs.Go(func() {
		if err := v.Resync(run); err != nil && run.Err() == nil {
			v.Log.WithField("view", v.Name).WithError(err).Error("a leg of the mirror is out of sync")
		}
	})
	if v.stamps() {
		v.stamping.Go(func() { v.stampOften(run) })
	}
	return v, nil
}

// current returns which legs have the data, by what was stored and what they say of
// themselves, and the generation of those in plain files.
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
					Warn("a leg of the mirror is not what was last written to it, but perhaps an older copy; it is synced from another one")
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
	// A new mirror, or none of the legs is known to have what it held last.
	first := max(0, slices.IndexFunc(v.Legs, func(l Leg) bool { return !l.Fresh }))
	if newestLeg >= 0 {
		first = newestLeg
	}
	if len(r.InSync) > 0 {
		v.Log.WithField("view", v.Name).WithField("leg", v.Legs[first].ID).Error("no leg of the mirror that was in sync is there; what this one has is taken")
	}
	return 1 << first, newest, nil
}

// Close ends the mirror, and says that its legs are equal. Nothing may be written
// any more.
func (v *Mirror) Close(ctx context.Context) error {
	v.stop()
	v.resyncs.Wait()
	v.stamping.Wait()
	if err := v.Flush(ctx); err != nil {
		return err
	}
	return v.advance(ctx, true)
}

// store makes it durable which legs are in sync. state is held.
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

// stamps reports whether a leg is in a plain file.
func (v *Mirror) stamps() bool {
	return slices.ContainsFunc(v.Legs, func(l Leg) bool { return len(l.Files) > 0 })
}

// advance begins the next generation, and stores the state of the mirror. A leg that
// cannot be stamped is dropped.
func (v *Mirror) advance(ctx context.Context, clean bool) error {
	v.state.Lock()
	defer v.state.Unlock()
	if !v.stamps() {
		return v.store(ctx, v.inSync.Load(), 0, clean)
	}
	// A crash leaves legs of this generation and of the next: both are good then, and
	// no older copy has the next.
	v.last++
	next := v.last
	if err := v.store(ctx, v.inSync.Load(), next, false); err != nil {
		return err
	}
	v.written.Store(false) // before the stamp: what comes later is of the next generation
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

// stampOften begins new generations while there are writes, until ctx ends.
func (v *Mirror) stampOften(ctx context.Context) {
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
			v.Log.WithField("view", v.Name).WithError(err).Error("the legs of the mirror could not be stamped")
		}
	}
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
		err = errors.New("it failed a write in the meantime")
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
		err := v.Engine.Copy(ctx, inner{v.Legs[v.first()].Device}, off, inner{v.Legs[leg].Device}, off, n, func(int64) {})
		held.unlock()
		if err != nil {
			return err
		}
	}
	return nil
}
