package scsi

import (
	"encoding/binary"
	"slices"
	"testing"

	"odx/target/scsi/sense"
)

func modeSense6(page, subpage, length byte) []byte { return []byte{0x1A, 0, page, subpage, length, 0} }

func modeSense10(flags, page, subpage byte, length uint16) []byte {
	return []byte{0x5A, flags, page, subpage, 0, 0, 0, byte(length >> 8), byte(length), 0}
}

// modeSelect6 is the CDB for a parameter list.
func modeSelect6(list []byte) []byte { return []byte{0x15, 0x10, 0, 0, byte(len(list)), 0} }

func modeSelect10(list []byte) []byte {
	return []byte{0x55, 0x10, 0, 0, 0, 0, 0, byte(len(list) >> 8), byte(len(list)), 0}
}

// cachingPage and controlPage are parameter lists without block descriptor for
// MODE SELECT(6).
func cachingPage(byte2 byte) []byte {
	p := make([]byte, 4+20)
	p[4], p[5], p[6] = 0x08, 0x12, byte2
	return p
}

func controlPage(byte2, byte4 byte) []byte {
	return []byte{0, 0, 0, 0, 0x0A, 0x0A, 0x02 | byte2, 0x10, byte4, 0, 0, 0, 0xFF, 0xFF, 0, 0}
}

const (
	goldenRecovery    = "01 0a c0 00 00 00 00 00 0000 0000"
	goldenReconnect   = "02 0e 0000 0000 0000 0000 0000 00 00 0000"
	goldenCaching     = "08 12 04 00 0000 0000 0000 0000 00 00 0000 00 000000"
	goldenControl     = "0a 0a 02 10 00 00 0000 ffff 0000"
	goldenControlExt  = "4a 01 001c 00000000 00000000 00000000 00000000 00000000 00000000 00000000"
	goldenExceptions  = "1c 0a 08 00 00000000 00000000"
	goldenDescriptor  = "00001000 00 000200"
	goldenAllPages    = goldenRecovery + goldenReconnect + goldenCaching + goldenControl + goldenExceptions
	goldenAllSubpages = goldenRecovery + goldenReconnect + goldenCaching + goldenControl + goldenControlExt + goldenExceptions
)

func TestModeSense(t *testing.T) {
	f := newFixture(t)
	tests := []struct {
		name string
		cdb  []byte
		want string
	}{
		{"(6) caching", modeSense6(0x08, 0, 255), "1f 00 10 08" + goldenDescriptor + goldenCaching},
		{"(6) caching, no descriptor", []byte{0x1A, 0x08, 0x08, 0, 255, 0}, "17 00 10 00" + goldenCaching},
		{"(6) control", modeSense6(0x0A, 0, 255), "17 00 10 08" + goldenDescriptor + goldenControl},
		{"(6) control extension", modeSense6(0x0A, 1, 255), "2b 00 10 08" + goldenDescriptor + goldenControlExt},
		{"(6) control and subpages", modeSense6(0x0A, 0xFF, 255), "37 00 10 08" + goldenDescriptor + goldenControl + goldenControlExt},
		{"(6) all pages", modeSense6(0x3F, 0, 255), "53 00 10 08" + goldenDescriptor + goldenAllPages},
		{"(6) all pages and subpages", modeSense6(0x3F, 0xFF, 255), "73 00 10 08" + goldenDescriptor + goldenAllSubpages},
		{"(6) header only", modeSense6(0x3F, 0, 4), "53 00 10 08"},
		{"(6) caching, changeable", modeSense6(0x48, 0, 255), "1f 00 10 08" + goldenDescriptor + "08 12 04 00 0000 0000 0000 0000 00 00 0000 00 000000"},
		{"(6) control, changeable", modeSense6(0x4A, 0, 255), "17 00 10 08" + goldenDescriptor + "0a 0a 04 00 08 40 0000 0000 0000"},
		{"(6) caching, default", modeSense6(0x88, 0, 255), "1f 00 10 08" + goldenDescriptor + goldenCaching},
		{"(10) caching", modeSense10(0, 0x08, 0, 255), "0022 00 10 00 00 0008" + goldenDescriptor + goldenCaching},
		{"(10) long LBA", modeSense10(0x10, 0x08, 0, 255), "002a 00 10 01 00 0010 0000000000001000 00000000 00000200" + goldenCaching},
		{"(10) no descriptor", modeSense10(0x18, 0x08, 0, 255), "001a 00 10 00 00 0000" + goldenCaching},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantHex(t, f.good(tt.cdb, nil), tt.want) })
	}
	f.do(modeSense6(0xC8, 0, 255), nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCSavingParametersNotSupported)
	for _, cdb := range [][]byte{
		modeSense6(0x00, 0, 255), modeSense6(0x19, 0, 255), modeSense6(0x08, 1, 255), modeSense6(0x3F, 1, 255), modeSense10(0, 0x1D, 0xFF, 255),
	} {
		f.do(cdb, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	}
}

func TestModeSense_LargeCapacity(t *testing.T) {
	f := newFixture(t, func(c *LUConfig) { c.Volume = hugeVolume{c.Volume} })
	if d := f.good(modeSense6(0x08, 0, 12), nil); binary.BigEndian.Uint32(d[4:]) != 0xFFFFFFFF {
		t.Errorf("number of blocks % x, want all ones", d[4:8])
	}
	if d := f.good(modeSense10(0x10, 0x08, 0, 24), nil); binary.BigEndian.Uint64(d[8:]) != 64<<31 {
		t.Errorf("long number of blocks % x", d[8:16])
	}
}

func TestModeSelect_WriteCache(t *testing.T) {
	f := newFixture(t)
	f.good(modeSelect6(cachingPage(0)), cachingPage(0))
	if !f.lu.WriteThrough() {
		t.Error("WCE=0 had no effect")
	}
	if f.vol.flushes.Load() != 1 {
		t.Error("what the cache held when it was turned off was not flushed")
	}
	if d := f.good(modeSense6(0x08, 0, 255), nil); d[12+2]&0x04 != 0 {
		t.Error("WCE is still reported")
	}
	if d := f.good(modeSense6(0x88, 0, 255), nil); d[12+2]&0x04 == 0 {
		t.Error("the default value changed")
	}
	f.good(modeSelect6(cachingPage(4)), cachingPage(4))
	if f.lu.WriteThrough() {
		t.Error("WCE=1 had no effect")
	}
}

func TestModeSelect_SenseFormat(t *testing.T) {
	f := newFixture(t)
	read := cdb16(0x88, 0, 1<<63, 1)
	wantHex(t, f.do(read, nil).sense, "70 00 05 00000000 0a 00000000 2100 00 000000")
	f.good(modeSelect6(controlPage(0x04, 0)), controlPage(0x04, 0))
	wantHex(t, f.do(read, nil).sense, "72 05 2100 000000 00")
	wantHex(t, f.do(cdb16(0x88, 0x20, 0, 1), nil).sense, "72 05 2400 000000 08  02 06 0000 cf 0001 00")
}

func TestModeSelect_SoftwareWriteProtection(t *testing.T) {
	f := newFixture(t)
	f.good(modeSelect6(controlPage(0, 0x08)), controlPage(0, 0x08))
	if d := f.good(modeSense6(0x0A, 0, 255), nil); d[2] != 0x90 || d[12+4] != 0x08 {
		t.Errorf("device-specific parameter %02Xh, control byte 4 %02Xh; want WP and SWP", d[2], d[12+4])
	}
	f.good(cdb10(0x28, 0, 0, 1), nil)
	f.do(cdb10(0x2A, 0, 0, 1), make([]byte, 512)).wantSense(t, sense.KeyDataProtect, sense.ASCSoftwareWriteProtected)
	f.good(modeSelect6(controlPage(0, 0)), controlPage(0, 0))
	f.good(cdb10(0x2A, 0, 0, 1), make([]byte, 512))
}

func TestLogicalUnit_ReadOnly(t *testing.T) {
	f := newFixture(t, func(c *LUConfig) { c.ReadOnly = true })
	if d := f.good(modeSense6(0x08, 0, 4), nil); d[2] != 0x90 {
		t.Errorf("device-specific parameter %02Xh, want WP and DPOFUA", d[2])
	}
	for name, cdb := range map[string][]byte{
		"WRITE(6)": cdb6(0x0A, 0, 1), "WRITE(10)": cdb10(0x2A, 0, 0, 1), "WRITE(12)": cdb12(0xAA, 0, 0, 1), "WRITE(16)": cdb16(0x8A, 0, 0, 1),
		"WRITE AND VERIFY(10)": cdb10(0x2E, 0, 0, 1), "WRITE AND VERIFY(12)": cdb12(0xAE, 0, 0, 1), "WRITE AND VERIFY(16)": cdb16(0x8E, 0, 0, 1),
		"WRITE SAME(10)": cdb10(0x41, 0, 0, 1), "WRITE SAME(16)": cdb16(0x93, 0, 0, 1),
		"WRITE SAME(10), UNMAP, no data": cdb10(0x41, 0x08, 0, 1),
		"COMPARE AND WRITE":              compareAndWriteCDB(0, 0, 1), "UNMAP": unmapCDB(24),
	} {
		t.Run(name, func(t *testing.T) { f.do(cdb, nil).wantSense(t, sense.KeyDataProtect, sense.ASCWriteProtected) })
	}
	f.good(cdb10(0x28, 0, 0, 1), nil)
	f.good(cdb10(0x35, 0, 0, 0), nil)
}

func TestModeSelect_ModeSenseData(t *testing.T) {
	f := newFixture(t)
	six := f.good(modeSense6(0x3F, 0xFF, 255), nil)
	f.good(modeSelect6(six), six)
	ten := f.good(modeSense10(0, 0x3F, 0xFF, 255), nil)
	f.good(modeSelect10(ten), ten)
	long := f.good(modeSense10(0x10, 0x3F, 0xFF, 255), nil)
	f.good(modeSelect10(long), long)
	f.good(modeSelect6(nil), nil)
	f.good(modeSelect10(nil), nil)
}

func TestModeSelect_Refused(t *testing.T) {
	edit := func(list []byte, at int, to byte) []byte {
		list = slices.Clone(list)
		list[at] = to
		return list
	}
	wce0 := cachingPage(0)
	described := append([]byte{0, 0, 0, 8, 0, 0, 0x10, 0, 0, 0, 2, 0}, wce0[4:]...)
	tests := []struct {
		name string
		list []byte
		want sense.ASC
	}{
		{"header cut", wce0[:3], sense.ASCParameterListLengthError},
		{"page header cut", wce0[:5], sense.ASCParameterListLengthError},
		{"page cut", wce0[:23], sense.ASCParameterListLengthError},
		{"subpage header cut", []byte{0, 0, 0, 0, 0x4A, 1, 0}, sense.ASCParameterListLengthError},
		{"block descriptor cut", described[:11], sense.ASCParameterListLengthError},
		{"block descriptor of 7 bytes", edit(described, 3, 7), sense.ASCInvalidFieldInParameterList},
		{"other capacity", edit(described, 6, 0x20), sense.ASCInvalidFieldInParameterList},
		{"other block length", edit(described, 10, 0x10), sense.ASCInvalidFieldInParameterList},
		{"unknown page", edit(wce0, 4, 0x19), sense.ASCInvalidFieldInParameterList},
		{"unknown subpage", []byte{0, 0, 0, 0, 0x48, 1, 0, 0}, sense.ASCInvalidFieldInParameterList},
		{"all pages", edit(wce0, 4, 0x3F), sense.ASCInvalidFieldInParameterList},
		{"page length", edit(wce0, 5, 0x11), sense.ASCInvalidFieldInParameterList},
		{"bit that cannot change", edit(wce0, 6, 0x01), sense.ASCInvalidFieldInParameterList},
		{"good page, then a bad one", append(slices.Clone(wce0), edit(controlPage(0, 0), 7, 0x20)[4:]...), sense.ASCInvalidFieldInParameterList},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.do(modeSelect6(tt.list), tt.list).wantSense(t, sense.KeyIllegalRequest, tt.want)
			if f.lu.WriteThrough() {
				t.Error("a parameter list with an error changed a parameter")
			}
		})
	}
	f := newFixture(t)
	for _, flags := range []byte{0x00, 0x11} { // no PF; SP
		cdb := modeSelect6(wce0)
		cdb[1] = flags
		f.do(cdb, wce0).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	}
}

func TestModeSelect_Capacity(t *testing.T) {
	f := newFixture(t)
	for _, blocks := range [][]byte{{0, 0, 0, 0}, {0xFF, 0xFF, 0xFF, 0xFF}} {
		list := append(append([]byte{0, 0, 0, 8}, blocks...), 0, 0, 2, 0)
		f.good(modeSelect6(list), list)
	}
}

func TestModeSelect_UnitAttention(t *testing.T) {
	f := newFixture(t)
	other := f.attach("iqn.2026-11.example.initiator:b")
	tur := []byte{0, 0, 0, 0, 0, 0}
	f.good(modeSelect6(cachingPage(4)), cachingPage(4))
	f.on(other, tur).wantStatus(t, StatusGood) // nothing changed
	f.good(modeSelect6(cachingPage(0)), cachingPage(0))
	f.do(tur, nil).wantStatus(t, StatusGood)
	f.on(other, tur).wantSense(t, sense.KeyUnitAttention, sense.ASCModeParametersChanged)
	f.on(other, tur).wantStatus(t, StatusGood)
}
