package monitor

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"odx/admin"
)

// source is a server whose store can stall.
type source struct {
	reads, measures atomic.Int32
	stalled         chan struct{} // what its figures wait for; nil: nothing
	took            time.Duration // of a measurement
	err             error
	status          admin.Status
}

func (s *source) Figures(ctx context.Context) (admin.Figures, error) {
	n := s.reads.Add(1)
	if s.stalled != nil {
		<-s.stalled
	}
	return admin.Figures{At: time.Now(), Volumes: int(n)}, s.err
}
func (s *source) Overview() (admin.Status, error) { return s.status, nil }
func (s *source) Measure(context.Context) (admin.Measured, error) {
	time.Sleep(s.took)
	return admin.Measured{At: time.Now(), DedupRatio: float64(s.measures.Add(1))}, nil
}

func closed(t *testing.T, s *Sampler) {
	t.Helper()
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// latest returns a sample that there has to be.
func latest(t *testing.T, s *Sampler) Sample {
	t.Helper()
	sample, err := s.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return sample
}

func TestSampler_Latest(t *testing.T) {
	t.Run("readers at the same time share a read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			src := &source{}
			s := NewSampler(src)
			defer closed(t, s)
			for range 100 {
				latest(t, s)
			}
			if n := src.reads.Load(); n != 1 {
				t.Errorf("%d reads", n)
			}
			time.Sleep(freshness)
			if sample := latest(t, s); sample.Figures.Volumes != 2 {
				t.Errorf("after %v: read %d", freshness, sample.Figures.Volumes)
			}
		})
	})
	t.Run("a store that stalls holds up no reader, and one goroutine", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			src := &source{}
			s := NewSampler(src)
			defer closed(t, s)
			before := latest(t, s)
			time.Sleep(time.Minute)
			src.stalled = make(chan struct{})
			began := time.Now()
			for range 10 {
				if sample := latest(t, s); sample.Figures.At != before.Figures.At {
					t.Errorf("figures of %v, want the last ones", sample.Figures.At)
				}
			}
			if took := time.Since(began); took != 10*patience {
				t.Errorf("10 scrapes took %v", took)
			}
			if n := src.reads.Load(); n != 2 {
				t.Errorf("%d reads, one of which is stalled", n)
			}
			if v := latest(t, s).Figures.Status.Vitals; v.Stalled < stalledAfter {
				t.Errorf("the status says stalled for %v", v.Stalled)
			}
			close(src.stalled)
			synctest.Wait()
			if sample := latest(t, s); sample.Figures.Volumes != 2 || sample.Figures.Status.Vitals.Stalled != 0 {
				t.Errorf("when it answers again: %+v", sample.Figures)
			}
		})
	})
	t.Run("without figures", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			gone := errors.New("closed")
			s := NewSampler(&source{err: gone})
			defer closed(t, s)
			if _, err := s.Latest(t.Context()); !errors.Is(err, gone) {
				t.Errorf("error %v", err)
			}
		})
	})
}

// TestSampler_Measure: measuring begins with the first reader, and takes at most a two
// hundredth of the time.
func TestSampler_Measure(t *testing.T) {
	for name, tt := range map[string]struct {
		took, period time.Duration
	}{
		"small store": {time.Millisecond, measureEvery},
		"large store": {20 * time.Second, measurePart * 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &source{took: tt.took}
				s := NewSampler(src)
				defer closed(t, s)
				time.Sleep(time.Hour)
				if n := src.measures.Load(); n != 0 {
					t.Errorf("%d measurements without a reader", n)
				}
				latest(t, s)
				time.Sleep(tt.took)
				synctest.Wait()
				if r := latest(t, s).Measured.DedupRatio; r != 1 {
					t.Errorf("measurement %v", r)
				}
				time.Sleep(tt.period - time.Second)
				latest(t, s)
				synctest.Wait()
				if n := src.measures.Load(); n != 1 {
					t.Errorf("%d measurements before %v", n, tt.period)
				}
				time.Sleep(time.Second)
				latest(t, s)
				time.Sleep(tt.took)
				synctest.Wait()
				if n := src.measures.Load(); n != 2 {
					t.Errorf("%d measurements after %v", n, tt.period)
				}
			})
		})
	}
}

// TestSampler_Close: a store that stalls does not hold up a stop.
func TestSampler_Close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{stalled: make(chan struct{})}
		s := NewSampler(src)
		if _, err := s.Latest(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v", err)
		}
		if _, err := s.Latest(t.Context()); err == nil || src.reads.Load() != 1 {
			t.Errorf("after Close: %v, %d reads", err, src.reads.Load())
		}
		close(src.stalled)
		closed(t, s)
	})
}

// get returns the answer of a handler.
func get(h http.Handler) (code int, body string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	return w.Code, w.Body.String()
}

// TestProgress: a check that does not return stops what feeds the watchdog, and /livez.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var passed atomic.Int32
		stuck := make(chan struct{})
		var hang atomic.Bool
		p := &Progress{Every: time.Second, Passed: func() { passed.Add(1) }, Check: func() {
			if hang.Load() {
				<-stuck
			}
		}}
		if code, _ := get(Live(p)); code != http.StatusOK {
			t.Errorf("before the start: %d", code)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.Run(ctx); close(done) }()
		time.Sleep(10*time.Second + time.Millisecond)
		if n := passed.Load(); n != 11 {
			t.Errorf("%d checks in 10 s", n)
		}
		hang.Store(true)
		time.Sleep(time.Minute)
		if n := passed.Load(); n != 11 {
			t.Errorf("%d checks, want none since it hangs", n)
		}
		if code, body := get(Live(p)); code != http.StatusServiceUnavailable || !strings.Contains(body, "no progress for 1m") {
			t.Errorf("%d: %s", code, body)
		}
		hang.Store(false)
		close(stuck)
		time.Sleep(2 * time.Second)
		if code, body := get(Live(p)); code != http.StatusOK || passed.Load() < 12 {
			t.Errorf("when it goes on: %d: %s", code, body)
		}
		cancel()
		<-done
	})
}

// TestReady: what a server has to have to be ready, and what leaves it degraded.
func TestReady(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*admin.Status)
		code   int
		want   string
	}{
		"healthy":      {func(*admin.Status) {}, 200, "ok\n"},
		"store failed": {func(s *admin.Status) { s.Vitals.StoreFailure = "input/output error" }, 503, "failing\ncritical: store_failed: "},
		"no portal":    {func(s *admin.Status) { s.Portals = nil }, 503, "failing\ncritical: portals_closed: "},
		"full":         {func(s *admin.Status) { s.Vitals.FreeBytes = 0 }, 200, "degraded\ncritical: store_full: "},
		"LUN left out": {func(s *admin.Status) { s.LUNs = []admin.LUNStatus{{Problem: "damaged"}} }, 200, "degraded\ncritical: lun_not_served: "},
	} {
		t.Run(name, func(t *testing.T) {
			status := admin.Status{Portals: []string{"127.0.0.1:3260"}, Vitals: admin.Vitals{FreeBytes: 1 << 30}}
			tt.change(&status)
			s := NewSampler(&source{status: status})
			defer closed(t, s)
			if code, body := get(Ready(s)); code != tt.code || !strings.HasPrefix(body, tt.want) {
				t.Errorf("%d %q, want %d %q", code, body, tt.code, tt.want)
			}
		})
	}
}
