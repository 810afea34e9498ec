package sense

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// TestError_AppendSense compares sense data with SPC-4 r37 4.5.2 and 4.5.3, in both formats.
func TestError_AppendSense(t *testing.T) {
	forwarded := New(KeyCopyAborted, 0x0D01)
	forwarded.Forwarded = &Forwarded{Destination: true, Status: 0x02, Sense: New(KeyNotReady, ASCLogicalUnitNotReady)}
	deferred := New(KeyMediumError, ASCUnrecoveredReadError)
	deferred.Deferred = true
	for name, tt := range map[string]struct {
		err               *Error
		fixed, descriptor string
	}{
		"plain":                   {New(KeyUnitAttention, ASCPowerOnOrReset), "70 00 06 00000000 0a 00000000 2900 00 000000", "72 06 2900 000000 00"},
		"deferred":                {deferred, "71 00 03 00000000 0a 00000000 1100 00 000000", "73 03 1100 000000 00"},
		"information":             {New(KeyMiscompare, ASCMiscompareDuringVerify).WithInformation(7), "f0 00 0e 00000007 0a 00000000 1d00 00 000000", "72 0e 1d00 000000 0c 00 0a 80 00 0000000000000007"},
		"information of 33 bits":  {New(KeyMediumError, ASCUnrecoveredReadError).WithInformation(1 << 32), "70 00 03 00000000 0a 00000000 1100 00 000000", "72 03 1100 000000 0c 00 0a 80 00 0000000100000000"},
		"field in the CDB":        {InvalidFieldInCDB(1, 4), "70 00 05 00000000 0a 00000000 2400 00 cc0001", "72 05 2400 000000 08 02 06 0000 cc 0001 00"},
		"field in the list":       {InvalidFieldInParameterList(9, WholeField), "70 00 05 00000000 0a 00000000 2600 00 800009", "72 05 2600 000000 08 02 06 0000 80 0009 00"},
		"of the copy destination": {forwarded, "70 00 0a 00000000 1d 00120000 0d01 00 000000 02 70 00 02 00000000 0a 00000000 0400 00 000000", "72 0a 0d01 000000 0c 0c 0a 02 02 72 02 0400 000000 00"},
	} {
		for format, want := range map[Format]string{Fixed: tt.fixed, Descriptor: tt.descriptor} {
			if got := hex.EncodeToString(tt.err.AppendSense(nil, format)); got != strings.ReplaceAll(want, " ", "") {
				t.Errorf("%s, format %02Xh: %s, want %s", name, byte(format), got, want)
			}
		}
	}
}

// The cause is there for the log, and for who decides by it.
func TestError_Unwrap(t *testing.T) {
	cause := errors.New("disk on fire")
	err := New(KeyMediumError, ASCUnrecoveredReadError)
	err.Err = cause
	if !errors.Is(err, cause) || err.Error() != "MEDIUM ERROR, ASC/ASCQ 11h/00h: disk on fire" {
		t.Errorf("%v", err)
	}
}
