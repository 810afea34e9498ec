package scsi

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"odx/target/scsi/sense"
)

// saving is MODE SELECT(6) with SP.
func saving(list []byte) []byte {
	cdb := modeSelect6(list)
	cdb[1] |= modeSelectSP
	return cdb
}

func withRecords(r Records) func(*LUConfig) { return func(c *LUConfig) { c.Records = r } }

// wce returns the WCE bit as current, default and saved value.
func (f *fixture) wce() (current, defaults, saved bool) {
	f.t.Helper()
	bit := func(control byte) bool { return f.good(modeSense6(control|0x08, 0, 255), nil)[12+2]&0x04 != 0 }
	return bit(0x00), bit(0x80), bit(0xC0)
}

func (f *fixture) wantWCE(current, defaults, saved bool) {
	f.t.Helper()
	if c, d, s := f.wce(); c != current || d != defaults || s != saved {
		f.t.Errorf("WCE current %t, default %t, saved %t; want %t, %t, %t", c, d, s, current, defaults, saved)
	}
}

// Saved values are what a reset and a restart give; others are not.
func TestModeSelect_SavedValues(t *testing.T) {
	records := memRecords{}
	f := newFixture(t, withRecords(records))
	other := f.attach("iqn.2026-11.example.initiator:b")
	f.wantWCE(true, true, true)
	f.good(modeSelect6(cachingPage(0)), cachingPage(0))
	f.wantWCE(false, true, true)
	f.on(other, testUnitReady).wantSense(t, sense.KeyUnitAttention, sense.ASCModeParametersChanged)
	f.target.ResetLU(f.nexus, [8]byte{})
	f.do(testUnitReady, nil).wantSense(t, sense.KeyUnitAttention, sense.ASCBusDeviceResetFunction)
	f.on(other, testUnitReady).wantSense(t, sense.KeyUnitAttention, sense.ASCBusDeviceResetFunction)
	f.wantWCE(true, true, true)
	if len(records) != 0 {
		t.Error("something was saved without SP")
	}

	// SP saves every page, as it is with the list.
	f.good(modeSelect6(controlPage(0x04, 0)), controlPage(0x04, 0))
	f.good(saving(cachingPage(0)), cachingPage(0))
	f.wantWCE(false, true, false)
	f.target.ResetLU(f.nexus, [8]byte{})
	f.do(testUnitReady, nil)
	f.wantWCE(false, true, false)

	again := newFixture(t, withRecords(records))
	again.wantWCE(false, true, false)
	if !again.lu.WriteThrough() || again.lu.senseFormat() != sense.Descriptor {
		t.Error("the saved values are reported, but not kept to")
	}
	again.good(saving(cachingPage(0x04)), cachingPage(0x04))
	again.wantWCE(true, true, true)
	newFixture(t, withRecords(records)).wantWCE(true, true, true)
}

// Pages that can be saved say so, and are accepted as they were read.
func TestModeSense_SavablePages(t *testing.T) {
	f := newFixture(t, withRecords(memRecords{}))
	for control := range byte(4) { // current, changeable, default, saved
		page := f.good(modeSense6(control<<6|0x0A, 0x01, 255), nil)[12:]
		wantHex(t, page[:4], "ca 01 001c")
	}
	all := f.good(modeSense6(0x3F, 0xFF, 255), nil)
	f.good(saving(all), all)
	f.good(saving(nil), nil)
	wantHex(t, f.good(modeSense6(0xFF, 0xFF, 255), nil), "73 00 10 08"+goldenDescriptor+
		"81"+goldenRecovery[2:]+"82"+goldenReconnect[2:]+"88"+goldenCaching[2:]+"8a"+goldenControl[2:]+"ca"+goldenControlExt[2:]+"9c"+goldenExceptions[2:])
}

// failingRecords keep nothing.
type failingRecords struct{}

func (failingRecords) Load(string) ([]byte, error) { return nil, nil }
func (failingRecords) Save(ctx context.Context, key string, value []byte) error {
	return errors.New("disk on fire")
}

// What cannot be saved does not change.
func TestModeSelect_SaveFails(t *testing.T) {
	f := newFixture(t, withRecords(failingRecords{}))
	if r := f.do(saving(cachingPage(0)), cachingPage(0)); r.status != StatusCheckCondition || r.key != sense.KeyHardwareError {
		t.Errorf("status %02Xh, %s", r.status, r.key)
	}
	f.wantWCE(true, true, true)
	f.do(saving(cachingPage(1)), cachingPage(1)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInParameterList)
}

// TestModeSelect_FieldPointer holds where the sense data points.
func TestModeSelect_FieldPointer(t *testing.T) {
	edit := func(list []byte, at int, to byte) []byte {
		list = bytes.Clone(list)
		list[at] = to
		return list
	}
	described := append([]byte{0, 0, 0, 8, 0, 0, 0x10, 0, 0, 0, 2, 0}, cachingPage(0)[4:]...)
	f := newFixture(t)
	for name, tt := range map[string]struct {
		list    []byte
		pointer string
	}{
		"descriptor length":     {edit(described, 3, 7), "80 0003"},
		"number of blocks":      {edit(described, 6, 0x20), "8f 0004"},
		"block length":          {edit(described, 10, 4), "8f 0009"},
		"page code":             {edit(cachingPage(0), 4, 0x19), "8d 0004"},
		"page length":           {edit(cachingPage(0), 5, 0x11), "80 0005"},
		"bit that stays":        {edit(cachingPage(0), 6, 1), "80 0006"},
		"QERR of the next page": {append(bytes.Clone(described), edit(controlPage(0, 0), 7, 0x12)[4:]...), "80 0023"},
	} {
		t.Run(name, func(t *testing.T) {
			r := f.do(modeSelect6(tt.list), tt.list)
			r.wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInParameterList)
			wantHex(t, r.sense[15:], tt.pointer)
		})
	}
	wantHex(t, f.do(saving(nil), nil).sense[15:], "c8 0001") // SP
}
