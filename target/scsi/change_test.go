package scsi

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"odx/internal/kit/must"
	"odx/target/scsi/reserve"
	"odx/target/scsi/sense"
)

// Drain waits for what runs and waits, takes nothing new, and ends with its context.
func TestLogicalUnit_Drain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		runs, waits := f.prepared(f.nexus, testUnitReady), f.prepared(f.nexus, testUnitReady)
		f.reconfigure(func(c *Configuration) { c.Units = nil })
		late := NewTask(&f.pool) // it found the logical unit just before
		late.Reset(f.nexus, testUnitReady)
		itl := &itlNexus{nexus: f.nexus, lu: f.lu}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.lu.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with commands: %v", err)
		}
		if se, ok := itl.prepare(late).(*sense.Error); !ok || se.ASC != sense.ASCLogicalUnitNotSupported {
			t.Errorf("a new command: %v", se)
		}
		drained := make(chan error)
		go func() { drained <- f.lu.Drain(context.Background()) }()
		f.target.Execute(t.Context(), runs)
		synctest.Wait()
		select {
		case err := <-drained:
			t.Fatalf("drained with a command that waits: %v", err)
		default:
		}
		waits.Leave() // aborted
		if err := <-drained; err != nil {
			t.Error(err)
		}
		if err := f.lu.Drain(ctx); err != nil {
			t.Errorf("without commands: %v", err)
		}
		f.reconfigure(func(c *Configuration) { c.Units = map[uint16]*LogicalUnit{0: f.lu} })
		f.takeAttentions(f.nexus)
		f.at(f.nexus, 0).wantStatus(t, good)
	})
}

// What changes on a logical unit in use, and what announces it.
func TestLogicalUnit_Change(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(f *fixture)
		asc    []sense.ASC
		check  func(f *fixture) bool
	}{
		"read-only": {func(f *fixture) { f.lu.SetReadOnly(true) }, []sense.ASC{sense.ASCModeParametersChanged},
			func(f *fixture) bool {
				return f.lu.ReadOnly() && f.good([]byte{0x1A, 0, 0x3F, 0, 255, 0}, nil)[2]&dspWP != 0
			}},
		"UNMAP granularity": {func(f *fixture) { must.Succeed(f.t, f.lu.SetUnmapGranularity(1<<20)) }, []sense.ASC{sense.ASCInquiryDataChanged},
			func(f *fixture) bool {
				return binary.BigEndian.Uint32(f.good(inquiryCDB(1, 0xB0, 255), nil)[28:]) == 2048 && f.lu.slab() == 1<<20
			}},
		"soft threshold": {func(f *fixture) { f.lu.SetSoftThreshold(60 << 30) }, []sense.ASC{sense.ASCModeParametersChanged},
			func(f *fixture) bool {
				for _, control := range []byte{0, 2 << 6, 3 << 6} { // current, default, saved
					page := f.good([]byte{0x5A, 0x08, control | 0x1C, 0x02, 0, 0, 0, 0, 255, 0}, nil)[8:]
					if binary.BigEndian.Uint32(page[20:]) != 60<<10 {
						return false
					}
				}
				f.good(modeSelect6(cachingPage(0)), cachingPage(0)) // a MODE SELECT keeps it
				f.lu.SoftThresholdReached()
				r := f.do(testUnitReady, nil)
				return r.asc == sense.ASCSoftThresholdReached && binary.BigEndian.Uint32(f.good([]byte{0x5A, 0x08, 0x1C, 0x02, 0, 0, 0, 0, 255, 0}, nil)[28:]) == 60<<10
			}},
		"other data": {func(f *fixture) { f.lu.Renewed() }, []sense.ASC{sense.ASCMediumMayHaveChanged}, func(*fixture) bool { return true }},
		"other data and size": {func(f *fixture) { f.resize(testBlocks / 2); f.lu.Renewed() },
			[]sense.ASC{sense.ASCMediumMayHaveChanged, sense.ASCCapacityDataChanged},
			func(f *fixture) bool { return f.lu.Blocks() == testBlocks/2 }},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, space, func(c *LUConfig) { c.Records = memRecords{} })
			other := f.attach("iqn.2026-11.example.initiator:b")
			tt.change(f)
			for _, n := range []*Nexus{f.nexus, other} {
				for _, asc := range tt.asc {
					f.on(n, testUnitReady).wantSense(t, sense.KeyUnitAttention, asc)
				}
				f.on(n, testUnitReady).wantStatus(t, good)
			}
			if !tt.check(f) {
				t.Error("it has not changed")
			}
			f.takeAttentions(f.nexus)
			if !strings.HasPrefix(name, "other data") {
				tt.change(f) // to what it is
				f.on(f.nexus, testUnitReady).wantStatus(t, good)
			}
		})
	}
	if newFixture(t).lu.SetUnmapGranularity(100) == nil {
		t.Error("no error for a granularity of 100 bytes")
	}
}

// A logical unit that was removed and comes back has lost what a loss of power ends.
func TestLogicalUnit_PowerOff(t *testing.T) {
	records, era := memRecords{}, memRecords{}
	make := func() *prFixture {
		f := newPRFixture(t, func(c *LUConfig) { c.Records, c.Era = records, era })
		return f
	}
	f := make()
	f.must(f.a, reserve.Register, 0, 0, 0x0A)
	f.good(modeSelect6(cachingPage(0)), cachingPage(0))
	f.setTPG(f.a, byte(ActiveNonOptimized), 0, 0, 1).wantStatus(t, good)
	g := make() // without PowerOff, as after the end of the process
	g.wantKeys(0x0A)
	if g.lu.modes.WriteCache() {
		t.Error("the write cache is on again")
	}
	if err := errors.Join(f.lu.Close(t.Context()), f.lu.PowerOff(t.Context())); err != nil {
		t.Fatal(err)
	}
	g = make()
	g.wantKeys()
	if !g.lu.modes.WriteCache() {
		t.Error("the write cache is off")
	}
	if data := g.good(reportTPG(0, 255), nil); data[4] != 0 || data[9] != 0 {
		t.Errorf("target port groups % x", data)
	}
}
