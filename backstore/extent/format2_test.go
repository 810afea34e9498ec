package extent

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"odx/backstore/meta"
	"odx/backstore/segment"
)

// TestUpgradeRow upgrades a page of format 2 with two extents, of one and two blocks.
func TestUpgradeRow(t *testing.T) {
	fp := "f0" + strings.Repeat("00", 31)
	old, err := hex.DecodeString(strings.ReplaceAll("03 01 00000007 00000009 "+fp+" 11223344  7f 02 00000008 00000001 "+fp+" 55667788 99aabbcc", " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	got, err := UpgradeRow(meta.Op{Key: pageKey(5), Value: old}, 4)
	if err != nil || !bytes.Equal(got.Key, pageKey(5)) {
		t.Fatal(got, err)
	}
	p, err := decodePage(4, got.Value)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		i      int
		addr   segment.Addr
		blocks uint8
		crcs   []uint32
	}{{3, segment.Addr{Segment: 7, Block: 9}, 1, []uint32{0x11223344}}, {127, segment.Addr{Segment: 8, Block: 1}, 2, []uint32{0x55667788, 0x99aabbcc}}} {
		e := p.entries[want.i]
		if e.addr != want.addr || e.blocks != want.blocks || e.fp[0] != 0xf0 {
			t.Errorf("entry %d: %+v, want %+v", want.i, e, want)
		}
		for k, crc := range want.crcs {
			if p.crc(want.i)[k] != crc {
				t.Errorf("entry %d: CRCs %x, want %x", want.i, p.crc(want.i), want.crcs)
			}
		}
	}
	if n := len(p.existing()); n != 2 {
		t.Errorf("%d extents, want 2", n)
	}
	if _, err := UpgradeRow(meta.Op{Key: pageKey(5), Value: old[:20]}, 4); !errors.Is(err, meta.ErrDamaged) {
		t.Errorf("a page cut short: %v, want ErrDamaged", err)
	}
	other := meta.Op{Key: []byte("rkey"), Value: []byte("v")}
	if same, err := UpgradeRow(other, 4); err != nil || string(same.Value) != "v" {
		t.Errorf("a row of another kind: %v, %v", same, err)
	}
}

func FuzzUpgradeRow(f *testing.F) {
	f.Add(make([]byte, 46))
	f.Add(append([]byte{1, 1}, make([]byte, 44)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		op, err := UpgradeRow(meta.Op{Key: pageKey(1), Value: b}, 4)
		if err != nil {
			return
		}
		if _, err := decodePage(4, op.Value); err != nil {
			t.Errorf("%x becomes %x: %v", b, op.Value, err)
		}
	})
}
