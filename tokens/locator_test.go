package tokens

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"odx/blockdev"
)

func exampleLocator() *locator {
	l := &locator{volume: [16]byte{1, 2, 3}, expires: time.Unix(1_800_000_000, 0), ranges: []blockdev.Range{{Offset: 4096, Length: 1 << 20}, {Offset: 512, Length: 512}}}
	l.setAccess(AccessInitiator, "iqn.a")
	return l
}

func TestLocator_Layout(t *testing.T) {
	p := exampleLocator().encode()
	golden(t, "locator.hex", p[:])
	s, tok := exampleSealer(), exampleToken()
	sealed := p
	s.maskLocator(tok, &sealed)
	if bytes.Equal(sealed[:], p[:]) {
		t.Error("the locator can be read")
	}
	s.maskLocator(tok, &sealed)
	if sealed != p {
		t.Error("the mask does not undo itself")
	}
	other := *tok
	other[offID]++
	s.maskLocator(&other, &sealed)
	if sealed == p {
		t.Error("two tokens have one mask")
	}
}

// FuzzLocator: what decodes is inside bounds and encodes to the same again; what
// does not gives a typed error.
func FuzzLocator(f *testing.F) {
	p := exampleLocator().encode()
	f.Add(p[:], int64(1<<20+512))
	f.Add([]byte{}, int64(0))
	f.Add(bytes.Repeat([]byte{0xFF}, locatorLength), int64(-1))
	f.Fuzz(func(t *testing.T, b []byte, length int64) {
		var p [locatorLength]byte
		copy(p[:], b)
		l, err := decodeLocator(&p, length)
		if err != nil {
			if !errors.Is(err, errLocator) {
				t.Errorf("untyped error %v", err)
			}
			return
		}
		var total int64
		for _, r := range l.ranges {
			if r.Offset < 0 || r.Length < 0 || r.Offset+r.Length < 0 {
				t.Errorf("range %+v", r)
			}
			total += r.Length
		}
		if total != length {
			t.Errorf("%d bytes, want %d", total, length)
		}
		q := l.encode()
		if again, err := decodeLocator(&q, length); err != nil || again.encode() != q {
			t.Errorf("does not survive: %v", err)
		}
	})
}
