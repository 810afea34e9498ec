package backstore

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore/extent"
)

const (
	// leastNames is how many names of blocks in other stores are kept at least. Beyond,
	// their number is at most namesPerBlock for each live block.
	leastNames    = 1 << 16
	namesPerBlock = 2
	// pruneWait is the time between two passes over the names.
	pruneWait = time.Second
)

// names has the table of names that other stores have for blocks be no larger than its
// bound: a name of a block that is gone stays until a pass over the table drops it, and a
// block can have got several names.
type names struct {
	parts *parts
	opts  *Options
	log   *logrus.Entry

	wake chan struct{} // receives when there are too many names
	mu   sync.Mutex    // held during a pass
}

// most returns the bound.
func (k *names) most() int64 {
	return max(k.opts.tuning.leastNames, namesPerBlock*k.parts.usage.Total())
}

// add adds names within an operation. The table is a hint: what cannot be added costs
// sending it again.
func (k *names) add(from [16]byte, series uint64, names []uint64, slots []extent.Slot) {
	n, err := k.parts.known.Add(from, series, names, slots[:len(names)])
	if err != nil {
		k.log.WithError(err).Debug("names of blocks in another store are not remembered")
		return
	}
	if n > k.most() {
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
}

// namesLoop drops names when there are too many, until ctx ends.
func (s *Store) namesLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.names.wake:
		}
		if err := s.pruneNames(ctx); err != nil && ctx.Err() == nil {
			s.log.WithError(err).Warn("dropping names of blocks that are gone failed; it is tried again when more are added")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pruneWait):
		}
	}
}

// pruneNames drops the names of blocks that are gone, and more until there is room for a
// quarter of the bound. It holds no lock for more than a page.
func (s *Store) pruneNames(ctx context.Context) error {
	s.names.mu.Lock()
	defer s.names.mu.Unlock()
	before, err := s.countNames(ctx)
	if err != nil {
		return err
	}
	if err := s.Checkpoint(ctx); err != nil { // a pass goes over what is stored
		return err
	}
	most := s.names.most()
	pass, err := s.parts.known.NewPrune(before, most-most/4)
	for more := true; more && err == nil; {
		err = s.changeNames(ctx, func() (err error) {
			more, err = pass.Next(s.parts.extents.Live)
			return err
		})
	}
	if err != nil {
		return err
	}
	return s.changeNames(ctx, pass.End)
}

func (s *Store) countNames(ctx context.Context) (n int64, err error) {
	err = s.changeNames(ctx, func() (err error) {
		n, err = s.parts.known.Names()
		return err
	})
	return n, err
}

// changeNames runs an operation that changes nothing but the table of names, and so has no
// record.
func (s *Store) changeNames(ctx context.Context, change func() error) error {
	if err := s.life.writable(); err != nil {
		return err
	}
	if err := s.pace.throttle(ctx); err != nil {
		return err
	}
	s.opMu.RLock()
	defer s.opMu.RUnlock()
	if err := s.life.usable(); err != nil {
		return err
	}
	return change()
}
