package iscsi

import (
	"net/netip"
	"slices"
	"testing"

	"odx/target/scsi"
)

// serials returns the serial numbers of what an initiator finds at LUNs 0 and 7; "": nothing.
func (i *initiator) serials() (found [2]string) {
	i.tb.Helper()
	for n, lun := range []byte{0, 7} {
		h := i.command(bitRead, 255, 0x12, 1, 0x80, 0, 255, 0)
		h[9] = lun
		i.send(h, nil, nil)
		if r, data := i.status(h); r[3] == statusGood && len(data) > 4 && data[0] == 0 {
			found[n] = string(data[4:])
		}
	}
	return found
}

// attention receives the unit attention of LUN 0, and returns its code.
func (i *initiator) attention() senseCode {
	i.tb.Helper()
	return i.senseOf(sendCommand(i, i.command(0, 0, 0, 0, 0, 0, 0, 0)))
}

// The list of LUNs and the views of it change in one step: none of a session that stays, of
// one that may not continue, and of one that begins in the meantime sees the new LUNs by its old view,
// or the old ones by its new view.
func TestServer_Reconfigure_Configure(t *testing.T) {
	first, _ := newUnit(t, 1)
	second, _ := newUnit(t, 2)
	secret, _ := newUnit(t, 3)
	device := scsi.NewTarget(scsi.TargetConfig{Name: testTarget})
	if _, err := device.Reconfigure(scsi.Configuration{Units: map[uint16]*scsi.LogicalUnit{0: first, 7: second}}); err != nil {
		t.Fatal(err)
	}
	b := newDeviceBench(t, device, func(*Options) {})
	stays, goes := b.login(), b.loginAs(testInitiator+".goes")
	for _, i := range []*initiator{stays, goes} {
		if got := i.attention(); got != (senseCode{6, 0x29, 0x01}) && got != (senseCode{6, 0x29, 0}) {
			t.Errorf("attention %x", got)
		}
	}
	inside, proceed := make(chan struct{}), make(chan struct{})
	calls, left := 0, []*scsi.LogicalUnit(nil)
	configured := make(chan struct{})
	go func() {
		defer close(configured)
		b.reconfigure(func(r *Reconfiguration) {
			r.Targets[0].Admit = func(initiator string, _ netip.Addr) (scsi.View, bool) {
				return scsi.View{0: {LUN: 0}}, initiator != testInitiator+".goes"
			}
			r.Targets[0].Configure = func(rights func(*scsi.Nexus) (scsi.Rights, bool)) {
				calls++
				close(inside)
				<-proceed
				left, _ = device.Reconfigure(scsi.Configuration{Units: map[uint16]*scsi.LogicalUnit{0: first, 7: secret}, Rights: rights})
			}
		})
	}()
	<-inside
	goes.askedToLogOut()
	h := goes.command(0, 0, 0, 0, 0, 0, 0, 0)
	goes.send(h, nil, nil)
	if r, _ := goes.status(h); r[3] != statusBusy {
		t.Errorf("status %#x, want BUSY", r[3])
	}
	before := stays.serials()
	if before[0] == "" || before[1] == "" {
		t.Errorf("units %q before the change", before)
	}
	begins := b.dial()
	begins.isid[5]++
	begins.send(begins.loginRequest(stageOperational, stageFullFeature), nil, text(name, wantTarget))
	eventually(t, "the login waits", func() bool { return len(b.srv.Sessions()) == 3 })
	close(proceed)
	r, data := begins.expect(opLoginResponse)
	if r.field16(36) != loginSuccess {
		t.Fatalf("status %#x", r.field16(36))
	}
	begins.loggedIn(r, data)
	<-configured
	if calls != 1 || !slices.Equal(left, []*scsi.LogicalUnit{second}) {
		t.Errorf("%d calls, left %v", calls, left)
	}
	if got := stays.attention(); got != (senseCode{6, 0x3f, 0x0e}) {
		t.Errorf("attention %x, want REPORTED LUNS DATA HAS CHANGED", got)
	}
	stays.good(sendCommand(stays, stays.command(0, 0, 0, 0, 0, 0, 0, 0)))
	begins.attention()
	for _, i := range []*initiator{stays, begins} {
		if got := i.serials(); got != [2]string{before[0], ""} {
			t.Errorf("units %q, want one at LUN 0", got)
		}
	}
}
