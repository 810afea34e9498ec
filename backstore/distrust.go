package backstore

import (
	"context"
	"errors"

	"odx/backstore/extent"
)

// Data that cannot be read must not stand for equal data that is written later:
// a client that restores a range from a copy would get the damage again. So an extent
// that was found damaged loses its fingerprint, which takes it out of
// deduplication. As for a move, there is no journal record: after a crash the
// damage is found again.

// distrust takes an extent out of deduplication because of err, if that is a
// damage. The caller holds no lock. That this fails is no error: the caller has
// a worse one to report.
func (rd *reader) distrust(ctx context.Context, id extent.ID, err error) {
	condemned := errors.Is(err, errFingerprint)
	if !condemned && !damaged(err) || rd.opts.ReadOnly || rd.pace.throttle(ctx) != nil {
		return
	}
	rd.opMu.RLock()
	defer rd.opMu.RUnlock()
	if rd.life.usable() != nil {
		return
	}
	forget := rd.parts.extents.ClearFingerprint
	if condemned {
		forget = rd.parts.extents.Condemn
	}
	if err := forget(id); err != nil {
		rd.log.WithError(err).WithField("extent", id).Warn("an extent that is damaged may still stand for equal data")
	}
}
