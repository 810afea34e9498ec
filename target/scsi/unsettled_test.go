package scsi

import (
	"errors"
	"fmt"
	"testing"

	"odx/blockdev"
	"odx/target/scsi/sense"
)

// Commands that may have changed something fail when that can be lost with the process,
// with the sense data of the cause; others keep their end.
func TestTask_Unsettled(t *testing.T) {
	full := fmt.Errorf("write journal: %w", blockdev.ErrNoSpace)
	block := make([]byte, 512)
	unmap := make([]byte, 24)
	unmap[1], unmap[3], unmap[19] = 22, 16, 1
	for _, c := range []struct {
		name  string
		cdb   string
		out   []byte
		fails bool
	}{
		{"WRITE(10)", "2a 00 00000001 00 0001 00", block, true},
		{"WRITE SAME(10)", "41 00 00000001 00 0001 00", block, true},
		{"UNMAP", "42 00 00000000 00 0018 00", unmap, true},
		{"SYNCHRONIZE CACHE(10)", "35 00 00000000 00 0000 00", nil, true},
		{"PERSISTENT RESERVE OUT", "5f 00 00 00 00 00 00 0018 00", make([]byte, 24), true},
		{"MODE SELECT(6)", "15 10 00 00 00 00", nil, true},
		{"READ(10)", "28 00 00000001 00 0001 00", nil, false},
		{"TEST UNIT READY", "00 00 00 00 00 00", nil, false},
		{"INQUIRY", "12 00 00 00 24 00", nil, false},
		{"READ CAPACITY(10)", "25 00 00000000 00 0000 00", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			r := f.run(request{nexus: f.nexus, cdb: unhex(t, c.cdb), out: c.out, expectedOut: -1, unsettled: full})
			if !c.fails {
				r.wantStatus(t, StatusGood)
				return
			}
			r.wantSense(t, sense.KeyDataProtect, sense.ASCSpaceAllocationFailed)
			r = f.run(request{nexus: f.nexus, cdb: unhex(t, c.cdb), out: c.out, expectedOut: -1, unsettled: errors.New("I/O error")})
			r.wantSense(t, sense.KeyHardwareError, sense.ASCInternalTargetFailure)
		})
	}
	f := newFixture(t)
	r := f.run(request{nexus: f.nexus, cdb: unhex(t, "2a 00 ffffffff 00 0001 00"), out: block, expectedOut: -1, unsettled: full})
	r.wantSense(t, sense.KeyIllegalRequest, sense.ASCLBAOutOfRange)
}
