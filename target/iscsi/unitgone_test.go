package iscsi

import (
	"context"
	"errors"
	"testing"
	"time"

	"odx/target/scsi"
)

// newUnit returns a logical unit whose reads stall, and its volume.
func newUnit(t *testing.T, id byte) (*scsi.LogicalUnit, *stalledVolume) {
	t.Helper()
	v := &stalledVolume{memVolume: memVolume{newMemDisk(1 << 20)}, entered: make(chan struct{}, 4), release: make(chan struct{})}
	lu, err := scsi.NewLogicalUnit(scsi.LUConfig{Volume: v, ID: [16]byte{id}})
	if err != nil {
		t.Fatal(err)
	}
	return lu, v
}

// Commands at a logical unit that has left its target, in every state and of every session,
// end with LOGICAL UNIT NOT SUPPORTED. Those of other logical units go on.
func TestServer_AbortTasks(t *testing.T) {
	stays, _ := newUnit(t, 1)
	leaves, stalled := newUnit(t, 2)
	device := scsi.NewTarget(scsi.TargetConfig{Name: testTarget})
	if _, err := device.Reconfigure(scsi.Configuration{Units: map[uint16]*scsi.LogicalUnit{0: stays, 7: leaves}}); err != nil {
		t.Fatal(err)
	}
	b := newDeviceBench(t, device, func(o *Options) { o.AbortTimeout = 50 * time.Millisecond })
	defer close(stalled.release)
	at := func(lun byte, h *bhs) *bhs {
		h[9] = lun
		return h
	}
	outstanding := map[*initiator][]*bhs{}
	a, other := b.login("ImmediateData=No"), b.loginAs(testInitiator+".other", "ImmediateData=No")
	for _, i := range []*initiator{a, other} {
		for _, lun := range []byte{0, 7} {
			i.senseOf(sendCommand(i, at(lun, i.command(0, 0, 0, 0, 0, 0, 0, 0)))) // power on
		}
		i.answered(sendCommand(i, at(7, i.command(bitWrite, memBlock, write10(5, 1)...))), opR2T)
	}
	elsewhere := sendCommand(a, at(0, a.command(bitWrite, memBlock, write10(5, 1)...)))
	r2t, _ := a.expect(opR2T)
	outstanding[a] = append(outstanding[a], sendCommand(a, at(7, a.command(bitRead, memBlock, read10(5, 1)...))))
	<-stalled.entered
	outstanding[a] = append(outstanding[a], sendCommand(a, at(7, ordered(a.command(bitRead, memBlock, read10(5, 1)...)))))
	outstanding[other] = append(outstanding[other], sendCommand(other, at(7, other.command(bitRead, memBlock, read10(5, 1)...))))
	left, err := device.Reconfigure(scsi.Configuration{Units: map[uint16]*scsi.LogicalUnit{0: stays}})
	if err != nil || len(left) != 1 || left[0] != leaves {
		t.Fatalf("left %v, %v", left, err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := leaves.Drain(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain returned %v", err)
	}
	b.srv.AbortTasks(leaves)
	if err := leaves.Drain(t.Context()); err != nil {
		t.Errorf("Drain after AbortTasks: %v", err)
	}
	for i, commands := range outstanding {
		waits := map[uint32]bool{}
		for range len(commands) + 1 {
			r, d := i.expect(opSCSIResponse)
			got := senseCode{}
			if len(d) >= 16 {
				got = senseCode{d[4], d[14], d[15]}
			}
			if r[3] != statusCheckCondition || got != (senseCode{5, 0x25, 0}) || r[1]&bitUnderflow == 0 || r.field32(44) != memBlock {
				t.Errorf("response %x %x", *r, d)
			}
			waits[r.itt()] = true
		}
		for _, h := range commands {
			if !waits[h.itt()] {
				t.Errorf("task %#x has no response", h.itt())
			}
		}
		i.window()
	}
	a.answerR2T(elsewhere, r2t, pattern(1, memBlock), memBlock)
	a.good(elsewhere)
}

// answered receives a PDU with the given opcode for command h.
func (i *initiator) answered(h *bhs, opcode byte) {
	i.tb.Helper()
	if r, _ := i.expect(opcode); r.itt() != h.itt() {
		i.tb.Fatalf("received %x for task %#x", *r, h.itt())
	}
}

// window receives the NOP-In with the new MaxCmdSN.
func (i *initiator) window() {
	i.tb.Helper()
	if r, _ := i.expect(opNopIn); r.ttt() != reservedTag {
		i.tb.Fatalf("received %x", *r)
	}
}
