package copymgr

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"odx/tokens"
)

// rodCSCDOf builds a ROD CSCD descriptor for the token at an offset of the inline
// data.
func rodCSCDOf(offset uint32) []byte {
	p := make([]byte, 32)
	p[0] = 0xFE
	binary.BigEndian.PutUint16(p[4:], 0xF800)
	binary.BigEndian.PutUint32(p[24:], offset)
	return p
}

// inline adds inline data to a parameter list of EXTENDED COPY(LID1) or (LID4).
func inline(action byte, p, data []byte) []byte {
	p = append(bytes.Clone(p), data...)
	if action == 0 {
		binary.BigEndian.PutUint32(p[12:], uint32(len(data)))
	} else {
		binary.BigEndian.PutUint16(p[46:], uint16(len(data)))
	}
	return p
}

// rodCopy sends an EXTENDED COPY whose CSCDs are those of the testbed, then d; in
// the segments their numbers are those of LID1.
func (b *testbed) rodCopy(action byte, data, d []byte, segments ...segmentOf) answer {
	cscds := append(b.cscds(), d)
	for i := range segments {
		segments[i].source += uint16(action)
		segments[i].destination += uint16(action)
	}
	p := lid1Parameters(3, 0, cscds, segments...)
	if action == 1 {
		p = lid4Parameters(3, 0, 0, cscds, segments...)
	}
	return b.extendedCopy(lunA, action, inline(action, p, data))
}

// The bytes of a token in the inline data are copied like those of a disk: as of the
// token's creation, from any block or byte on, without being moved.
func TestExtendedCopy_ROD(t *testing.T) {
	const rodID = 4 // after the four logical units
	for _, action := range []byte{0, 1} {
		b := start(t, tokens.Limits{})
		data := b.fill(t, lunA, 1)
		units := [][]byte{nil, b.fill(t, lunB, 2), b.fill(t, lunOutside, 3)}
		token := b.token(t, lunA, rangeOf{8, 512}, rangeOf{1000, 512})
		model := append(bytes.Clone(data[8*512:520*512]), data[1000*512:1512*512]...)
		units[0] = b.fill(t, lunA, 9) // what it was made of has changed
		inlineData := append(make([]byte, 12), token...)
		b.store.FailWith(func(op string) error {
			if op == "WriteAt" {
				return errors.New("bytes are moved inside the store")
			}
			return nil
		})
		a := b.rodCopy(action, inlineData, rodCSCDOf(12),
			segmentOf{kind: 0x02, source: rodID, destination: 1, count: 1024, destinationLBA: 3},
			segmentOf{kind: 0x0D, source: rodID, destination: 0, count: 64, sourceLBA: 100, destinationLBA: 104})
		if a.code() != "GOOD" {
			t.Fatalf("service action %d: %s", action, a.code())
		}
		copy(units[1][3*4096:], model)
		copy(units[0][104*512:], model[100*512:164*512])
		if p := b.copyIn(lunA, 0x01, 3, 1<<16-1).data; !bytes.Equal(p[4:], model[100*512:164*512]) {
			t.Errorf("%d bytes are held", len(p)-4)
		}
		b.store.FailWith(nil)
		a = b.rodCopy(action, inlineData, rodCSCDOf(12),
			segmentOf{kind: 0x0A, source: rodID, destination: 1, count: 12345, sourceLBA: 3, sourceOffset: 17, destinationLBA: 200, destinationOffset: 5},
			segmentOf{kind: 0x02, source: rodID, destination: 2, count: 33, sourceLBA: 1, destinationLBA: 7},
			segmentOf{kind: 0x07, source: rodID})
		if a.code() != "GOOD" {
			t.Fatalf("service action %d: %s", action, a.code())
		}
		copy(units[1][200*4096+5:], model[3*512+17:][:12345])
		copy(units[2][7*512:], model[512:34*512])
		for lun := range units {
			if !bytes.Equal(b.contents(t, lun), units[lun]) {
				t.Errorf("service action %d: LUN %d differs", action, lun)
			}
		}
		if a := b.writeUsing(lunB, 1, writeParameters(token, 0, rangeOf{0, 1})); a.code() != "GOOD" {
			t.Errorf("the token afterwards: %s", a.code())
		}
	}
}

// DEL_TKN deletes the token once all is copied, and only then.
func TestExtendedCopy_ROD_DeleteToken(t *testing.T) {
	b := start(t, tokens.Limits{})
	token := b.token(t, lunA, rangeOf{0, 64})
	d := with(rodCSCDOf(0), func(p []byte) { p[23] = 1 })
	if a := b.rodCopy(0, token, d, segmentOf{kind: 2, source: 4, destination: 1, count: 72}); a.code() != "A/0D/02" {
		t.Errorf("more than it has: %s", a.code())
	}
	for _, want := range []string{"GOOD", "5/23/09"} {
		if a := b.rodCopy(0, token, d, segmentOf{kind: 2, source: 4, destination: 1, count: 64}); a.code() != want {
			t.Errorf("%s, want %s", a.code(), want)
		}
	}
}

func TestExtendedCopy_ROD_Refused(t *testing.T) {
	b := startWith(t, tokens.Options{Policy: tokens.Policy{Access: tokens.AccessInitiator}})
	other := start(t, tokens.Limits{})
	token := b.token(t, lunA, rangeOf{0, 64})
	foreign := b.attach("iqn.2026-11.example:other")
	read := segmentOf{kind: 2, source: 4, destination: 1, count: 64}
	zero := make([]byte, 512)
	copy(zero, []byte{0xFF, 0xFF, 0, 1, 0, 0, 1, 0xF8})
	corrupt := with(token, func(p []byte) { p[300] ^= 1 })
	set := func(at int, v ...byte) []byte { return with(rodCSCDOf(0), func(p []byte) { copy(p[at:], v) }) }
	for _, tc := range []struct {
		name    string
		inline  []byte
		cscd    []byte
		segment segmentOf
		want    string
		field   string
	}{
		{"a ROD to populate", token, set(8, 0, 0x80, 0, 0), read, "5/26/00", "list 152"},
		{"a lifetime", token, set(12, 0, 0, 0, 1), read, "5/26/00", "list 156"},
		{"an inactivity timeout", token, set(16, 0, 0, 0, 1), read, "5/26/00", "list 160"},
		{"a token is to be returned", token, set(22, 1), read, "5/26/00", "list 166"},
		{"no inline data", nil, rodCSCDOf(0), read, "5/26/00", "list 168"},
		{"half a token", token[:511], rodCSCDOf(0), read, "5/26/00", "list 168"},
		{"a token that begins too late", token, rodCSCDOf(4), read, "5/26/00", "list 168"},
		{"an offset that overflows", token, rodCSCDOf(1<<32 - 1), read, "5/26/00", "list 168"},
		{"more inline data than all tokens", make([]byte, maxInlineTokens+1), rodCSCDOf(0), read, "5/26/0B", ""},
		{"a producer elsewhere", token, set(4, 0, 0), read, "5/23/02", ""},
		{"a producer that is this logical unit", token, set(4, 0xFF, 0xFF), read, "GOOD", ""},
		{"the zero token", zero, rodCSCDOf(0), read, "5/23/01", ""},
		{"a token that was changed", corrupt, rodCSCDOf(0), read, "5/23/05", ""},
		{"a token of another store", other.token(t, lunA, rangeOf{0, 64}), rodCSCDOf(0), read, "5/23/05", ""},
		{"another block length", token, set(29, 0, 0x10, 0), read, "A/0D/02", "list 144"},
		{"its block length", token, set(29, 0, 0x02, 0), read, "GOOD", ""},
		{"a ROD as the destination", token, rodCSCDOf(0), segmentOf{kind: 2, source: 1, destination: 4, count: 1}, "A/26/0C", ""},
		{"outside the ROD", token, rodCSCDOf(0), segmentOf{kind: 2, source: 4, destination: 1, count: 8, sourceLBA: 57}, "A/0D/02", ""},
		{"a descriptor that no segment uses", corrupt, rodCSCDOf(0), segmentOf{kind: 2, source: 1, destination: 0, count: 1}, "GOOD", ""},
	} {
		a := b.rodCopy(0, tc.inline, tc.cscd, tc.segment)
		if a.code() != tc.want || tc.field != "" && a.field() != tc.field {
			t.Errorf("%s: %s %q, want %s %q", tc.name, a.code(), a.field(), tc.want, tc.field)
		}
	}
	p := inline(0, lid1Parameters(3, 0, append(b.cscds(), rodCSCDOf(0)), read), token)
	if a := b.extendedCopy(lunA, 0, p[:len(p)-1]); a.code() != "5/1A/00" {
		t.Errorf("inline data cut: %s", a.code())
	}
	if a := b.send(ctx, foreign, lunA, copyOutCDB(0, 0, uint32(len(p))), p); a.code() != "5/23/00" {
		t.Errorf("the token of another initiator: %s", a.code())
	}
	b.manager.Reconfigure(Rules{{From: []string{"volume0"}, To: []string{"volume1"}, Deny: true}})
	if a := b.extendedCopy(lunA, 0, p); a.code() != "A/0D/02" {
		t.Errorf("against a rule: %s", a.code())
	}
}

// A token that is revoked during an EXTENDED COPY ends it, or not, depending on the
// policy.
func TestExtendedCopy_ROD_Revoked(t *testing.T) {
	for policy, want := range map[tokens.RunningCopy]string{tokens.FinishCopy: "GOOD", tokens.AbortCopy: "A/0D/02"} {
		b := startWith(t, tokens.Options{Policy: tokens.Policy{RunningCopy: policy}})
		token := b.token(t, lunA, rangeOf{0, 64})
		s := b.stepMaps(4096)
		answered := make(chan answer, 1)
		go func() {
			answered <- b.rodCopy(0, token, rodCSCDOf(0), segmentOf{kind: 2, source: 4, destination: 1, count: 64})
		}()
		s.step()
		<-s.entered
		if err := b.tokens.Delete(ctx, tokens.ID(binary.BigEndian.Uint64(token[8:])), tokens.Revoked); err != nil {
			t.Fatal(err)
		}
		b.store.FailWith(nil)
		s.proceed <- struct{}{}
		if a := <-answered; a.code() != want {
			t.Errorf("policy %d: %s, want %s", policy, a.code(), want)
		}
	}
}
