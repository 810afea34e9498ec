package kit

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Migration is what odx tells of a migration.
type Migration struct {
	State      string  `json:"state"`
	Rounds     int     `json:"rounds"`
	CutSeconds float64 `json:"cut_seconds"`
	Problem    string  `json:"problem"`
}

// Migrate moves the LUNs on a volume to another one, waits until they have moved, and deletes
// the volume that they have left.
func (t *Target) Migrate(ctx context.Context, volume, to string) (m Migration, err error) {
	if err := t.Admin(ctx, &m, "volume", "migrate", "start", volume, to); err != nil {
		return m, err
	}
	for {
		var all []Migration
		if err := t.Admin(ctx, &all, "volume", "migrate", "list"); err != nil {
			return m, err
		}
		if len(all) != 1 {
			return m, fmt.Errorf("%d migrations", len(all))
		}
		switch m = all[0]; m.State {
		case "moved":
			var finished Migration
			return m, t.Admin(ctx, &finished, "volume", "migrate", "finish", volume)
		case "aborted":
			return m, errors.New(m.Problem)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return m, fmt.Errorf("%w: %+v", ctx.Err(), m)
		}
	}
}
