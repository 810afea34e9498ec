package rows

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"slices"
	"strings"
	"testing"

	"odx/backstore/blockmap"
	"odx/backstore/codec"
	"odx/backstore/extent"
	"odx/blockdev"
)

// wantLayout compares bytes with hexadecimal digits; spaces are for the reader.
func wantLayout(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if want = strings.Join(strings.Fields(want), ""); hex.EncodeToString(got) != want {
		t.Errorf("%s:\ngot  %x\nwant %s", what, got, want)
	}
}

// TestRows_Encode: what stores have on disk is what docs/consistency.md says.
func TestRows_Encode(t *testing.T) {
	v := Volume{Number: 300, ID: [16]byte(bytes.Repeat([]byte{0x11}, 16)), Name: "disk", Size: 4096, Root: blockmap.Root{Node: 5, Level: 1}, Flags: FlagReadOnly, Origin: 2, Created: 1}
	wantLayout(t, "volume", v.Encode(), `ac02 11111111111111111111111111111111 04 6469736b 8020 05 01 01 02 01`)
	n := Snapshot{ID: 7, Deleted: true, Root: blockmap.Root{Node: 9, Level: 2}, Ranges: []blockdev.Range{{Offset: 4096, Length: 512}}}
	wantLayout(t, "snapshot", n.Encode(), `07 01 09 02 01 8020 8004`)
	st := Checkpoint{FirstLSN: 1, NextNode: 2, NextExtent: 3, NextSegment: 4, LastVolume: 5, LastSnapshot: 6, Pinned: []extent.ID{7, 300}, Dropped: []uint64{9}}
	a := Alias{Store: v.ID, Place: "disks", Segment: 300}
	wantLayout(t, "alias", a.Encode(), `11111111111111111111111111111111 05 6469736b73 ac02`)
	wantLayout(t, "key of an alias", AliasKey(300), `61 0000012c`)
	wantLayout(t, "state", st.Encode(), `01 02 03 04 05 06 02 07 ac02 09`)
}

// FuzzRows decodes rows of the tables of volumes and snapshots, and the state:
// what they accept they write the same, but for what the first stores left out.
func FuzzRows(f *testing.F) {
	f.Add((&Volume{Name: "disk", Size: 4096, Root: blockmap.Root{Node: 5}}).Encode())
	f.Add((&Snapshot{ID: 7, Ranges: []blockdev.Range{{Offset: 4096, Length: 512}}}).Encode())
	f.Add((&Checkpoint{FirstLSN: 1, Pinned: []extent.ID{1}, Dropped: []uint64{2, 3}}).Encode())
	f.Add((&Alias{Place: "disks", Segment: 5}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		d := codec.Decoder{B: slices.Clone(b)}
		if v := ReadVolume(&d); d.Err == nil {
			again := codec.Decoder{B: v.Encode()}
			if w := ReadVolume(&again); again.Err != nil || !reflect.DeepEqual(v, w) {
				t.Errorf("volume %x decodes and encodes to %x, which gives %v", b, v.Encode(), again.Err)
			}
		}
		d = codec.Decoder{B: slices.Clone(b)}
		if n := readSnapshot(&d); d.Err == nil {
			again := codec.Decoder{B: n.Encode()}
			if m := readSnapshot(&again); again.Err != nil || !reflect.DeepEqual(n, m) {
				t.Errorf("snapshot %x decodes and encodes to %x, which gives %v", b, n.Encode(), again.Err)
			}
		}
		if a, err := DecodeAlias(b); err == nil {
			if again, err := DecodeAlias(a.Encode()); err != nil || a != again {
				t.Errorf("alias %x decodes and encodes to %x, which gives %v", b, a.Encode(), err)
			}
		}
		if st, err := DecodeCheckpoint(b); err == nil {
			if again, err := DecodeCheckpoint(st.Encode()); err != nil || !reflect.DeepEqual(st, again) {
				t.Errorf("state %x decodes and encodes to %x, which gives %v", b, st.Encode(), err)
			}
		}
	})
}
