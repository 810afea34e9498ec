package scrubplan

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// memory keeps one record, unless err says otherwise.
type memory struct {
	value []byte
	err   error
}

func (m *memory) Get([]byte) ([]byte, error) { return m.value, m.err }

func (m *memory) Put(_ context.Context, _, value []byte) error {
	m.value = value
	return m.err
}

// run runs a plan for a time and returns when, after its begin, it scrubbed. Each scrub ends
// with an error of fails, if there is one left.
func run(t *testing.T, m *memory, every, length time.Duration, fails ...error) (at []time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	begin := time.Now()
	p := Plan{Records: m, Every: every, Log: logs.Discard()}
	p.Scrub = func(ctx context.Context) error {
		at = append(at, time.Since(begin))
		if len(at) <= len(fails) {
			return fails[len(at)-1]
		}
		p.Ended(ctx, Last{ReadBytes: int64(len(at))}, 1500*time.Millisecond)
		return nil
	}
	p.Run(ctx)
	return at
}

func wantTimes(t *testing.T, got []time.Duration, want ...time.Duration) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("scrubbed at %v, want %v", got, want)
	}
	for i := range got {
		if got[i] < want[i]-time.Second || got[i] > want[i] { // the record has whole seconds
			t.Errorf("scrubbed at %v, want %v", got, want)
		}
	}
}

// TestPlan_Run: a scrub is due a time after the last one, also over a restart.
func TestPlan_Run(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		var m memory
		wantTimes(t, run(t, &m, 2*day, 5*day), 2*day, 4*day)
		wantTimes(t, run(t, &m, 2*day, 2*day), day)
		last, ok, err := (&Plan{Records: &m}).Last()
		if err != nil || !ok || last.ReadBytes != 1 || last.Took != "2s" || last.Since != last.Ended || time.Since(last.Ended) > day+time.Second {
			t.Errorf("the last one: %+v, %v, %v", last, ok, err)
		}
	})
}

// TestPlan_Run_Never: without a time there is no scrub, and no record.
func TestPlan_Run_Never(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memory
		if wantTimes(t, run(t, &m, 0, time.Hour)); m.value != nil {
			t.Errorf("there is a record: %s", m.value)
		}
	})
}

// TestPlan_Run_Failed: a scrub that failed is tried again an hour later, and one whose last
// time cannot be read is due after the whole time.
func TestPlan_Run_Failed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := errors.New("a test says so")
		var m memory
		wantTimes(t, run(t, &m, 10*time.Hour, 22*time.Hour, failed), 10*time.Hour, 11*time.Hour, 21*time.Hour)
		m.err = failed
		wantTimes(t, run(t, &m, 10*time.Hour, 15*time.Hour), 10*time.Hour)
		m.err = nil
		value, err := Last{Since: time.Now().Add(-time.Hour)}.Encode()
		must.Succeed(t, err)
		m.value = value
		wantTimes(t, run(t, &m, 10*time.Hour, 10*time.Hour), 9*time.Hour)
	})
}
