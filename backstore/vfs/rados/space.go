package rados

import (
	"context"
	"math"
	"time"
)

// unknownSpace is what is free and what there is where the pool does not say.
const unknownSpace = math.MaxInt64 / 8

// spaceSaid is what the pool said of its space.
type spaceSaid struct{ free, total int64 }

// Free implements vfs.FS.
func (f *FS) Free(string) (int64, error) {
	free, _, err := f.space()
	return free, err
}

// Total implements vfs.FS.
func (f *FS) Total(string) (int64, error) {
	_, total, err := f.space()
	return total, err
}

// space returns what is free and what there is.
func (f *FS) space() (free, total int64, err error) {
	if said := f.said.Load(); said != nil {
		return said.free, said.total, nil
	}
	return f.askSpace()
}

// askSpace asks the pool. A cluster without a manager says nothing of either, and that is no
// full pool.
func (f *FS) askSpace() (free, total int64, err error) {
	free, total, err = f.pool.Space()
	if err == nil && total == 0 {
		return unknownSpace, unknownSpace, nil
	}
	return free, total, err
}

// KeepSpace asks the pool for its space again and again until ctx ends. It is a monitor that
// answers, which may be away for long: until it is back what it said last counts, and nothing
// that needs a figure waits for it.
func (f *FS) KeepSpace(ctx context.Context) {
	tick := time.NewTicker(spaceEvery)
	defer tick.Stop()
	for {
		if free, total, err := f.askSpace(); err == nil {
			f.said.Store(&spaceSaid{free, total})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// spaceEvery is how often KeepSpace asks.
const spaceEvery = 5 * time.Second
