package initiator

import (
	"encoding/binary"
	"errors"
	"testing"
)

// What sense data says, in either format and cut anywhere, and what it makes of a command.
func TestStatusError(t *testing.T) {
	const information = 0x12345678
	type verdict int
	const (
		fails     verdict = iota // the command has failed
		completes                // it has completed
		repeats                  // it is sent again
	)
	fixed := func(code, key byte, asc uint16) []byte {
		b := []byte{code | 0x80, 0, key, 0x12, 0x34, 0x56, 0x78, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint16(b[12:], asc)
		return b
	}
	descriptor := func(code, key byte, asc uint16) []byte {
		return append([]byte{code, key, byte(asc >> 8), byte(asc), 0, 0, 0, 16},
			2, 2, 0, 0, // another descriptor comes first
			0, 10, 0x80, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56, 0x78)
	}
	medium := SenseError{Key: 3, ASC: 0x1100, Information: information, InformationValid: true}
	for name, tt := range map[string]struct {
		sense []byte
		want  SenseError
		is    verdict
	}{
		"fixed":                      {fixed(0x70, 3, 0x1100), medium, fails},
		"descriptor":                 {descriptor(0x72, 3, 0x1100), medium, fails},
		"recovered, fixed":           {fixed(0x70, 1, 0x1701), SenseError{}, completes},
		"recovered, descriptor":      {descriptor(0x72, 1, 0x1701), SenseError{}, completes},
		"failure predicted":          {fixed(0x70, 1, 0x5d00), SenseError{}, completes},
		"recovered, only the key":    {[]byte{0x70, 0, 1}, SenseError{}, completes},
		"deferred, fixed":            {fixed(0x71, 3, 0x0c00), SenseError{Key: 3, ASC: 0x0c00, Deferred: true, Information: information, InformationValid: true}, fails},
		"deferred, descriptor":       {descriptor(0x73, 4, 0x0c00), SenseError{Key: 4, ASC: 0x0c00, Deferred: true, Information: information, InformationValid: true}, fails},
		"deferred and recovered":     {[]byte{0x73, 1, 0x0c, 1, 0, 0, 0, 0}, SenseError{Key: 1, ASC: 0x0c01, Deferred: true}, repeats},
		"unit attention":             {[]byte{0x72, 6, 0x29, 0, 0, 0, 0, 0}, SenseError{Key: 6, ASC: 0x2900}, repeats},
		"no sense":                   {[]byte{0x70, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, SenseError{}, repeats},
		"none":                       {nil, SenseError{}, repeats},
		"neither format":             {[]byte{0x7f, 3, 3, 3, 3, 3, 3, 3, 3}, SenseError{}, repeats},
		"fixed, only the key":        {[]byte{0x70, 0, 5}, SenseError{Key: 5}, fails},
		"fixed, without a code":      {fixed(0x70, 3, 0x1100)[:12], SenseError{Key: 3, Information: information, InformationValid: true}, fails},
		"fixed, length without code": {[]byte{0x70, 0, 3, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0x11, 0}, SenseError{Key: 3}, fails},
		"descriptor, only the code":  {[]byte{0x72, 5, 0x20, 0}, SenseError{Key: 5, ASC: 0x2000}, fails},
		"descriptor, only the key":   {[]byte{0x72, 5}, SenseError{Key: 5}, fails},
		"descriptor, cut":            {descriptor(0x72, 3, 0x1100)[:18], SenseError{Key: 3, ASC: 0x1100}, fails},
	} {
		err := statusError(statusCheckCondition, tt.sense)
		if (err == nil) != (tt.is == completes) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			continue
		}
		got, ok := errors.AsType[*SenseError](err)
		if !ok || *got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, err, tt.want)
			continue
		}
		if got.repeat() != (tt.is == repeats) {
			t.Errorf("%s: sent again: %t", name, got.repeat())
		}
		if got.Deferred && refusal(err) != nil {
			t.Errorf("%s: an error of an earlier command is taken for a refusal of this one", name)
		}
	}
	if refusal(statusError(statusCheckCondition, []byte{0x73, KeyIllegalRequest, 0x20, 0})) != nil {
		t.Error("an error of an earlier command is taken for a refusal of this one")
	}
	if _, ok := errors.AsType[*StatusError](statusError(0x18, nil)); !ok || statusError(statusGood, nil) != nil {
		t.Error("a status")
	}
}

// How much of a command was moved is what both the transport and the residual count say.
func TestTask_Residual(t *testing.T) {
	for name, tt := range map[string]struct {
		bits            byte
		residual        uint32
		in, out, filled int
		want            int
	}{
		"all of a read":        {0, 77, 1024, 0, 1024, 1024}, // the field is not valid
		"underflow":            {bitUnderflow, 512, 1024, 0, 512, 512},
		"underflow after all":  {bitUnderflow, 512, 1024, 0, 1024, 512},
		"more than was read":   {bitUnderflow, 4096, 1024, 0, 1024, 0},
		"overflow of a read":   {bitOverflow, 512, 1024, 0, 1024, 1024},
		"all of a write":       {0, 0, 0, 1024, 1024, 1024},
		"underflow of a write": {bitUnderflow, 512, 0, 1024, 1024, 512},
		"overflow of a write":  {bitOverflow, 512, 0, 1024, 1024, 512},
	} {
		h := &header{1: bitFinal | tt.bits}
		h.put32(44, tt.residual)
		k := &task{Command: &Command{In: make([]byte, tt.in), Out: make([]byte, tt.out)}}
		k.noteResidual(h)
		if got := k.moved(tt.filled, tt.in+tt.out); got != tt.want {
			t.Errorf("%s: %d bytes, want %d", name, got, tt.want)
		}
	}
}
