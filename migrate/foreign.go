package migrate

import (
	"context"
	"fmt"
	"io"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
)

// Foreign is the LUN of another target, open for a migration.
type Foreign interface {
	// Unmap makes a range read as zeros, and writes none where it does.
	blockdev.Volume
	// Close ends its use for the migration. LUNs that are on it go on.
	io.Closer
	// BlockLength is the logical block length in bytes.
	BlockLength() int
	// Condition examines it.
	Condition(ctx context.Context) (Condition, error)
}

// Condition is what is to be known of the LUN of another target before it is overwritten.
type Condition struct {
	// Own: it is the LUN of this server with this name, "" for none.
	Own string
	// Protected: it takes no writes.
	Protected bool
	// Reserved: another initiator holds a reservation; Registered counts those that have
	// registered for one.
	Reserved   bool
	Registered int
	// Data: there is data, at DataAt for one.
	Data   bool
	DataAt int64
}

// foreignCopies is how many commands copy to the LUN of another target at once: each waits for
// the network. Each takes memory of the engine, of which one client gets half.
const foreignCopies = 8

// onTarget is the LUN of another target, to which this server is a proxy after the cut.
type onTarget struct {
	here
	open Foreign // nil: it is not
}

// chooseForeign checks a destination on another target as far as this server can.
func (m *Manager) chooseForeign(r admin.MigrationRequest, rec *record) error {
	url, err := conf.ParseISCSI(r.To)
	if err != nil {
		return fmt.Errorf("%w: %w", blockdev.ErrInvalid, err)
	}
	to := conf.Device{ISCSI: url}
	if other, ok := m.destinations()[to]; ok {
		return fmt.Errorf("%w: %s is the destination of the migration of %s", blockdev.ErrInvalid, url, other)
	}
	if _, served := m.o.Server.Serving(to); served {
		return fmt.Errorf("%s: %w as a LUN", url, admin.ErrInUse)
	}
	rec.ToISCSI, rec.Overwrite = url, r.Overwrite
	rec.Login, err = loginRecordOf(r.Login)
	return err
}

// begin implements destination.
func (d *onTarget) begin(ctx context.Context) error {
	err := d.connect(ctx)
	if err == nil {
		err = d.check(ctx)
	}
	if err == nil {
		err = d.m.o.Store.PutRecords(ctx, d.copyRecord().encode())
	}
	if err == nil {
		err = d.m.o.Store.Flush(ctx)
	}
	return err
}

// connect opens the LUN. If it is open already, its session stays, and the next one logs in with
// what the secrets are now.
func (d *onTarget) connect(ctx context.Context) error {
	c, err := d.newCut()
	if err != nil {
		return err
	}
	open, err := d.m.o.Server.OpenForeign(ctx, c)
	if err != nil {
		return err
	}
	d.release()
	d.open, d.dst = open, open
	return nil
}

// check returns why the LUN cannot be the destination.
func (d *onTarget) check(ctx context.Context) error {
	r := d.copyRecord()
	src, err := d.volume()
	if err != nil {
		return err
	}
	if err := d.fits(src); err != nil {
		return err
	}
	c, err := d.open.Condition(ctx)
	switch {
	case err != nil:
		return err
	case c.Own != "":
		return fmt.Errorf("%w: %s is a LUN of this server, %s; name its volume or view", blockdev.ErrInvalid, r.ToISCSI, c.Own)
	case c.Protected:
		return fmt.Errorf("%s: %w", r.ToISCSI, blockdev.ErrReadOnly)
	case c.Reserved:
		return fmt.Errorf("%s: %w: another initiator has reserved it", r.ToISCSI, admin.ErrInUse)
	case r.Overwrite:
		return nil
	case c.Registered > 0:
		return fmt.Errorf("%s: %w: %d initiator ports have registered for persistent reservations; take it from them, or overwrite it", r.ToISCSI, admin.ErrInUse, c.Registered)
	case c.Data:
		return fmt.Errorf("%w: %s has data, at byte %d, which would be lost; choose another LUN, or overwrite it", backstore.ErrExists, r.ToISCSI, c.DataAt)
	}
	return nil
}

// fits returns why the LUN cannot take the place of the volume.
func (d *onTarget) fits(src *backstore.Volume) error {
	if d.dst.Size() != src.Size() {
		return sizeDiffers(src, d.dst.Size())
	}
	for _, l := range d.m.o.Server.LUNs(d.from()) {
		if n := d.open.BlockLength(); n > l.BlockLength {
			return fmt.Errorf("%w: %s has blocks of %d bytes, and LUN %d of %s has blocks of %d", blockdev.ErrInvalid, d.copyRecord().ToISCSI, n, l.Number, l.Target, l.BlockLength)
		}
	}
	return nil
}

// ready implements destination.
func (d *onTarget) ready(ctx context.Context, src *backstore.Volume) error {
	if err := d.connect(ctx); err != nil {
		return err
	}
	return d.fits(src)
}

// settle implements destination.
func (d *onTarget) settle(context.Context) error { return nil }

// drop implements destination. What was written to the LUN stays there.
func (d *onTarget) drop(ctx context.Context) error {
	d.release()
	return d.m.o.Server.ForgetForeign(ctx, d.copyRecord().ToISCSI)
}

// release implements destination.
func (d *onTarget) release() {
	if d.open == nil {
		return
	}
	if err := d.open.Close(); err != nil {
		d.log.WithError(err).Warn("migration: session with the other target not ended")
	}
	d.open, d.dst = nil, nil
}
