// Package monitor watches the server of a store: it reads figures without ever waiting long
// for a store that does not answer, says whether the server is ready and whether the process
// makes progress, and serves that over HTTP.
package monitor

import (
	"context"
	"sync"
	"time"

	"odx/admin"
)

// Source has the figures of a server. *admin.Store implements it.
type Source interface {
	// Figures can wait for the disk, Overview does not.
	Figures(ctx context.Context) (admin.Figures, error)
	Overview() (admin.Status, error)
	// Measure takes time in proportion to what is stored.
	Measure(ctx context.Context) (admin.Measured, error)
}

const (
	// patience is how long Latest waits for figures.
	patience = 2 * time.Second
	// freshness is the age up to which figures are taken again: readers that come at the
	// same time have the same ones.
	freshness = 500 * time.Millisecond
	// stalledAfter is how long figures may take until the store counts as stalled.
	stalledAfter = 10 * time.Second
	// Measurements take at most a measurePart-th of the time, and begin measureEvery after
	// the one before at the earliest.
	measurePart  = 200
	measureEvery = 5 * time.Minute
)

// Sampler reads the figures of a source, with one goroutine at a time, however many readers
// there are and however long the source takes.
type Sampler struct {
	source Source
	ctx    context.Context // ended by Close
	cancel context.CancelFunc
	reads  sync.WaitGroup

	mu      sync.Mutex // guards what follows
	closed  bool
	reading chan struct{} // closed when the running read ends; nil: none runs
	began   time.Time     // of the running read
	read    bool          // figures were read once
	figures admin.Figures
	err     error // of the last read

	measuring bool
	measured  admin.Measured
	// nextMeasure is when the next measurement may begin.
	nextMeasure time.Time
}

// NewSampler returns a sampler, which does nothing until figures are asked for. The caller
// closes it before the source.
func NewSampler(source Source) *Sampler {
	s := &Sampler{source: source}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends reads and waits for them until ctx ends: a store that does not answer must not
// hold up a stop.
func (s *Sampler) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	ended := make(chan struct{})
	go func() {
		s.reads.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Sample is what is known of a source.
type Sample struct {
	// Figures are the last ones that were read: their At says when. Their Status is of now,
	// whatever the store does.
	Figures admin.Figures
	// Measured is the last measurement; its At is zero before the first one.
	Measured admin.Measured
}

// Latest returns figures that are not older than those of the same second, or the last ones
// if the store does not answer in time. The error is that of the last read, where no figures
// were read yet, or of ctx.
func (s *Sampler) Latest(ctx context.Context) (Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if reading := s.start(); reading != nil {
		select {
		case <-reading:
		case <-ctx.Done():
		}
	}
	status, err := s.Status()
	if err != nil {
		return Sample{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.read {
		return Sample{}, firstOf(s.err, context.Cause(ctx))
	}
	sample := Sample{s.figures, s.measured}
	sample.Figures.Status = status
	return sample, nil
}

// firstOf returns the first error that is not nil.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Status returns the status of the server as of now, without waiting for the store. It is
// for the health: it has neither sessions nor sizes of LUNs.
func (s *Sampler) Status() (admin.Status, error) {
	status, err := s.source.Overview()
	if err != nil {
		return admin.Status{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reading != nil {
		if since := time.Since(s.began); since >= stalledAfter {
			status.Vitals.Stalled = max(since, status.Vitals.Stalled)
		}
	}
	return status, nil
}

// start begins a read, unless the last one is fresh or one runs. It returns what is closed
// when the running read ends, nil if there is nothing to wait for.
func (s *Sampler) start() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.reading != nil:
		return s.reading
	case s.closed || s.err == nil && time.Since(s.figures.At) < freshness:
		return nil
	}
	s.reading, s.began = make(chan struct{}), time.Now()
	s.reads.Go(s.readFigures)
	s.measure()
	return s.reading
}

// readFigures reads figures once.
func (s *Sampler) readFigures() {
	figures, err := s.source.Figures(s.ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.reading)
	if s.reading, s.err = nil, err; err == nil {
		s.figures, s.read = figures, true
	}
}

// measure begins a measurement if one is due. The caller holds mu.
func (s *Sampler) measure() {
	if s.measuring || time.Now().Before(s.nextMeasure) {
		return
	}
	s.measuring = true
	s.reads.Go(func() {
		began := time.Now()
		measured, err := s.source.Measure(s.ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.measuring = false
		s.nextMeasure = time.Now().Add(max(measureEvery, measurePart*time.Since(began)))
		if err == nil {
			s.measured = measured
		}
	})
}
