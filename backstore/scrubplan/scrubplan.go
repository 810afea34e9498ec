// Package scrubplan decides when a store scrubs itself, and keeps what the last scrub found.
package scrubplan

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// retry is how long a plan waits after a scrub that failed.
const retry = time.Hour

// Records keep a record over a restart.
type Records interface {
	// Get returns a record, nil if there is none.
	Get(key []byte) ([]byte, error)
	// Put puts a record.
	Put(ctx context.Context, key, value []byte) error
}

// Plan is when a store is scrubbed.
type Plan struct {
	Records Records
	// Every is the time from the end of one scrub to the next; 0: there is none. It is
	// what Run begins with; see SetEvery.
	Every time.Duration
	// Scrub scrubs the store, and calls Ended.
	Scrub func(context.Context) error
	Log   *logrus.Entry

	mu      sync.Mutex    // guards Every and changed
	changed chan struct{} // closed when Every changes; nil while Run does not look at it
}

// SetEvery changes the time from the end of one scrub to the next; 0: there is none. A scrub
// that runs goes on.
func (p *Plan) SetEvery(every time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Every = every
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// Current returns the time from the end of one scrub to the next.
func (p *Plan) Current() time.Duration {
	every, _ := p.schedule()
	return every
}

// schedule returns Every, and a channel that is closed when it changes.
func (p *Plan) schedule() (every time.Duration, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.Every, p.changed
}

// Last returns what the last scrub found; ok is false when nothing is known, of a record of
// a later version for example: the next one replaces it.
func (p *Plan) Last() (last Last, ok bool, err error) {
	value, err := p.Records.Get([]byte(Key))
	if err != nil || value == nil {
		return last, false, err
	}
	return Decode(value)
}

func (p *Plan) note(ctx context.Context, last Last) error {
	value, err := last.Encode()
	if err != nil {
		return err
	}
	return p.Records.Put(ctx, []byte(Key), value)
}

// Ended stores what a scrub found that ends now and took so long.
func (p *Plan) Ended(ctx context.Context, found Last, took time.Duration) {
	found.Ended = now()
	found.Since, found.Took = found.Ended, took.Round(time.Second).String()
	if err := p.note(ctx, found); err != nil && ctx.Err() == nil {
		p.Log.WithError(err).Warn("the result of a scrub could not be stored")
	}
}

// Run scrubs the store whenever it is due, until ctx ends.
func (p *Plan) Run(ctx context.Context) {
	for ctx.Err() == nil {
		every, changed := p.schedule()
		if every == 0 {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		if !wait(ctx, changed, p.due(ctx, every)) {
			continue
		}
		if err := p.Scrub(ctx); err != nil && ctx.Err() == nil {
			p.Log.WithError(err).Warn("scrubbing stopped; it is tried again an hour later")
			wait(ctx, nil, retry)
		}
	}
}

// due returns how long it is until the next scrub. A store that was never scrubbed counts
// from now on.
func (p *Plan) due(ctx context.Context, every time.Duration) time.Duration {
	last, ok, err := p.Last()
	if err == nil && !ok {
		last.Since = now()
		err = p.note(ctx, last)
	}
	if err != nil {
		p.Log.WithError(err).Warn("when the store was scrubbed last cannot be read or stored")
		return every
	}
	return time.Until(last.Since.Add(every))
}

// wait reports whether the time has passed before ctx ended and changed was closed.
func wait(ctx context.Context, changed <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-changed:
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }
