package copymgr

import (
	"bytes"
	"encoding/binary"
	"testing"

	"odx/tokens"
)

func TestReportAllRODTokens(t *testing.T) {
	b := start(t, tokens.Limits{})
	report := func(lun int, length uint32) []byte { return b.copyIn(lun, 0x08, 0, length).data }
	if p := report(lunA, 1024); !bytes.Equal(p, []byte{0, 0, 0, 4, 0, 0, 0, 0}) {
		t.Errorf("no tokens: % x", p)
	}
	first := b.token(t, lunA, rangeOf{0, 8})
	b.token(t, lunB, rangeOf{0, 8})
	second := b.token(t, lunA, rangeOf{8, 8})
	p := report(lunA, 1024)
	if len(p) != 8+2*96 || binary.BigEndian.Uint32(p) != 4+2*96 || !bytes.Equal(p[8:104], first[:96]) || !bytes.Equal(p[104:], second[:96]) {
		t.Errorf("%d bytes: % x", len(p), p)
	}
	if p := report(lunA, 20); len(p) != 20 || binary.BigEndian.Uint32(p) != 4+2*96 {
		t.Errorf("cut: % x", p)
	}
}

// A token of each kind that POPULATE TOKEN makes, as VPD page 8Fh says it does.
func TestRODTypes(t *testing.T) {
	b := start(t, tokens.Limits{})
	for _, lun := range []int{lunA, lunOutside} {
		page := b.send(ctx, b.nexus, lun, []byte{0x12, 0x01, 0x8F, 4, 0, 0}, nil).data
		entries := descriptors(t, page[4:])[0x0108][8:]
		for ; len(entries) >= 64; entries = entries[64:] {
			rodType, out, in := binary.BigEndian.Uint32(entries), entries[4]&1 != 0, entries[4]&2 != 0
			parameters := with(populateParameters(rangeOf{0, 8}), func(p []byte) { p[2] = 2; binary.BigEndian.PutUint32(p[8:], rodType) })
			a := b.populate(lun, 1, parameters)
			if (a.code() == "GOOD") != out || !out && a.code() != "5/26/00" {
				t.Errorf("LUN %d, ROD type %08X: %s, TOKEN_OUT %v", lun, rodType, a.code(), out)
			}
			if a.code() != "GOOD" {
				continue
			}
			token := b.rodTokenInformation(lun, 1, 1024).data[38:]
			if got := binary.BigEndian.Uint32(token); got != rodType && rodType != 0x0080FFFF {
				t.Errorf("asked for %08X, got %08X", rodType, got)
			}
			a = b.writeUsing(lunB, 2, writeParameters(token, 0, rangeOf{0, 1}))
			if in = in || rodType == 0x0080FFFF; (a.code() == "GOOD") != in || !in && a.code() != "5/23/01" {
				t.Errorf("ROD type %08X: %s, TOKEN_IN %v", rodType, a.code(), in)
			}
		}
	}
}

// A change vulnerable token ends with the first write to its range.
func TestChangeVulnerableToken(t *testing.T) {
	b := start(t, tokens.Limits{})
	parameters := with(populateParameters(rangeOf{0, 8}), func(p []byte) { p[2] = 2; binary.BigEndian.PutUint32(p[8:], 0x00800001) })
	b.populate(lunA, 1, parameters)
	token := b.rodTokenInformation(lunA, 1, 1024).data[38:]
	write := func(lba byte) {
		if a := b.send(ctx, b.nexus, lunA, []byte{0x2A, 0, 0, 0, 0, lba, 0, 0, 1, 0}, make([]byte, 512)); a.code() != "GOOD" {
			t.Fatal(a.code())
		}
	}
	write(64)
	if a := b.writeUsing(lunB, 2, writeParameters(token, 0, rangeOf{0, 1})); a.code() != "GOOD" {
		t.Errorf("after a write next to it: %s", a.code())
	}
	write(3)
	if a := b.writeUsing(lunB, 2, writeParameters(token, 0, rangeOf{0, 1})); a.code() != "5/23/08" {
		t.Errorf("after a write to it: %s", a.code())
	}
}
