package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"testing"

	"odx/backstore/vfs"
)

func checksum(p []byte) []byte {
	return binary.LittleEndian.AppendUint32(nil, crc32.Checksum(p, castagnoli))
}

func encodeRecord(h fileHeader, lsn, mark LSN, payload []byte) []byte {
	var b [recordHeader]byte
	encodeRecordHeader(&b, h.seed(), lsn, mark, payload)
	r := append(b[:], payload...)
	return append(r, make([]byte, recordLength(len(payload))-int64(len(r)))...)
}

// encodeV1 encodes a header and a record of version 1.
func encodeV1(h fileHeader, lsn LSN, payload []byte) (header, record []byte) {
	h.bytes = 0
	header = h.encode()
	header[8] = 1
	copy(header[48:], checksum(header[:48]))
	clear(header[52:60])
	record = make([]byte, 16, align(16+int64(len(payload))))
	binary.LittleEndian.PutUint32(record[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint64(record[8:], uint64(lsn))
	record = append(record, payload...)
	binary.LittleEndian.PutUint32(record, crc32.Update(h.seed(), castagnoli, record[4:]))
	return header, record[:cap(record)]
}

// TestLayout pins the bytes of both versions.
func TestLayout(t *testing.T) {
	h := fileHeader{store: store, seq: 0x1122, first: 0x33, bytes: 0x5000}
	oldHeader, oldRecord := encodeV1(h, 0x34, []byte("payload of 21 bytes.!"))
	var note [recordHeader]byte
	encodeNote(&note, h.seed(), 0x35, 0x35)
	for _, test := range []struct{ name, got, want string }{
		{"file header", hex.EncodeToString(h.encode()[:headerLength]),
			"6f64786a6f75726e" + "02000000" + "00000000" + "01020300000000000000000000000000" +
				"2211000000000000" + "3300000000000000" + "0050000000000000" + "9d1d2072"},
		{"seal", hex.EncodeToString(h.encodeSeal(0x40)), "4000000000000000" + "160804ac"},
		{"record", hex.EncodeToString(encodeRecord(h, 0x34, 0x30, []byte("payload of 21 bytes.!"))),
			"e71b10d8" + "15000000" + "3400000000000000" + "3000000000000000" + hex.EncodeToString([]byte("payload of 21 bytes.!")) + "000000"},
		{"note", hex.EncodeToString(note[:]), "db803171" + "ffffffff" + "3500000000000000" + "3500000000000000"},
		{"file header of version 1", hex.EncodeToString(oldHeader[:headerLengthV1]),
			"6f64786a6f75726e" + "01000000" + "00000000" + "01020300000000000000000000000000" +
				"2211000000000000" + "3300000000000000" + "622599b4"},
		{"record of version 1", hex.EncodeToString(oldRecord),
			"4423fa12" + "15000000" + "3400000000000000" + hex.EncodeToString([]byte("payload of 21 bytes.!")) + "000000"},
	} {
		if test.got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.name, test.got, test.want)
		}
	}
}

func TestRecord_ValidOnlyInPlace(t *testing.T) {
	h := fileHeader{version: 2, store: store, seq: 5, first: 1}
	b := encodeRecord(h, 7, 3, []byte("payload"))
	if f, ok := find(b, h, 7); !ok || string(f.payload) != "payload" || f.mark != 3 || f.note {
		t.Fatalf("%+v, %v", f, ok)
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

// bytesFile is a file of bytes after a header.
type bytesFile struct {
	vfs.File
	*bytes.Reader
}

func (bytesFile) Close() error           { return nil }
func (f bytesFile) Size() (int64, error) { return f.Reader.Size(), nil }
func (f bytesFile) ReadAt(p []byte, off int64) (int, error) {
	return f.Reader.ReadAt(p, off)
}

func scan(b []byte, h fileHeader) *scanner {
	s, _ := newScanner(bytesFile{Reader: bytes.NewReader(append(make([]byte, headerBlock), b...))}, h)
	return s
}

func find(b []byte, h fileHeader, lsn LSN) (frame, bool) {
	f, ok, err := scan(b, h).next(lsn)
	if err != nil {
		panic(err)
	}
	return f, ok
}

func valid(b []byte, h fileHeader, lsn LSN) bool {
	_, ok := find(b, h, lsn)
	return ok
}

func FuzzRecord(f *testing.F) {
	h := fileHeader{version: 2, store: store, seq: 5, first: 1}
	f.Add(encodeRecord(h, 7, 6, []byte("payload")))
	f.Add(encodeRecord(h, 7, 1, nil))
	f.Add(encodeRecord(h, 8, 7, []byte("payload")))
	f.Add(make([]byte, 40))
	long := encodeRecord(h, 7, 0, nil)
	binary.LittleEndian.PutUint32(long[4:], 1<<32-2)
	f.Add(long)
	var note [recordHeader]byte
	encodeNote(&note, h.seed(), 7, 7)
	f.Add(append(note[:], encodeRecord(h, 9, 7, []byte("payload"))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := find(b, h, 7)
		if ok {
			// The CRC makes an unwritten record practically impossible.
			if want := encodeRecord(h, 7, r.mark, r.payload)[:recordHeader+len(r.payload)]; !bytes.Equal(b[:len(want)], want) {
				t.Errorf("%x is decoded as a record", b)
			}
			return
		}
		s := scan(b, h)
		for last := LSN(6); ; last = r.lsn {
			if r, ok, _ = s.search(7); !ok {
				break
			}
			if r.lsn < 6 || r.mark > r.lsn || s.off > s.end+7 {
				t.Errorf("record %d with mark %d after %d, up to %d", r.lsn, r.mark, last, s.off)
			}
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
		h.version = headerVersion
		if err != nil || again != h {
			t.Errorf("%+v becomes %+v, %v", h, again, err)
		}
	})
}
