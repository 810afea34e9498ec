package scsi

import "testing"

// Numbers above 255 are understood in both addressing methods.
func TestDecodeLUN(t *testing.T) {
	for _, c := range []struct {
		lun    [8]byte
		number uint16
		ok     bool
	}{
		{[8]byte{}, 0, true},
		{[8]byte{0, 255}, 255, true},
		{[8]byte{1, 0}, 256, true}, // libiscsi
		{[8]byte{1, 44}, 300, true},
		{[8]byte{0x3f, 0xff}, 16383, true},
		{[8]byte{0x40, 5}, 5, true}, // flat space
		{[8]byte{0x41, 44}, 300, true},
		{[8]byte{0x7f, 0xff}, 16383, true},
		{[8]byte{0x80, 0}, 0, false}, // logical unit addressing
		{[8]byte{0xc1, 1}, 0, false}, // well known logical unit
		{[8]byte{1, 0, 0, 1}, 0, false},
		{[8]byte{0, 0, 0, 0, 0, 0, 0, 1}, 0, false},
	} {
		if number, ok := decodeLUN(c.lun); ok != c.ok || ok && number != c.number {
			t.Errorf("% x: %d, %v", c.lun, number, ok)
		}
	}
}
