package scsi

import (
	"bytes"
	"encoding/binary"
	"testing"

	"odx/target/scsi/sense"
)

func reportLUNsCDB(selectReport byte, length uint32) []byte {
	c := make([]byte, 12)
	c[0], c[2] = 0xA0, selectReport
	binary.BigEndian.PutUint32(c[6:], length)
	return c
}

func TestReportLUNs(t *testing.T) {
	f := newFixture(t)
	for _, lun := range []uint16{3, 255, 256, 16383} {
		lu, err := NewLogicalUnit(LUConfig{Volume: newMemVolume(4096)})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.target.AddLU(lun, lu); err != nil {
			t.Fatal(err)
		}
	}
	// REPORT LUNS is answered, and takes the news away, although LUN 0 has
	// REPORTED LUNS DATA HAS CHANGED pending.
	wantHex(t, f.good(reportLUNsCDB(0, 1024), nil), `
		00000028 00000000
		0000000000000000 0003000000000000 00ff000000000000 4100000000000000 7fff000000000000`)
	f.do([]byte{0, 0, 0, 0, 0, 0}, nil).wantStatus(t, StatusGood)

	wantHex(t, f.good(reportLUNsCDB(1, 1024), nil), "00000000 00000000")
	if got := f.good(reportLUNsCDB(2, 16), nil); len(got) != 16 || got[3] != 0x28 {
		t.Errorf("allocation length 16: % x; the length field must tell the whole list", got)
	}
	f.do(reportLUNsCDB(0, 15), nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	f.do(reportLUNsCDB(3, 1024), nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
}

func TestTarget_AddLU_Refused(t *testing.T) {
	f := newFixture(t)
	other, err := NewLogicalUnit(LUConfig{Volume: newMemVolume(4096)})
	if err != nil {
		t.Fatal(err)
	}
	if f.target.AddLU(0, other) == nil {
		t.Error("a LUN that is taken was accepted")
	}
	if f.target.AddLU(16384, other) == nil {
		t.Error("a LUN beyond flat space addressing was accepted")
	}
	if f.target.AddLU(1, f.lu) == nil {
		t.Error("the same logical unit was accepted under a second LUN")
	}
}

func rsocCDB(options, code byte, action uint16, length uint32) []byte {
	c := make([]byte, 12)
	c[0], c[1], c[2], c[3] = 0xA3, 0x0C, options, code
	binary.BigEndian.PutUint16(c[4:], action)
	binary.BigEndian.PutUint32(c[6:], length)
	return c
}

func TestReportOperationCodes_All(t *testing.T) {
	f := newFixture(t)
	wantHex(t, f.good(rsocCDB(0, 0, 0, 65535), nil), rsocGolden)
}

// rsocGolden is the whole list of a thin logical unit whose volume can compare
// and write.
const rsocGolden = `
		000001f8
		00 00 0000 00 00 0006 # TEST UNIT READY
		03 00 0000 00 00 0006 # REQUEST SENSE
		04 00 0000 00 00 0006 # FORMAT UNIT
		08 00 0000 00 00 0006 # READ(6)
		0a 00 0000 00 00 0006 # WRITE(6)
		12 00 0000 00 00 0006 # INQUIRY
		15 00 0000 00 00 0006 # MODE SELECT(6)
		16 00 0000 00 00 0006 # RESERVE(6)
		17 00 0000 00 00 0006 # RELEASE(6)
		1a 00 0000 00 00 0006 # MODE SENSE(6)
		1b 00 0000 00 00 0006 # START STOP UNIT
		1d 00 0000 00 00 0006 # SEND DIAGNOSTIC
		1e 00 0000 00 00 0006 # PREVENT ALLOW MEDIUM REMOVAL
		25 00 0000 00 00 000a # READ CAPACITY(10)
		28 00 0000 00 00 000a # READ(10)
		2a 00 0000 00 00 000a # WRITE(10)
		2e 00 0000 00 00 000a # WRITE AND VERIFY(10)
		2f 00 0000 00 00 000a # VERIFY(10)
		34 00 0000 00 00 000a # PRE-FETCH(10)
		35 00 0000 00 00 000a # SYNCHRONIZE CACHE(10)
		37 00 0000 00 00 000a # READ DEFECT DATA(10)
		41 00 0000 00 00 000a # WRITE SAME(10)
		42 00 0000 00 00 000a # UNMAP
		48 00 0002 00 01 000a # SANITIZE, BLOCK ERASE
		48 00 001f 00 01 000a # SANITIZE, EXIT FAILURE MODE
		55 00 0000 00 00 000a # MODE SELECT(10)
		56 00 0000 00 00 000a # RESERVE(10)
		57 00 0000 00 00 000a # RELEASE(10)
		5a 00 0000 00 00 000a # MODE SENSE(10)
		5e 00 0000 00 01 000a # PERSISTENT RESERVE IN, READ KEYS
		5e 00 0001 00 01 000a # PERSISTENT RESERVE IN, READ RESERVATION
		5e 00 0002 00 01 000a # PERSISTENT RESERVE IN, REPORT CAPABILITIES
		5e 00 0003 00 01 000a # PERSISTENT RESERVE IN, READ FULL STATUS
		5f 00 0000 00 01 000a # PERSISTENT RESERVE OUT, REGISTER
		5f 00 0001 00 01 000a # PERSISTENT RESERVE OUT, RESERVE
		5f 00 0002 00 01 000a # PERSISTENT RESERVE OUT, RELEASE
		5f 00 0003 00 01 000a # PERSISTENT RESERVE OUT, CLEAR
		5f 00 0004 00 01 000a # PERSISTENT RESERVE OUT, PREEMPT
		5f 00 0005 00 01 000a # PERSISTENT RESERVE OUT, PREEMPT AND ABORT
		5f 00 0006 00 01 000a # PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY
		5f 00 0007 00 01 000a # PERSISTENT RESERVE OUT, REGISTER AND MOVE
		88 00 0000 00 00 0010 # READ(16)
		89 00 0000 00 00 0010 # COMPARE AND WRITE
		8a 00 0000 00 00 0010 # WRITE(16)
		8b 00 0000 00 00 0010 # ORWRITE(16)
		8e 00 0000 00 00 0010 # WRITE AND VERIFY(16)
		8f 00 0000 00 00 0010 # VERIFY(16)
		90 00 0000 00 00 0010 # PRE-FETCH(16)
		91 00 0000 00 00 0010 # SYNCHRONIZE CACHE(16)
		93 00 0000 00 00 0010 # WRITE SAME(16)
		9c 00 0000 00 00 0010 # WRITE ATOMIC(16)
		9e 00 0010 00 01 0010 # READ CAPACITY(16)
		9e 00 0012 00 01 0010 # GET LBA STATUS
		a0 00 0000 00 00 000c # REPORT LUNS
		a3 00 000a 00 01 000c # REPORT TARGET PORT GROUPS
		a3 00 000c 00 01 000c # REPORT SUPPORTED OPERATION CODES
		a3 00 000d 00 01 000c # REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
		a4 00 000a 00 01 000c # SET TARGET PORT GROUPS
		a8 00 0000 00 00 000c # READ(12)
		aa 00 0000 00 00 000c # WRITE(12)
		ae 00 0000 00 00 000c # WRITE AND VERIFY(12)
		af 00 0000 00 00 000c # VERIFY(12)
		b7 00 0000 00 00 000c # READ DEFECT DATA(12)`

func TestReportOperationCodes_One(t *testing.T) {
	f := newFixture(t)
	tests := map[string]struct {
		cdb  []byte
		want string
	}{
		"READ(10)":                   {rsocCDB(1, 0x28, 0, 255), "00 03 000a  28 18 ffffffff 00 ffff 04"},
		"WRITE SAME(16), either":     {rsocCDB(3, 0x93, 0, 255), "00 03 0010  93 09 ffffffffffffffff ffffffff 00 04"},
		"READ CAPACITY(16)":          {rsocCDB(2, 0x9E, 0x10, 255), "00 03 0010  9e 10 0000000000000000 ffffffff 00 04"},
		"GET LBA STATUS":             {rsocCDB(2, 0x9E, 0x12, 255), "00 03 0010  9e 12 ffffffffffffffff ffffffff 00 04"},
		"action that is not there":   {rsocCDB(2, 0x9E, 0x1F, 255), "00 01 0000"},
		"REASSIGN BLOCKS, not there": {rsocCDB(1, 0x07, 0, 255), "00 01 0000"},
		"SANITIZE, BLOCK ERASE":      {rsocCDB(2, 0x48, 0x02, 255), "00 03 000a  48 a2 00 0000 0000 ffff 04"},
		"WRITE ATOMIC(16)":           {rsocCDB(1, 0x9C, 0, 255), "00 03 0010  9c 18 ffffffffffffffff 0000 ffff 00 04"},
		"READ DEFECT DATA(12)":       {rsocCDB(1, 0xB7, 0, 255), "00 03 000c  b7 1f 00000000 ffffffff 00 04"},
		"no such code with action":   {rsocCDB(2, 0xC0, 1, 255), "00 01 0000"},
		"action of more than 5 bits": {rsocCDB(2, 0x9E, 0x110, 255), "00 01 0000"},
		"with timeouts":              {rsocCDB(0x81, 0x00, 0, 255), "00 83 0006  00 00 00 00 00 04  000a 00 00 00000000 00000000"},
		"cut":                        {rsocCDB(1, 0x28, 0, 5), "00 03 000a 28"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { wantHex(t, f.good(tt.cdb, nil), tt.want) })
	}
	for name, cdb := range map[string][]byte{
		"code with service actions asked without": rsocCDB(1, 0x9E, 0x10, 255),
		"code without service action asked with":  rsocCDB(2, 0x28, 0, 255),
		"reserved option":                         rsocCDB(4, 0x28, 0, 255),
	} {
		t.Run(name, func(t *testing.T) {
			f.do(cdb, nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
		})
	}
}

func TestReportOperationCodes_Timeouts(t *testing.T) {
	f := newFixture(t)
	plain := f.good(rsocCDB(0, 0, 0, 65535), nil)
	timed := f.good(rsocCDB(0x80, 0, 0, 65535), nil)
	n := (len(plain) - 4) / 8
	if len(timed) != 4+n*20 {
		t.Fatalf("%d bytes for %d commands, want 20 for each", len(timed), n)
	}
	for i := range n {
		d := timed[4+i*20:]
		if d[5]&0x02 == 0 || !bytes.Equal(d[8:10], []byte{0, 10}) {
			t.Errorf("command %02Xh: no command timeouts descriptor: % x", d[0], d[:20])
		}
	}
}

// What is reported is what runs: every operation code that is not in the list
// ends with INVALID COMMAND OPERATION CODE, and every one in it does not.
func TestReportOperationCodes_Executable(t *testing.T) {
	f := newFixture(t)
	list := f.good(rsocCDB(0, 0, 0, 65535), nil)[4:]
	reported := make(map[byte]bool)
	for ; len(list) >= 8; list = list[8:] {
		reported[list[0]] = true
	}
	for code := range 256 {
		cdb := make([]byte, 16)
		cdb[0] = byte(code)
		if actions := f.lu.opcodes[code].actions; actions != nil {
			for action, op := range actions {
				if op != nil {
					cdb[1] = byte(action)
				}
			}
		}
		r := f.do(cdb, nil)
		unknown := r.asc == sense.ASCInvalidCommandOperationCode
		if unknown == reported[byte(code)] {
			t.Errorf("operation code %02Xh: reported %t, sense %s", code, reported[byte(code)], r.asc)
		}
	}
}

func TestReportTMFs(t *testing.T) {
	f := newFixture(t)
	cdb := make([]byte, 12)
	cdb[0], cdb[1], cdb[9] = 0xA3, 0x0D, 16
	wantHex(t, f.good(cdb, nil), "d8 00 00 00")
	cdb[2] = 0x80
	wantHex(t, f.good(cdb, nil), "d8 00 00 0c 000000000000000000000000")
}
