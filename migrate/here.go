package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
)

// shortRound is how long the copying of a round may take for a cut to follow: what is written
// in that time is copied in the cut.
const shortRound = 250 * time.Millisecond

// here is a destination that this server serves after the cut: what differs is written to it
// from here, and the configuration file decides which side serves.
type here struct {
	*migration
	dst blockdev.Volume // open while the migration runs
	// copies is how many ranges are copied at once; 0: one, and each by as few steps as
	// possible, since they are mapped.
	copies int
}

func (h *here) short() time.Duration { return shortRound }

// stay implements destination: without a cut, nothing moves the LUN. One that has moved it need
// not be in the record yet.
func (h *here) stay(context.Context) error {
	if _, moved := h.serving(); moved {
		return admin.ErrMigrated
	}
	return nil
}

// serving reports whether the destination is a LUN, and whether it is the one that is moved.
func (h *here) serving() (served, moved bool) {
	r := h.copyRecord()
	id, served := h.m.o.Server.Serving(r.to())
	return served, served && conf.FormatIdentity(id) == r.Identity
}

// left implements destination.
func (h *here) left() bool {
	_, moved := h.serving()
	return moved
}

// leave implements destination.
func (h *here) leave(context.Context) error { return nil }

// resume implements destination. Where the LUN is decides, not what the record says last.
func (h *here) resume(ctx context.Context) (done bool, err error) {
	switch served, moved := h.serving(); {
	case !served:
		return false, nil
	case moved:
		return true, h.moved(ctx, h.copyRecord().Cut)
	}
	return true, h.giveUp(ctx, "the destination has become a LUN of its own")
}

// cut implements destination.
func (h *here) cut(ctx context.Context, src *backstore.Volume) error {
	c, err := h.newCut()
	if err != nil {
		return err
	}
	c.Last = func(ctx context.Context) error { return h.last(ctx, src) }
	c.Moved = func(ctx context.Context) {
		if err := h.m.o.References.EndReferences(ctx, src.ID()); err != nil {
			h.log.WithError(err).Warn("tokens that refer to the data of the volume in place have not all ended")
		}
	}
	c.Stays = h.thaw(src)
	held, err := h.m.o.Server.Cut(ctx, c)
	h.countCut(held)
	// Whatever failed: where the LUN is decides.
	if _, moved := h.serving(); moved {
		return h.moved(context.WithoutCancel(ctx), held)
	}
	if err == nil {
		err = errors.New("the LUN has not moved")
	}
	return givenUp(held, err)
}

// newCut returns what a cut changes in the configuration.
func (h *here) newCut() (Cut, error) {
	r := h.copyRecord()
	identity, err := conf.ParseIdentity(r.Identity)
	return Cut{From: h.from(), To: r.to(), Login: r.Login.conf(), Identity: identity}, err
}

// last is Cut.Last.
func (h *here) last(ctx context.Context, src *backstore.Volume) error {
	if err := h.freeze(ctx, src); err != nil {
		return err
	}
	if h.dst.Size() != src.Size() {
		return fmt.Errorf("%w: volume %s has been resized", blockdev.ErrInvalid, src.Name())
	}
	if err := h.point(ctx, src); err != nil {
		return err
	}
	if err := h.copyDifference(ctx, nil); err != nil {
		return err
	}
	h.m.step("last difference copied")
	if err := h.dst.Flush(ctx); err != nil {
		return err
	}
	return ctx.Err() // a flush that has begun is waited for, however long it takes
}

// inStore is a volume or a view of this store.
type inStore struct{ here }

// begin implements destination.
func (d *inStore) begin(ctx context.Context) error {
	// The record first: the destination is made where it is found missing.
	if err := d.m.o.Store.PutRecords(ctx, d.copyRecord().encode()); err != nil {
		return err
	}
	err := d.open(ctx)
	if err == nil {
		err = d.m.o.Store.Flush(ctx)
	}
	return err
}

// open opens the destination, and makes one that was to be made and is missing.
func (d *inStore) open(ctx context.Context) (err error) {
	r := d.copyRecord()
	if r.ToView != "" {
		d.dst, err = d.m.o.Server.Open(ctx, r.to())
		return err
	}
	store := d.m.o.Store
	v, err := store.Volume(r.ToVolume)
	if errors.Is(err, backstore.ErrNotFound) && r.Made {
		var src *backstore.Volume
		if src, err = d.volume(); err == nil {
			v, err = store.CreateVolume(ctx, r.ToVolume, src.Size())
		}
	}
	if err != nil {
		return err
	}
	d.dst = v
	return v.Protect(ctx, protector, &backstore.Protection{By: "the migration of volume " + r.Volume})
}

// ready implements destination. The source can have grown.
func (d *inStore) ready(ctx context.Context, src *backstore.Volume) error {
	if err := d.open(ctx); err != nil {
		return err
	}
	if d.dst.Size() == src.Size() {
		return nil
	}
	own, ok := d.dst.(*backstore.Volume)
	if !ok || d.dst.Size() > src.Size() {
		return sizeDiffers(src, d.dst.Size())
	}
	return own.Grow(ctx, src.Size())
}

// sizeDiffers is the error for a destination that the source, which can have grown, does not
// fit.
func sizeDiffers(src *backstore.Volume, destination int64) error {
	return fmt.Errorf("%w: volume %s has %s now, and the destination has %s", blockdev.ErrInvalid, src.Name(), conf.FormatSize(src.Size()), conf.FormatSize(destination))
}

// settle implements destination.
func (d *inStore) settle(ctx context.Context) error {
	r := d.copyRecord()
	if r.ToVolume == "" {
		return nil
	}
	dst, err := d.m.o.Store.Volume(r.ToVolume)
	if err == nil {
		err = dst.Protect(ctx, protector, nil)
	}
	return err
}

// drop implements destination: it deletes what was made for the migration.
func (d *inStore) drop(ctx context.Context) error {
	r := d.copyRecord()
	if r.ToView != "" {
		return nil
	}
	v, err := d.m.o.Store.Volume(r.ToVolume)
	if errors.Is(err, backstore.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = v.Protect(ctx, protector, nil)
	}
	if _, served := d.m.o.Server.Serving(r.to()); err != nil || !r.Made || served {
		return err
	}
	return d.m.o.Store.DeleteVolume(ctx, r.ToVolume)
}

// release implements destination.
func (d *inStore) release() { d.dst = nil }
