package tokens

import (
	"context"
	"errors"
)

// EndReferences ends the live tokens that keep no data, access upon reference, and name the
// volume with an ID: what they stand for is written elsewhere from now on. Tokens that keep
// their data stay.
func (m *Manager) EndReferences(ctx context.Context, volume [16]byte) error {
	var errs []error
	for _, e := range m.referring() {
		if [16]byte(e.rec.Volume) == volume { // constant since the entry was made
			errs = append(errs, m.cancel(ctx, e, DataGone))
		}
	}
	return errors.Join(errs...)
}
