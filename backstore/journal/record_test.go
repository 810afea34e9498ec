package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"testing"
)

func checksum(p []byte) []byte {
	return binary.LittleEndian.AppendUint32(nil, crc32.Checksum(p, castagnoli))
}

func encodeRecord(h fileHeader, lsn LSN, payload []byte) []byte {
	var b [recordHeader]byte
	encodeRecordHeader(&b, h.seed(), lsn, payload)
	r := append(b[:], payload...)
	return append(r, make([]byte, recordLength(len(payload))-int64(len(r)))...)
}

// TestLayout holds the bytes that a journal written today has.
func TestLayout(t *testing.T) {
	h := fileHeader{store: store, seq: 0x1122, first: 0x33}
	for _, test := range []struct{ name, got, want string }{
		{"file header", hex.EncodeToString(h.encode()[:headerLength]),
			"6f64786a6f75726e" + "01000000" + "00000000" + "01020300000000000000000000000000" +
				"2211000000000000" + "3300000000000000" + "622599b4"},
		{"record", hex.EncodeToString(encodeRecord(h, 0x34, []byte("payload of 21 bytes.!"))),
			"4423fa12" + "15000000" + "3400000000000000" + hex.EncodeToString([]byte("payload of 21 bytes.!")) + "000000"},
	} {
		if test.got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.name, test.got, test.want)
		}
	}
}

func TestARecordIsValidInOnePlaceOnly(t *testing.T) {
	h := fileHeader{store: store, seq: 5, first: 1}
	b := encodeRecord(h, 7, []byte("payload"))
	if p, _, ok := decodeRecord(b, h.seed(), 7); !ok || string(p) != "payload" {
		t.Fatalf("%q, %v", p, ok)
	}
	otherFile, otherStore := h, h
	otherFile.seq++
	otherStore.store[15]++
	for name, ok := range map[string]bool{
		"another file":   valid(b, otherFile, 7),
		"another store":  valid(b, otherStore, 7),
		"another record": valid(b, h, 8),
		"a shorter file": valid(b[:recordHeader+6], h, 7),
		"zeros":          valid(make([]byte, 100), h, 0),
	} {
		if ok {
			t.Errorf("valid for %s", name)
		}
	}
	for i := range recordHeader + 7 {
		b[i] ^= 0x10
		if valid(b, h, 7) {
			t.Errorf("valid with byte %d changed", i)
		}
		b[i] ^= 0x10
	}
}

func valid(b []byte, h fileHeader, lsn LSN) bool {
	_, _, ok := decodeRecord(b, h.seed(), lsn)
	return ok
}

func FuzzRecord(f *testing.F) {
	h := fileHeader{store: store, seq: 5, first: 1}
	f.Add(encodeRecord(h, 7, []byte("payload")))
	f.Add(encodeRecord(h, 7, nil))
	f.Add(encodeRecord(h, 8, []byte("payload")))
	f.Add(make([]byte, 40))
	long := encodeRecord(h, 7, nil)
	binary.LittleEndian.PutUint32(long[4:], 1<<32-1)
	f.Add(long)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, need, ok := decodeRecord(b, h.seed(), 7)
		if ok {
			// The CRC makes a record that was not written all but impossible.
			if want := encodeRecord(h, 7, p)[:recordHeader+len(p)]; !bytes.Equal(b[:len(want)], want) {
				t.Errorf("%x is taken for a record", b)
			}
			return
		}
		if p != nil || need != 0 && need <= int64(len(b)) || need > recordHeader+1<<32 {
			t.Errorf("payload of %d bytes, %d needed of %d", len(p), need, len(b))
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add(fileHeader{store: store, seq: 5, first: 1}.encode())
	f.Add([]byte(headerMagic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHeader(b)
		if err != nil {
			if !errors.Is(err, errNoHeader) && !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			return
		}
		again, err := decodeHeader(h.encode())
		if err != nil || again != h {
			t.Errorf("%+v becomes %+v, %v", h, again, err)
		}
	})
}
