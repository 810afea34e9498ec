package initiator

import (
	"testing"
)

func TestParseWriteCache(t *testing.T) {
	for name, tt := range map[string]struct {
		answer []byte
		want   WriteCache
	}{
		"write back":         {[]byte{23, 0, 0x10, 0, 0x08, 18, 0x04}, WriteCache{Volatile: true, FUA: true}},
		"write through":      {[]byte{23, 0, 0x10, 0, 0x88, 18, 0x00}, WriteCache{FUA: true}},
		"protected":          {[]byte{23, 0, 0x90, 0, 0x88, 18, 0x00}, WriteCache{FUA: true, Protected: true}},
		"block descriptor":   {[]byte{31, 0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0x08, 18, 0x00}, WriteCache{}},
		"another page":       {[]byte{23, 0, 0, 0, 0x0a, 18, 0x00}, WriteCache{Volatile: true}},
		"ends in the page":   {[]byte{23, 0, 0, 0, 0x08, 18}, WriteCache{Volatile: true}},
		"ends in the header": {[]byte{23, 0, 0x10}, WriteCache{Volatile: true}},
	} {
		if got := parseWriteCache(tt.answer); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestParseIdentity(t *testing.T) {
	vendor := []byte{2, 1, 0, 4, 'I', 'E', 'T', ' '}
	eui := []byte{1, 2, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8}
	naa := []byte{1, 3, 0, 8, 0x60, 2, 3, 4, 5, 6, 7, 8}
	port := []byte{1, 0x13, 0, 8, 0x61, 2, 3, 4, 5, 6, 7, 8}
	page := func(parts ...[]byte) []byte {
		p := []byte{0, 0x83, 0, 0}
		for _, part := range parts {
			p = append(p, part...)
		}
		return p
	}
	for want, p := range map[string][]byte{
		"naa.6002030405060708": page(vendor, port, eui, naa),
		"eui.0102030405060708": page(port, eui, vendor),
		`t10."IET "`:           page(vendor, port),
		"":                     page(port, naa[:7]),
	} {
		if got := parseIdentity(p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// FuzzMedium: no answer of a target makes its readers panic.
func FuzzMedium(f *testing.F) {
	f.Add([]byte{23, 0, 0x10, 0, 0x08, 18, 0x04})
	f.Add([]byte{0, 0x83, 0, 12, 1, 3, 0, 8, 0x60, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, p []byte) {
		parseWriteCache(p)
		parseIdentity(p)
	})
}
