// Package scrubplan decides when a store scrubs itself, and keeps what the last scrub found.
package scrubplan

import (
	"context"
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
	// Every is the time from the end of one scrub to the next; 0: there is none.
	Every time.Duration
	// Scrub scrubs the store, and calls Ended.
	Scrub func(context.Context) error
	Log   *logrus.Entry
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
	if p.Every == 0 {
		return
	}
	for p.wait(ctx, p.due(ctx)) {
		if err := p.Scrub(ctx); err != nil && ctx.Err() == nil {
			p.Log.WithError(err).Warn("scrubbing stopped; it is tried again an hour later")
			p.wait(ctx, retry)
		}
	}
}

// due returns how long it is until the next scrub. A store that was never scrubbed counts
// from now on.
func (p *Plan) due(ctx context.Context) time.Duration {
	last, ok, err := p.Last()
	if err == nil && !ok {
		last.Since = now()
		err = p.note(ctx, last)
	}
	if err != nil {
		p.Log.WithError(err).Warn("when the store was scrubbed last cannot be read or stored")
		return p.Every
	}
	return time.Until(last.Since.Add(p.Every))
}

// wait reports whether the time has passed before ctx ended.
func (p *Plan) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }
