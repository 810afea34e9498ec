package target

import (
	"context"

	"odx/admin"
)

// changes excludes from each other what replaces the state of a service: reloads, a
// handover, the stop.
type changes struct {
	// slot holds a value while one of them is under way.
	slot chan struct{}
	// ending is done once the service is to end; end ends it.
	ending context.Context
	end    context.CancelFunc
}

func newChanges() changes {
	ending, end := context.WithCancel(context.Background())
	return changes{slot: make(chan struct{}, 1), ending: ending, end: end}
}

// begin waits for its turn. The caller calls done. ErrChanging: the service ends.
func (c *changes) begin(ctx context.Context) (done func(), err error) {
	select {
	case c.slot <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.ending.Done():
		return nil, admin.ErrChanging
	}
	if c.ending.Err() != nil {
		<-c.slot
		return nil, admin.ErrChanging
	}
	return func() { <-c.slot }, nil
}

// last ends what is under way as soon as that may end, and waits for it. None begins after
// it.
func (c *changes) last() {
	c.end()
	c.slot <- struct{}{}
}

// HoldConfiguration keeps the configuration as it is until release is called, or until
// Suspend or Stop, which hold it for good. Reloads wait in the meantime. An error is
// ErrChanging, where the service ends, or that of ctx.
func (s *Service) HoldConfiguration(ctx context.Context) (release func(), err error) {
	return s.changes.begin(ctx)
}
