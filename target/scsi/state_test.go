package scsi

import (
	"bytes"
	"testing"

	"odx/target/scsi/sense"
)

var (
	testUnitReady = []byte{0x00, 0, 0, 0, 0, 0}
	requestSense  = []byte{0x03, 0, 0, 0, 255, 0}
	reserve6      = []byte{0x16, 0, 0, 0, 0, 0}
	release6      = []byte{0x17, 0, 0, 0, 0, 0}
	stopUnit      = []byte{0x1B, 0, 0, 0, 0x00, 0}
	startUnit     = []byte{0x1B, 0, 0, 0, 0x01, 0}
)

func TestUnitAttention_PowerOn(t *testing.T) {
	f := newFixture(t)
	n := f.target.Attach(NexusID{TargetName: f.target.Name()})
	f.on(n, inquiryCDB(0, 0, 96)).wantStatus(t, StatusGood)
	f.on(n, reportLUNsCDB(0, 96)).wantStatus(t, StatusGood)
	f.on(n, cdb10(0x28, 0, 0, 1)).wantSense(t, sense.KeyUnitAttention, sense.ASCPowerOnOrReset)
	f.on(n, cdb10(0x28, 0, 0, 1)).wantStatus(t, StatusGood)
}

func TestUnitAttention_UnsupportedCommand(t *testing.T) {
	f := newFixture(t)
	n := f.target.Attach(NexusID{})
	f.on(n, make([]byte, 16)[:0]).wantSense(t, sense.KeyUnitAttention, sense.ASCPowerOnOrReset)
	f.on(n, []byte{0xFF, 0, 0, 0, 0, 0}).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode)
}

func TestRequestSense(t *testing.T) {
	f := newFixture(t)
	n := f.target.Attach(NexusID{})
	wantHex(t, f.on(n, requestSense).data, "70 00 06 00000000 0a 00000000 2900 00 000000")
	wantHex(t, f.on(n, requestSense).data, "70 00 00 00000000 0a 00000000 0000 00 000000")
	wantHex(t, f.on(n, []byte{0x03, 0x01, 0, 0, 255, 0}).data, "72 00 0000 000000 00")
	wantHex(t, f.on(n, []byte{0x03, 0, 0, 0, 4, 0}).data, "70 00 00 00")
}

func TestUnitAttention_Order(t *testing.T) {
	f := newFixture(t)
	for range 3 {
		f.lu.establish(sense.ASCModeParametersChanged, nil)
		f.lu.establish(sense.ASCCapacityDataChanged, nil)
	}
	f.do(testUnitReady, nil).wantSense(t, sense.KeyUnitAttention, sense.ASCModeParametersChanged)
	f.do(testUnitReady, nil).wantSense(t, sense.KeyUnitAttention, sense.ASCCapacityDataChanged)
	f.do(testUnitReady, nil).wantStatus(t, StatusGood)
	for asc := range sense.ASC(1000) {
		f.lu.establish(asc, nil)
	}
	if n := len((*f.nexus.units.Load())[0].attentions); n != maxAttentions {
		t.Errorf("%d unit attentions queued, the bound is %d", n, maxAttentions)
	}
}

// A stop flushes, and stops nothing for anyone: initiators that share the unit do not
// know of it and never start it.
func TestStartStopUnit(t *testing.T) {
	f := newFixture(t)
	other := f.attach("iqn.2026-11.example.initiator:b")
	f.good(stopUnit, nil)
	if f.vol.flushes.Load() != 1 {
		t.Error("stopping did not flush")
	}
	for name, cdb := range map[string][]byte{
		"TEST UNIT READY": testUnitReady, "READ(10)": cdb10(0x28, 0, 0, 1), "WRITE(10)": cdb10(0x2A, 0, 0, 0),
		"VERIFY(10)": cdb10(0x2F, 0, 0, 1), "UNMAP": unmapCDB(0),
	} {
		t.Run(name, func(t *testing.T) {
			f.good(cdb, nil)
			f.on(other, cdb).wantStatus(t, StatusGood)
		})
	}
	f.good([]byte{0x1B, 0x01, 0, 0, 0x01, 0}, nil) // IMMED
	f.good([]byte{0x1B, 0, 0, 0, 0x04, 0}, nil)    // NO_FLUSH
	if f.vol.flushes.Load() != 1 {
		t.Error("NO_FLUSH flushed")
	}
	f.good(startUnit, nil)
	for name, cdb := range map[string][]byte{
		"LOEJ":            {0x1B, 0, 0, 0, 0x02, 0},
		"LOEJ, START":     {0x1B, 0, 0, 0, 0x03, 0},
		"power condition": {0x1B, 0, 0, 0, 0x30, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f.do(cdb, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
			f.good(testUnitReady, nil)
		})
	}
}

func TestReserve_Conflict(t *testing.T) {
	f := newFixture(t)
	other := f.attach("iqn.2026-11.example.initiator:b")
	conflict := func(cdb []byte) {
		t.Helper()
		f.on(other, cdb).wantStatus(t, StatusReservationConflict)
	}
	f.good(reserve6, nil)
	f.good(reserve6, nil)
	f.good(modeSense6(0x3F, 0, 255), nil)
	for _, cdb := range [][]byte{
		reserve6, testUnitReady, modeSense6(0x3F, 0, 255), cdb10(0x28, 0, 0, 1), cdb10(0x2A, 0, 0, 0),
		stopUnit, modeSelect6(nil), rsocCDB(0, 0, 0, 255), cdb10(0x35, 0, 0, 0),
	} {
		conflict(cdb)
	}
	for _, cdb := range [][]byte{
		inquiryCDB(0, 0, 96), reportLUNsCDB(0, 96), requestSense, release6, cdb10(0x25, 0, 0, 0), startUnit,
	} {
		f.on(other, cdb).wantStatus(t, StatusGood)
	}
	conflict(reserve6) // RELEASE(6) by the other did nothing
	f.good(release6, nil)
	f.on(other, reserve6).wantStatus(t, StatusGood)
	f.do(reserve6, nil).wantStatus(t, StatusReservationConflict)
	f.on(other, release6).wantStatus(t, StatusGood)

	for _, flags := range []byte{0x10, 0x01} { // third party, extent
		f.do([]byte{0x16, flags, 0, 0, 0, 0}, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	}
}

func TestReserve_NexusLoss(t *testing.T) {
	f := newFixture(t)
	other := f.attach("iqn.2026-11.example.initiator:b")
	var lost []*Nexus
	f.lu.OnNexusLoss(func(n *Nexus) { lost = append(lost, n) })
	f.good(reserve6, nil)
	f.target.Detach(f.nexus)
	if len(lost) != 1 || lost[0] != f.nexus {
		t.Errorf("nexus loss was reported as %v", lost)
	}
	f.on(other, reserve6).wantStatus(t, StatusGood)
	if f.target.HasLU(f.nexus, [8]byte{}) {
		t.Error("a nexus that ended still addresses LUN 0")
	}
	f.target.Detach(f.nexus) // no harm
}

func TestTarget_ResetLU(t *testing.T) {
	f := newFixture(t)
	other := f.attach("iqn.2026-11.example.initiator:b")
	resets := 0
	f.lu.OnReset(func() { resets++ })
	f.good(modeSelect6(cachingPage(0)), cachingPage(0))
	f.good(reserve6, nil)

	f.target.ResetLU(other, [8]byte{})
	f.target.ResetLU(other, [8]byte{0, 1}) // no such LUN

	if resets != 1 || f.lu.WriteThrough() {
		t.Error("mode parameters survived the reset")
	}
	f.do(testUnitReady, nil).wantSense(t, sense.KeyUnitAttention, sense.ASCBusDeviceResetFunction)
	f.do(testUnitReady, nil).wantStatus(t, StatusGood)
	f.on(other, testUnitReady).wantSense(t, sense.KeyUnitAttention, sense.ASCBusDeviceResetFunction)
	f.on(other, testUnitReady).wantSense(t, sense.KeyUnitAttention, sense.ASCModeParametersChanged)
	f.on(other, reserve6).wantStatus(t, StatusGood)
}

func TestTarget_TasksAborted(t *testing.T) {
	f := newFixture(t)
	other := f.attach("iqn.2026-11.example.initiator:b")
	f.target.TasksAborted(f.nexus, [8]byte{})
	f.good(testUnitReady, nil)
	f.on(other, testUnitReady).wantSense(t, sense.KeyUnitAttention, sense.ASCCommandsClearedByOther)
}

func TestCDB_NACA(t *testing.T) {
	f := newFixture(t)
	for _, cdb := range [][]byte{testUnitReady, cdb10(0x28, 0, 0, 1), reportLUNsCDB(0, 96), cdb16(0x88, 0, 0, 1)} {
		cdb = bytes.Clone(cdb)
		cdb[len(cdb)-1] = 0x04
		f.do(cdb, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	}
}

func TestCDB_Short(t *testing.T) {
	f := newFixture(t)
	f.do(cdb16(0x88, 0, 0, 1)[:15], nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	f.do([]byte{0}, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode)
	f.good(append(cdb10(0x28, 0, 0, 1), 0, 0, 0, 0, 0, 0), nil) // padded to 16, as iSCSI sends it
}

func TestCDB_UnknownServiceAction(t *testing.T) {
	f := newFixture(t)
	f.do(cdb16(0x9E, 0x1F, 0, 24), nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode)
}

func TestReadCapacity(t *testing.T) {
	f := newFixture(t)
	rc10 := cdb10(0x25, 0, 0, 0)
	wantHex(t, f.good(rc10, nil), "00000fff 00000200")
	wrong := cdb10(0x25, 0, 1, 0)
	f.do(wrong, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	wrong[8] = 1 // PMI
	f.good(wrong, nil)

	rc16 := func(n uint32) []byte { return cdb16(0x9E, 0x10, 0, n) }
	wantHex(t, f.good(rc16(32), nil), "0000000000000fff 00000200 00 03 c000 00000000 00000000 00000000 00000000")
	for n := range uint32(40) {
		if got := f.good(rc16(n), nil); len(got) != int(min(n, 32)) {
			t.Errorf("allocation length %d: %d bytes", n, len(got))
		}
	}
	full := newFixture(t, func(c *LUConfig) { c.Thin, c.LogicalBlockLength = false, 4096 })
	wantHex(t, full.good(rc16(16), nil), "00000000000001ff 00001000 00 00 0000")
	huge := newFixture(t, func(c *LUConfig) { c.Volume = hugeVolume{c.Volume} })
	wantHex(t, huge.good(rc10, nil), "ffffffff 00000200")
}

func TestNewLogicalUnit_Refused(t *testing.T) {
	vol := newMemVolume(4096)
	for name, c := range map[string]LUConfig{
		"no volume":             {},
		"block length 520":      {Volume: vol, LogicalBlockLength: 520},
		"less than a block":     {Volume: newMemVolume(511)},
		"long vendor":           {Volume: vol, VendorID: "123456789"},
		"product with newline":  {Volume: vol, ProductID: "a\nb"},
		"revision of 5":         {Volume: vol, Revision: "12345"},
		"vendor that is not 7b": {Volume: vol, VendorID: "Öd"},
	} {
		if _, err := NewLogicalUnit(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLogicalUnit_Install_Refused(t *testing.T) {
	f := newFixture(t)
	op := func(code byte) Operation {
		u := make([]byte, 16)
		u[0] = code
		return Operation{Name: "TEST", Usage: u, Execute: executeNoOp}
	}
	noExecute := op(0xC0)
	noExecute.Execute = nil
	for name, err := range map[string]error{
		"taken":                         f.lu.Install(0x28, NoServiceAction, op(0x28)),
		"action of a whole opcode":      f.lu.Install(0x28, 1, op(0x28)),
		"whole opcode with actions":     f.lu.Install(0x9E, NoServiceAction, op(0x9E)),
		"taken action":                  f.lu.Install(0x9E, 0x10, op(0x9E)),
		"action of more than five bits": f.lu.Install(0x9E, 32, op(0x9E)),
		"no Execute":                    f.lu.Install(0xC0, NoServiceAction, noExecute),
		"usage of another code":         f.lu.Install(0xC0, NoServiceAction, op(0xC1)),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := f.lu.Install(0x9E, 0x13, op(0x9E)); err != nil {
		t.Errorf("a free service action: %v", err)
	}
}
