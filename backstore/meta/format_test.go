package meta

import (
	"bytes"
	"encoding/hex"
	"hash/crc32"
	"strings"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// golden is a run in hexadecimal: header, one table, index twice, trailer twice.
// "..." are zeros up to a multiple of 4096.
const golden = `
6f64786d65746172 00000001 00000000 01020300000000000000000000000000
0000000000000001 0000000000000001 ca1d6050 ...
`

func TestRun_Golden(t *testing.T) {
	fsys := vfs.NewMem()
	db := openDB(t, fsys, sampleDir)
	changes(t, db, op("a", "1"), del("b"), op("bcd", ""))
	must.Succeed(t, db.Close())
	files := filesOf(t, fsys)
	data := files["0000000000000001-0000000000000001.rows"]
	if !bytes.Equal(data, files["0000000000000001-0000000000000001.rows.copy"]) {
		t.Error("the copy differs")
	}
	if len(data) != 6*blockLength {
		t.Fatalf("%d bytes", len(data))
	}
	want := strings.NewReplacer(" ", "", "\n", "", "...", "").Replace(golden)
	if got := hex.EncodeToString(data[:len(want)/2]); got != want {
		t.Errorf("header is\n%s, want\n%s", got, want)
	}
	for _, at := range []int{2, 3} {
		// One table of so many bytes with a checksum, three keys in 11 bytes: a,
		// b deleted, bcd.
		index := data[at*blockLength:]
		length, n := int(index[0])&0x7f|int(index[1])<<7, 2
		table := data[blockLength : blockLength+length]
		sum := crc32.Checksum(table, castagnoli)
		wantIndex := []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum),
			3, 10, 0, 2, 'a', 0, 3, 'b', 1, 4, 'c', 'd'}
		if got := index[n : n+len(wantIndex)+1]; !bytes.Equal(got, append(wantIndex, 0)) {
			t.Errorf("index is % x, want % x and zeros", got, wantIndex)
		}
		rows, err := decodeTable(table)
		must.Succeed(t, err)
		if len(rows) != 2 || string(rows[0].key) != "a" || hex.EncodeToString(rows[0].sealed) != "31014283433e" {
			t.Errorf("rows are %q", rows)
		}
	}
	l, err := decodeTrailer(data[4*blockLength:])
	must.Succeed(t, err)
	if l.rows != 2 || l.deletions != 1 || l.indexLen != 18 || l.index != [2]int64{2 * blockLength, 3 * blockLength} {
		t.Errorf("trailer says %+v", l)
	}
	if !bytes.Equal(l.trailer(), data[4*blockLength:5*blockLength]) || !bytes.Equal(l.trailer(), data[5*blockLength:]) {
		t.Error("the trailers are not what a trailer encodes to")
	}
	_, err = decodeTrailer(withVersion(data[5*blockLength:], 2))
	if err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a trailer of version 2: %v", err)
	}
}

// withVersion returns a trailer that is right but for its version.
func withVersion(b []byte, version byte) []byte {
	b = bytes.Clone(b)
	b[11] = version
	sum := crc32.Checksum(b[:trailerLength-4], castagnoli)
	copy(b[trailerLength-4:], []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	return b
}

func TestRow_Seal(t *testing.T) {
	sealed := appendSealed(nil, []byte("key"), []byte("body"))
	if body, err := unseal([]byte("key"), sealed); err != nil || string(body) != "body" {
		t.Fatalf("%q, %v", body, err)
	}
	if _, err := unseal([]byte("kez"), sealed); err == nil {
		t.Error("a row under another key is taken")
	}
	for i := range 8 * len(sealed) {
		bad := bytes.Clone(sealed)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := unseal([]byte("key"), bad); err == nil {
			t.Errorf("a row with bit %d flipped is taken", i)
		}
	}
}

func FuzzDecodeIndex(f *testing.F) {
	var l keyList
	l.add([]byte("a"), false)
	l.add([]byte("ab"), true)
	f.Add(l.appendTo(nil, 100, 7))
	f.Fuzz(func(t *testing.T, b []byte) {
		end := int64(blockLength + 1000)
		refs, err := decodeIndex(b, blockLength, end)
		if err != nil {
			return
		}
		var last []byte
		for i := range refs {
			live := 0
			for k := (keyReader{rest: refs[i].keys}); k.next(); {
				if bytes.Compare(k.key, last) <= 0 {
					t.Fatalf("key %q after %q", k.key, last)
				}
				last = bytes.Clone(k.key)
				at, deleted, ok := refs[i].find(last)
				if !ok || deleted != k.deleted || at != live || tableFor(refs, last) != i {
					t.Fatalf("key %q of table %d is not found", last, i)
				}
				if !deleted {
					live++
				}
			}
			if live != refs[i].live {
				t.Fatalf("table %d has %d rows, not %d", i, live, refs[i].live)
			}
		}
	})
}

func FuzzDecodeTrailer(f *testing.F) {
	l := placed(5000, 100)
	f.Add(l.trailer())
	f.Fuzz(func(t *testing.T, b []byte) {
		sum := crc32.Checksum(b[:max(0, min(len(b), trailerLength)-4)], castagnoli)
		if len(b) >= trailerLength {
			copy(b[trailerLength-4:], []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
		}
		l, err := decodeTrailer(b)
		if err == nil && !bytes.Equal(l.trailer()[16:trailerLength-4], b[16:trailerLength-4]) && bytes.Equal(b[76:80], make([]byte, 4)) {
			t.Fatalf("%+v does not encode to what it was", l)
		}
	})
}

func FuzzDecodeTable(f *testing.F) {
	var w tableWriter
	w.add([]byte("a"), appendSealed(nil, []byte("a"), []byte("1")))
	w.add([]byte("b"), appendSealed(nil, []byte("b"), bytes.Repeat([]byte("2"), 5000)))
	f.Add(w.finish())
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, err := decodeTable(b)
		for _, r := range rows {
			if err == nil {
				_, _ = unseal(r.key, r.sealed)
			}
		}
	})
}

func FuzzParseRunName(f *testing.F) {
	f.Add("0000000000000001-00000000000000ff.rows.copy")
	f.Fuzz(func(t *testing.T, name string) {
		id, second, ok := parseRunName(name)
		if !ok {
			return
		}
		again := id.fileName()
		if second {
			again += copySuffix
		}
		if again != name {
			t.Fatalf("%q is %q", name, again)
		}
	})
}
