package scsi

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"odx/internal/kit/must"
	"odx/target/handover"
	"odx/target/scsi/sense"
)

// passed returns state as it arrives in another process.
func passed(t *testing.T, state handover.Nexus) *handover.Nexus {
	t.Helper()
	data, err := json.Marshal(state)
	must.Succeed(t, err)
	var got handover.Nexus
	must.Succeed(t, json.Unmarshal(data, &got))
	return &got
}

// successor returns a target with a logical unit of the same identity, as another process
// makes it.
func (f *fixture) successor() *fixture {
	return newFixture(f.t)
}

// TestTarget_Continue: a nexus begins in another process with the unit attentions, the
// deferred error and the RESERVE that it had, and with no unit attention of its own.
func TestTarget_Continue(t *testing.T) {
	f := newFixture(t)
	f.good(reserve6, nil)
	f.lu.establish(sense.ASCModeParametersChanged, nil)
	f.lu.establish(sense.ASCCapacityDataChanged, nil)
	f.nexus.unit([8]byte{}).deferError(sense.New(sense.KeyMediumError, 0x0C00).WithInformation(9))
	f.nexus.DropProof()
	state := passed(t, f.target.Suspend(t.Context(), f.nexus))

	g := f.successor()
	n := g.target.Continue(f.nexus.ID, Rights{}, state)
	if !n.doubted.Load() {
		t.Error("the proof of the nexus is trusted")
	}
	g.lu.establish(sense.ASCModeParametersChanged, nil) // queued already
	other := g.attach("iqn.2026-11.example.initiator:b")
	for _, asc := range []sense.ASC{sense.ASCModeParametersChanged, sense.ASCCapacityDataChanged} {
		g.on(n, testUnitReady).wantSense(t, sense.KeyUnitAttention, asc)
	}
	r := g.on(n, testUnitReady)
	r.wantSense(t, sense.KeyMediumError, 0x0C00)
	if r.sense[6] != 9 {
		t.Errorf("deferred error % x, want INFORMATION 9", r.sense)
	}
	g.on(n, testUnitReady).wantStatus(t, good)
	g.on(other, testUnitReady).wantStatus(t, 0x18)
	g.target.Detach(n)
	g.on(other, testUnitReady).wantStatus(t, good)
	g.on(g.target.Attach(n.ID), testUnitReady).wantSense(t, sense.KeyUnitAttention, sense.ASCITNexusLossOccurred)
}

// TestTarget_ContinueElsewhere: a logical unit that the nexus did not have begins with
// POWER ON.
func TestTarget_ContinueElsewhere(t *testing.T) {
	f := newFixture(t)
	for name, change := range map[string]func(u *handover.Nexus){
		"new LUN":              func(u *handover.Nexus) { u.Units = nil },
		"another logical unit": func(u *handover.Nexus) { u.Units[0].ID = make([]byte, 16) },
	} {
		state := passed(t, f.target.Suspend(t.Context(), f.nexus))
		change(state)
		g := f.successor()
		n := g.target.Continue(f.nexus.ID, Rights{}, state)
		if se := n.unit([8]byte{}).takePending(); se == nil || se.ASC != sense.ASCPowerOnOrReset {
			t.Errorf("%s: attention %v, want power on", name, se)
		}
	}
}

// TestSuspendSense: sense data passes entirely.
func TestSuspendSense(t *testing.T) {
	inner := &sense.Error{Key: 3, ASC: 0x1100, Information: 0, HasInformation: true, SenseKeySpecific: [3]byte{0x80, 1, 2}}
	want := &sense.Error{Key: 0xA, ASC: 0x0D01, CommandSpecific: 5, HasCommandSpecific: true, Deferred: true, Err: errors.New("cause"),
		Forwarded: &sense.Forwarded{Destination: true, Status: 2, Sense: inner}}
	if got := ContinueSense(SuspendSense(want)); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if SuspendSense(nil) != nil || ContinueSense(nil) != nil {
		t.Error("nothing became sense data")
	}
}
