package tokens

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"odx/blockdev"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

// golden compares p with the hex dump in testdata.
func golden(t *testing.T, name string, p []byte) {
	t.Helper()
	var got strings.Builder
	for off := 0; off < len(p); off += 16 {
		fmt.Fprintf(&got, "%03d  % x\n", off, p[off:min(off+16, len(p))])
	}
	path := "testdata/" + name
	if *rewrite {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("%s differs; got\n%s", path, got.String())
	}
}

// exampleSealer and exampleFields are fixed, so that the token is.
func exampleSealer() *sealer {
	s := &sealer{store: [16]byte{0x53, 0x54, 0x4f, 0x52, 0x45, 15: 0x01}}
	for i := range s.key {
		s.key[i] = byte(i)
	}
	return s
}

func exampleFields() *fields {
	f := &fields{
		rodType: RODTypePointInTimeDefault,
		id:      0x0102030405060708,
		lu: LU{
			NAA:          []byte{0x60, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
			TargetName:   "iqn.2026-11.example.odx:disks",
			BlockLength:  512,
			ReadCapacity: [24]byte{2: 0x02, 5: 0x03, 6: 0xC0},
		},
		bytes: 256 << 20,
		store: exampleSealer().store,
	}
	for i := range f.name {
		f.name[i] = 0xA0
	}
	for i := range f.random {
		f.random[i] = 0xB0
	}
	return f
}

func exampleToken() *Token {
	t := exampleFields().encode()
	exampleSealer().seal(t)
	return t
}

func TestToken_Layout(t *testing.T) {
	golden(t, "token.hex", exampleToken()[:])
}

func TestToken_LocalDesignators(t *testing.T) {
	for _, name := range []string{"", "iqn.2026-11.example:" + strings.Repeat("x", 200)} {
		f := exampleFields()
		f.lu.NAA, f.lu.TargetName = nil, name
		tok := f.encode()
		if d := tok[offCreator : offCreator+32]; d[0] != 0xE4 || d[5] != 0x03 || d[7] != 8 || d[8]>>4 != 3 {
			t.Errorf("creator descriptor % x: want an 8 byte NAA 3h designator", d)
		}
		if d := tok[offTarget:offMagic]; d[0] != 0x51 || d[1] != 0xA3 || d[3] != 8 || d[4]>>4 != 3 {
			t.Errorf("target descriptor % x: want an 8 byte NAA 3h designator", d[:16])
		}
	}
}

// SPC-4 requires a null after the SCSI name string and a length that is a multiple of
// four.
func TestToken_TargetDescriptor(t *testing.T) {
	for n := 1; n <= 130; n++ {
		p := make([]byte, 128)
		putTarget(p, strings.Repeat("n", n), [16]byte{})
		length := int(p[3])
		if length%4 != 0 || length > len(p)-4 {
			t.Fatalf("name of %d bytes: designator length %d", n, length)
		}
		if isName := p[1]&0x0F == 8; isName != (n <= 123) {
			t.Errorf("name of %d bytes: designator type %d", n, p[1]&0x0F)
		} else if isName && (bytes.Count(p[4:4+length], []byte{'n'}) != n || p[4+length-1] != 0) {
			t.Errorf("name of %d bytes is not whole or not ended by a null", n)
		}
	}
}

func TestToken_ManagementPart(t *testing.T) {
	a, b := exampleFields(), exampleFields()
	newName(b)
	b.id = a.id
	ta, tb := a.encode(), b.encode()
	if !bytes.Equal(ta[:offMagic], tb[:offMagic]) {
		t.Error("bytes before the extended ROD token data depend on the secret")
	}
}

func TestSealer_Check_everyBit(t *testing.T) {
	s, good := exampleSealer(), exampleToken()
	if err := s.check(good); err != nil {
		t.Fatal(err)
	}
	for bit := range TokenLength * 8 {
		tok := *good
		tok[bit/8] ^= 1 << (bit % 8)
		want := ErrCorrupt
		if bit/8 == offLength || bit/8 == offLength+1 {
			want = ErrInvalidLength
		}
		if err := s.check(&tok); !errors.Is(err, want) {
			t.Errorf("byte %d bit %d changed: %v, want %v", bit/8, bit%8, err, want)
		}
	}
}

func TestSealer_Check(t *testing.T) {
	const unusedType = 0xFF000000 // device type specific
	s := exampleSealer()
	otherStore, otherKey := exampleSealer(), exampleSealer()
	otherStore.store[3]++
	otherKey.key[3]++
	f := exampleFields()
	f.store = otherStore.store
	ofOtherStore := f.encode()
	otherStore.seal(ofOtherStore)
	forged := exampleFields().encode()
	otherKey.seal(forged)
	ofOtherVendor := exampleToken()
	for i := offMagic; i < TokenLength; i++ {
		ofOtherVendor[i] = 0x77
	}
	noCreator := *ofOtherVendor
	noCreator[offCreator] = 0
	otherType := *ofOtherVendor
	binary.BigEndian.PutUint32(otherType[:], unusedType)
	ownOtherType := exampleFields()
	ownOtherType.rodType = unusedType
	genuineOtherType := ownOtherType.encode()
	s.seal(genuineOtherType)
	for _, tc := range []struct {
		name string
		tok  *Token
		want error
	}{
		{"made by another store of this kind", ofOtherStore, ErrRemote},
		{"forged with another key", forged, ErrCorrupt},
		{"made by another vendor", ofOtherVendor, ErrRemote},
		{"another vendor's, without creator", &noCreator, ErrCorrupt},
		{"another vendor's, of another type", &otherType, ErrUnsupportedType},
		{"our own, of a type that cannot be used", genuineOtherType, ErrUnsupportedType},
		{"all zeros", new(Token), ErrInvalidLength},
	} {
		if err := s.check(tc.tok); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

func TestParseID(t *testing.T) {
	id := ID(0x00ff00000000abcd)
	got, err := ParseID(id.String())
	if err != nil || got != id {
		t.Errorf("ParseID(%q) = %v, %v", id.String(), got, err)
	}
	for _, s := range []string{"", "12", "zz00000000000000", "00000000000000000"} {
		if _, err := ParseID(s); err == nil {
			t.Errorf("ParseID(%q): no error", s)
		}
	}
}

// FuzzToken: no bytes but those that were sealed are accepted.
func FuzzToken(f *testing.F) {
	good := exampleToken()
	f.Add(good[:])
	f.Add([]byte{})
	zero := make([]byte, TokenLength)
	binary.BigEndian.PutUint32(zero, uint32(RODTypeBlockDeviceZero))
	binary.BigEndian.PutUint16(zero[offLength:], rodTokenLength)
	f.Add(zero)
	s := exampleSealer()
	for _, kind := range []RODType{RODTypePointInTimePersistent, RODTypePointInTimeChangeVulnerable, RODTypeAccessUponReference, RODTypeHash, RODTypeChecksum} {
		other := *good
		binary.BigEndian.PutUint32(other[:], uint32(kind))
		f.Add(other[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var tok Token
		copy(tok[:], b)
		if err := s.check(&tok); err == nil && tok != *good {
			t.Errorf("accepted %s", hex.EncodeToString(tok[:]))
		}
	})
}

// TestRecord_Versions: records have a version; those of the first form, which have
// none, are still read, and later ones are distinguished from damaged ones.
func TestRecord_Versions(t *testing.T) {
	r := record{Type: RODTypePointInTimeDefault, Name: make([]byte, nameLength), Management: make([]byte, ManagementLength),
		Length: 512, BlockLength: 512, Inactivity: 1, Created: time.Unix(1, 0).UTC(), LastUsed: time.Unix(2, 0).UTC()}
	const golden = `{"version":1,"type":8388608,"name":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","management":"%s","length":512,"block_length":512,"creator":{},"created":"1970-01-01T00:00:01Z","last_used":"1970-01-01T00:00:02Z","inactivity":1,"uses":0}`
	want := fmt.Sprintf(golden, base64.StdEncoding.EncodeToString(r.Management))
	if got := string(r.encode()); got != want {
		t.Errorf("record of a token: %s, want %s", got, want)
	}
	g := tombstone{Reason: Revoked, Ended: time.Unix(3, 0).UTC()}
	wantTombstone := `{"version":1,"reason":3,"died":"1970-01-01T00:00:03Z"}`
	if got := string(g.encode()); got != wantTombstone {
		t.Errorf("tombstone: %s, want %s", got, wantTombstone)
	}
	for name, tt := range map[string]struct {
		version string // instead of "version":1,
		err     error
	}{
		"this one":       {`"version":1,`, nil},
		"the first form": {"", nil},
		"a later one":    {`"version":2,`, errNewer},
		"none":           {`"version":-1,`, errNewer},
	} {
		got, err := decodeRecord([]byte(strings.Replace(want, `"version":1,`, tt.version, 1)))
		if !errors.Is(err, tt.err) || err == nil && string(got.encode()) != want {
			t.Errorf("token, version %s: %+v, %v, want %v", name, got, err, tt.err)
		}
		ts, err := decodeTombstone([]byte(strings.Replace(wantTombstone, `"version":1,`, tt.version, 1)))
		if !errors.Is(err, tt.err) || err == nil && string(ts.encode()) != wantTombstone {
			t.Errorf("tombstone, version %s: %+v, %v, want %v", name, ts, err, tt.err)
		}
	}
}

// TestRecord_Fields holds the bytes of records in which every field has something.
func TestRecord_Fields(t *testing.T) {
	r := record{
		Type: RODTypeAccessUponReference, Name: bytes.Repeat([]byte{1}, nameLength), Management: make([]byte, ManagementLength), Snapshot: 2,
		Length: 512, BlockLength: 4096, Creator: Creator{Initiator: "iqn.i", Target: "iqn.t", Volume: "v"},
		Created: time.Unix(1, 0).UTC(), LastUsed: time.Unix(2, 0).UTC(), Inactivity: time.Second, Uses: 3, Priority: 4, Access: AccessGroup("g"),
		Volume: make([]byte, 16), Ranges: []blockdev.Range{{Offset: 4096, Length: 512}},
	}
	want := fmt.Sprintf(`{"version":1,"type":%d,"name":"%s","management":"%s","snapshot":2,"length":512,"block_length":4096,`+
		`"creator":{"initiator":"iqn.i","target":"iqn.t","volume":"v"},"created":"1970-01-01T00:00:01Z","last_used":"1970-01-01T00:00:02Z",`+
		`"inactivity":1000000000,"uses":3,"priority":4,"access":"group:g","volume":"AAAAAAAAAAAAAAAAAAAAAA==","ranges":[{"Offset":4096,"Length":512}]}`,
		uint32(r.Type), base64.StdEncoding.EncodeToString(r.Name), base64.StdEncoding.EncodeToString(r.Management))
	if got := string(r.encode()); got != want {
		t.Errorf("a token: %s, want %s", got, want)
	}
	if back, err := decodeRecord([]byte(want)); err != nil || string(back.encode()) != want {
		t.Errorf("read as %+v, %v", back, err)
	}
	g := tombstone{Reason: Cancelled, Cause: OutOfSpace, Ended: time.Unix(3, 0).UTC()}
	if got, want := string(g.encode()), `{"version":1,"reason":2,"cause":"out of space","died":"1970-01-01T00:00:03Z"}`; got != want {
		t.Errorf("tombstone: %s, want %s", got, want)
	}
}

// FuzzRecord: a record that decodes is one that encodes to the same again.
func FuzzRecord(f *testing.F) {
	r := record{Type: RODTypePointInTimeDefault, Name: make([]byte, nameLength), Management: make([]byte, ManagementLength),
		Length: 512, BlockLength: 512, Inactivity: 1, Creator: Creator{Initiator: "iqn.a"}}
	f.Add(r.encode())
	f.Add([]byte(`{}`))
	f.Add(tombstone{Reason: Deleted}.encode())
	f.Add(tombstone{Reason: Cancelled, Cause: OutOfSpace}.encode())
	r.Type, r.Volume, r.Ranges = RODTypeAccessUponReference, make([]byte, 16), []blockdev.Range{{Offset: 4096, Length: 512}}
	f.Add(r.encode())
	r.Type, r.Access = RODTypePointInTimeChangeVulnerable, AccessGroup("g")
	f.Add(r.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRecord(b); err == nil {
			again, err := decodeRecord(r.encode())
			if err != nil || !bytes.Equal(again.encode(), r.encode()) {
				t.Errorf("%q does not survive: %v", b, err)
			}
		} else if !errors.Is(err, errRecord) && !errors.Is(err, errNewer) {
			t.Errorf("untyped error %v", err)
		}
		if g, err := decodeTombstone(b); err == nil && g.Reason.err() == nil {
			t.Errorf("tombstone %q has no reason", b)
		}
	})
}
