package scsi

import (
	"errors"
	"testing"

	"odx/target/scsi/sense"
)

func TestSendDiagnostic(t *testing.T) {
	f := newFixture(t)
	f.good([]byte{0x1D, 0x04, 0, 0, 0, 0}, nil) // SELFTEST
	f.good([]byte{0x1D, 0x10, 0, 0, 0, 0}, nil) // PF, no page
	for name, cdb := range map[string][]byte{
		"background self-test": {0x1D, 0x20, 0, 0, 0, 0},
		"a diagnostic page":    {0x1D, 0x10, 0, 0, 4, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f.do(cdb, make([]byte, 4)).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
		})
	}
	f.vol.setError(errors.New("broken"))
	f.do([]byte{0x1D, 0x04, 0, 0, 0, 0}, nil).wantSense(t, sense.KeyHardwareError, sense.ASCInternalTargetFailure)
}
