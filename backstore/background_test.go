package backstore

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/time/rate"

	"odx/backstore/segment"
)

// Cleaning within its budget and scrubs ask for all that they read or move, and end with
// the error that they get; cleaning on a full disk does not ask.
func TestStore_SetBackground(t *testing.T) {
	s, _ := mixed(t, Options{CleanBytesPerSecond: 1 << 40})
	defer s.Close()
	errStop := errors.New("stop")
	var asked atomic.Int64
	var mu sync.Mutex
	var answer error
	s.SetBackground(func(_ context.Context, operations, bytes int64) error {
		if operations != 1 || bytes <= 0 {
			t.Errorf("asked for %d operations, %d bytes", operations, bytes)
		}
		asked.Add(bytes)
		mu.Lock()
		defer mu.Unlock()
		return answer
	})
	clean := func(id uint64, budget *rate.Limiter) error {
		s.cleaner.mu.Lock()
		defer s.cleaner.mu.Unlock()
		return s.cleaner.cleanSegment(t.Context(), segment.ID(id), budget)
	}
	live := s.parts.usage.Live(1) * BlockLength
	if err := clean(1, s.cleaner.budget); err != nil || asked.Swap(0) < live {
		t.Errorf("cleaning of %d bytes: %v", live, err)
	}
	if r, err := s.Scrub(t.Context(), ScrubOptions{}); err != nil || asked.Swap(0) < r.ReadBytes || r.ReadBytes == 0 {
		t.Errorf("a scrub of %d bytes: %v", r.ReadBytes, err)
	}
	mu.Lock()
	answer = errStop
	mu.Unlock()
	if err := clean(2, s.cleaner.budget); !errors.Is(err, errStop) {
		t.Errorf("cleaning that may not go on: %v", err)
	}
	if _, err := s.Scrub(t.Context(), ScrubOptions{}); !errors.Is(err, errStop) {
		t.Errorf("a scrub that may not go on: %v", err)
	}
	asked.Store(0)
	if err := clean(2, rate.NewLimiter(rate.Inf, 0)); err != nil || asked.Load() != 0 {
		t.Errorf("cleaning on a full disk: %v, asked for %d bytes", err, asked.Load())
	}
	s.SetBackground(nil)
	if _, err := s.Scrub(t.Context(), ScrubOptions{}); err != nil || asked.Load() != 0 {
		t.Errorf("without a limit: %v, asked for %d bytes", err, asked.Load())
	}
}
