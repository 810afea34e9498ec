package scsi

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"odx/internal/kit/must"
	"odx/target/scsi/sense"
)

// A logical unit that is away accesses no medium, by no port, and says so: those that look at
// what it is find it as it was.
func TestSetAway(t *testing.T) {
	f := newFixture(t)
	report := []byte{0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0}
	for _, tt := range []struct {
		state PortState
		asc   sense.ASC
	}{
		{Unavailable, sense.ASCPortInUnavailableState}, {Transitioning, sense.ASCAsymmetricAccessStateTransition},
	} {
		f.lu.SetAway(tt.state)
		f.do(make([]byte, 6), nil).wantSense(t, sense.KeyUnitAttention, sense.ASCAsymmetricAccessStateChanged)
		for name, cdb := range map[string][]byte{
			"TEST UNIT READY": make([]byte, 6), "READ": readBlock, "MODE SENSE": {0x1A, 0, 0x3F, 0, 255, 0}, "READ KEYS": {0x5E, 0, 0, 0, 0, 0, 0, 0, 255, 0},
			"SET TARGET PORT GROUPS": {0xA4, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		} {
			t.Run(name, func(t *testing.T) { f.do(cdb, nil).wantSense(t, sense.KeyNotReady, tt.asc) })
		}
		if r := f.do([]byte{0x12, 0, 0, 0, 96, 0}, nil); r.status != StatusGood || r.data[0] != 0 {
			t.Errorf("INQUIRY while %v: %v", tt.state, r)
		}
		if r := f.do(report, nil); r.status != StatusGood || PortState(r.data[4]&0xF) != tt.state {
			t.Errorf("REPORT TARGET PORT GROUPS while %v: %v", tt.state, r)
		}
		if err := f.lu.Ready(); err == nil {
			t.Errorf("a copy could access it while %v", tt.state)
		}
	}
	f.lu.SetAway(ActiveOptimized)
	f.do(make([]byte, 6), nil).wantSense(t, sense.KeyUnitAttention, sense.ASCAsymmetricAccessStateChanged)
	f.do(readBlock, nil).wantStatus(t, StatusGood)
}

// A command that is held when the logical unit goes away ends so; who waits for those that
// are held waits for their end.
func TestSetAway_Held(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		release, err := f.lu.Hold(t.Context())
		must.Succeed(t, err)
		f.lu.AwaitNoneHeld(t.Context())
		task := f.commandOf(f.nexus, attributeSimple, readBlock)
		if task.Enabled() || task.WhenEnabled(func() {}) {
			t.Fatal("a task begins")
		}
		none := make(chan struct{})
		go func() {
			defer close(none)
			f.lu.AwaitNoneHeld(t.Context())
		}()
		limited, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		f.lu.AwaitNoneHeld(limited)
		if limited.Err() == nil {
			t.Error("it does not wait")
		}
		f.lu.SetAway(Unavailable)
		task.Leave()
		<-none
		release()
	})
}
