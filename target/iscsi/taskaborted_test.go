package iscsi

import (
	"context"
	"testing"
	"time"
)

// With TAS, commands that another nexus aborts end with TASK ABORTED in every state,
// and no unit attention reports it. The nexus's own commands do not, and none do
// without TAS.
func TestTask_TaskAborted(t *testing.T) {
	for _, tt := range []struct {
		name string
		tas  byte
		// byOther: another session sends the function.
		byOther  bool
		function byte
		want     bool
	}{
		{"CLEAR TASK SET", 0x40, true, tmfClearTaskSet, true},
		{"LOGICAL UNIT RESET", 0x40, true, tmfLogicalUnitReset, true},
		{"own CLEAR TASK SET", 0x40, false, tmfClearTaskSet, false},
		{"without TAS", 0, true, tmfClearTaskSet, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			disk := newMemDisk(1 << 20)
			stalled := &stalledVolume{memVolume: memVolume{disk}, entered: make(chan struct{}, 4), release: make(chan struct{})}
			b := newVolumeBench(t, stalled, func(o *Options) { o.AbortTimeout = 20 * time.Millisecond })
			defer close(stalled.release)
			a, other := b.login("ImmediateData=No"), b.loginAs(testInitiator+".other")
			for _, i := range []*initiator{a, other} {
				i.senseOf(sendCommand(i, i.command(0, 0, 0, 0, 0, 0, 0, 0))) // power on
			}
			list := append(make([]byte, 4), 0x0A, 0x0A, 0x02, 0x10, 0, tt.tas, 0, 0, 0xFF, 0xFF, 0, 0)
			selectModes := other.command(bitWrite, uint32(len(list)), 0x15, 0x10, 0, 0, byte(len(list)), 0)
			other.send(selectModes, nil, list)
			other.good(selectModes)
			if tt.tas != 0 {
				a.senseOf(sendCommand(a, a.command(0, 0, 0, 0, 0, 0, 0, 0))) // mode parameters changed
			}
			collecting := sendCommand(a, a.command(bitWrite, memBlock, write10(5, 1)...))
			a.expect(opR2T)
			running := sendCommand(a, a.command(bitRead, memBlock, read10(5, 1)...))
			<-stalled.entered

			by := other
			if !tt.byOther {
				by = a
			}
			h := by.tmf(tt.function, [8]byte{}, nil)
			if tt.want {
				reported := map[uint32]bool{}
				for range 2 {
					r, _ := a.expect(opSCSIResponse)
					if r[3] != statusTaskAborted {
						t.Errorf("status %02Xh", r[3])
					}
					reported[r.itt()] = true
				}
				if !reported[collecting.itt()] || !reported[running.itt()] {
					t.Errorf("TASK ABORTED for %v", reported)
				}
			}
			if got := by.tmfResponse(h); got != tmfComplete {
				t.Errorf("response %d", got)
			}
			if tt.byOther {
				a.expect(opNopIn) // with the new window
			}
			r, _ := a.status(sendCommand(a, a.command(0, 0, 0, 0, 0, 0, 0, 0)))
			cleared := tt.byOther && !tt.want || tt.function == tmfLogicalUnitReset
			if got := r[3] == statusCheckCondition; got != cleared {
				t.Errorf("unit attention afterwards: %v, want %v", got, cleared)
			}
		})
	}
}

// stalledVolume is a memVolume whose reads hang.
type stalledVolume struct {
	memVolume
	entered, release chan struct{}
}

func (v *stalledVolume) ReadAt(ctx context.Context, p []byte, off int64) error {
	v.entered <- struct{}{}
	<-v.release
	return ctx.Err()
}
