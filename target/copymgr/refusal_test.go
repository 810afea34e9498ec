package copymgr

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"odx/blockdev"
	"odx/target/scsi"
	"odx/target/scsi/sense"
	"odx/tokens"
)

// with returns p after change.
func with(p []byte, change func([]byte)) []byte {
	p = bytes.Clone(p)
	change(p)
	return p
}

func manyRanges(n int) []rangeOf {
	r := make([]rangeOf, n)
	for i := range r {
		r[i] = rangeOf{uint64(i), 1}
	}
	return r
}

const unitBlocks = unitBytes / 512

// Conditions of SBC-4 5.12 and 5.59 with their sense data.
func TestParameters_Refused(t *testing.T) {
	b := start(t, tokens.Limits{TokenBytes: 256 << 10})
	before := b.fill(t, lunA, 1)
	token := b.token(t, lunA, rangeOf{0, 16})
	be := binary.BigEndian
	valid := populateParameters(rangeOf{0, 8})
	validWrite := writeParameters(token, 0, rangeOf{64, 8})
	for _, tc := range []struct {
		name       string
		populate   []byte
		write      []byte
		want       string
		field      string // of POPULATE TOKEN
		writeField string // of WRITE USING TOKEN
	}{
		{"less than a header", valid[:15], validWrite[:535], "5/1A/00", "", ""},
		{"one byte", valid[:1], validWrite[:1], "5/1A/00", "", ""},
		{"data length too small", with(valid, func(p []byte) { be.PutUint16(p, 0x1D) }),
			with(validWrite, func(p []byte) { be.PutUint16(p, 0x225) }), "5/26/00", "list 0", "list 0"},
		{"data length smaller than the range list", with(populateParameters(manyRanges(3)...), func(p []byte) { be.PutUint16(p, 0x2E) }),
			with(writeParameters(token, 0, manyRanges(3)...), func(p []byte) { be.PutUint16(p, 0x236) }), "5/26/00", "list 0", "list 0"},
		{"no range descriptor", with(valid, func(p []byte) { be.PutUint16(p[14:], 0) }),
			with(validWrite, func(p []byte) { be.PutUint16(p[534:], 0) }), "5/26/00", "list 14", "list 534"},
		{"less than a range descriptor", with(valid, func(p []byte) { be.PutUint16(p[14:], 15) }),
			with(validWrite, func(p []byte) { be.PutUint16(p[534:], 15) }), "5/26/00", "list 14", "list 534"},
		{"too many ranges", populateParameters(manyRanges(257)...), writeParameters(token, 0, manyRanges(257)...), "5/26/08", "", ""},
		{"the same range twice", populateParameters(rangeOf{0, 8}, rangeOf{0, 8}),
			writeParameters(token, 0, rangeOf{64, 8}, rangeOf{64, 8}), "5/26/00", "list 32", "list 552"},
		{"ranges that overlap by a block", populateParameters(rangeOf{100, 8}, rangeOf{0, 8}, rangeOf{107, 8}),
			writeParameters(token, 0, rangeOf{100, 8}, rangeOf{0, 8}, rangeOf{107, 8}), "5/26/00", "list 48", "list 568"},
		{"more than a token may hold", populateParameters(rangeOf{0, 512}, rangeOf{1024, 1}),
			writeParameters(token, 0, rangeOf{0, 512}, rangeOf{1024, 1}), "5/26/00", "list 40", "list 560"},
		{"one range of more than a token may hold", populateParameters(rangeOf{0, 513}),
			writeParameters(token, 0, rangeOf{0, 513}), "5/26/00", "list 24", "list 544"},
		{"sum beyond 32 bits", populateParameters(rangeOf{0, 1<<32 - 1}, rangeOf{1 << 33, 1<<32 - 1}),
			writeParameters(token, 0, rangeOf{0, 1<<32 - 1}, rangeOf{1 << 33, 1<<32 - 1}), "5/26/00", "list 24", "list 544"},
		{"past the end", populateParameters(rangeOf{unitBlocks - 7, 8}),
			writeParameters(token, 0, rangeOf{unitBlocks - 7, 8}), "5/21/00", "", ""},
		{"beginning at the end", populateParameters(rangeOf{unitBlocks, 1}),
			writeParameters(token, 0, rangeOf{unitBlocks, 1}), "5/21/00", "", ""},
		{"empty, beginning after the end", populateParameters(rangeOf{unitBlocks + 1, 0}),
			writeParameters(token, 0, rangeOf{unitBlocks + 1, 0}), "5/21/00", "", ""},
		{"LBA plus count overflows", populateParameters(rangeOf{1<<64 - 1, 8}),
			writeParameters(token, 0, rangeOf{1<<64 - 1, 8}), "5/21/00", "", ""},
		{"second range past the end", populateParameters(rangeOf{0, 8}, rangeOf{unitBlocks, 1}),
			writeParameters(token, 0, rangeOf{0, 8}, rangeOf{unitBlocks, 1}), "5/21/00", "", ""},
		{"inactivity timeout above the maximum", with(valid, func(p []byte) { be.PutUint32(p[4:], 601) }), nil, "5/26/00", "list 4", ""},
		{"inactivity timeout far above the maximum", with(valid, func(p []byte) { be.PutUint32(p[4:], 1<<32-1) }), nil, "5/26/00", "list 4", ""},
		{"type that is no point in time copy", with(valid, func(p []byte) { p[2] = 2; be.PutUint32(p[8:], 0x00010000) }), nil, "5/26/00", "list 8", ""},
		{"type zero asked for", with(valid, func(p []byte) { p[2] = 2 }), nil, "5/26/00", "list 8", ""},
		{"zero type asked for", with(valid, func(p []byte) { p[2] = 2; be.PutUint32(p[8:], 0xFFFF0001) }), nil, "5/26/00", "list 8", ""},
		{"offset at the end of the token", nil, writeParameters(token, 16, rangeOf{64, 8}), "5/26/00", "", "list 8"},
		{"offset that no token has", nil, writeParameters(token, 1<<60, rangeOf{64, 8}), "5/26/00", "", "list 8"},
		{"offset that overflows", nil, writeParameters(token, 1<<64-1, rangeOf{64, 8}), "5/26/00", "", "list 8"},
	} {
		if tc.populate != nil {
			a := b.populate(lunA, 5, tc.populate)
			if a.code() != tc.want || a.field() != tc.field {
				t.Errorf("%s: POPULATE TOKEN %s %q, want %s %q", tc.name, a.code(), a.field(), tc.want, tc.field)
			}
			b.wantRefusalOnRecord(t, lunA, 5, 0x10, a)
		}
		if tc.write != nil {
			a := b.writeUsing(lunA, 5, tc.write)
			if a.code() != tc.want || a.field() != tc.writeField {
				t.Errorf("%s: WRITE USING TOKEN %s %q, want %s %q", tc.name, a.code(), a.field(), tc.want, tc.writeField)
			}
			b.wantRefusalOnRecord(t, lunA, 5, 0x11, a)
		}
	}
	if !bytes.Equal(b.contents(t, lunA), before) {
		t.Error("a refused command wrote")
	}
	if live := b.tokens.Stats().Live; live != 1 {
		t.Errorf("%d tokens are live, want the one", live)
	}
}

// wantRefusalOnRecord checks that the report of a refused command holds its
// sense data: Windows asks for it to learn the cause.
func (b *testbed) wantRefusalOnRecord(t *testing.T, lun int, listID uint32, action byte, refused answer) {
	t.Helper()
	a := b.rodTokenInformation(lun, listID, 287)
	if a.code() != "GOOD" || len(a.data) < 32+20+4 {
		t.Errorf("report of the refused command: %s, %d bytes", a.code(), len(a.data))
		return
	}
	p := a.data
	if p[4] != action || p[5] != 0x02 || p[12] != 0x02 || binary.BigEndian.Uint64(p[16:]) != 0 {
		t.Errorf("report of the refused command: % x", p[:32])
	}
	if !bytes.Equal(p[32:32+int(p[14])], refused.sense) {
		t.Errorf("sense data % x in the report, % x sent", p[32:32+int(p[14])], refused.sense)
	}
}

// Parameters that the standard says to ignore.
func TestParameters_Tolerated(t *testing.T) {
	b := start(t, tokens.Limits{})
	be := binary.BigEndian
	token := b.token(t, lunA, rangeOf{0, 16})
	for _, tc := range []struct {
		name     string
		populate []byte
		write    []byte
		blocks   uint64
	}{
		{"no parameter list", []byte{}, []byte{}, 0},
		{"incomplete descriptor at the end",
			with(append(populateParameters(rangeOf{0, 8}), make([]byte, 9)...), func(p []byte) { be.PutUint16(p, 0x1E+9); be.PutUint16(p[14:], 25) }),
			with(append(writeParameters(token, 0, rangeOf{64, 8}), make([]byte, 9)...), func(p []byte) { be.PutUint16(p, 0x226+9); be.PutUint16(p[534:], 25) }), 8},
		{"descriptors cut off by the parameter list length", populateParameters(rangeOf{0, 4}, rangeOf{8, 4}, rangeOf{16, 4})[:16+32],
			writeParameters(token, 0, rangeOf{64, 4}, rangeOf{72, 4}, rangeOf{80, 4})[:536+32], 8},
		{"descriptor cut in the middle", populateParameters(rangeOf{0, 4}, rangeOf{8, 4})[:16+31],
			writeParameters(token, 0, rangeOf{64, 4}, rangeOf{72, 4})[:536+31], 4},
		{"every descriptor cut off", populateParameters(rangeOf{0, 4})[:16], writeParameters(token, 0, rangeOf{64, 4})[:536], 0},
		{"more descriptors than allowed, cut off", populateParameters(manyRanges(300)...)[:16+32],
			writeParameters(token, 0, manyRanges(300)...)[:536+32], 2},
		{"empty ranges", populateParameters(rangeOf{0, 0}, rangeOf{unitBlocks, 0}),
			writeParameters(token, 0, rangeOf{0, 0}, rangeOf{unitBlocks, 0}), 0},
		{"empty range inside another", populateParameters(rangeOf{0, 8}, rangeOf{4, 0}), writeParameters(token, 0, rangeOf{64, 8}, rangeOf{68, 0}), 8},
		{"ranges that touch", populateParameters(rangeOf{8, 8}, rangeOf{0, 8}), writeParameters(token, 0, rangeOf{72, 8}, rangeOf{64, 8}), 16},
		{"type without RTV", with(populateParameters(rangeOf{0, 8}), func(p []byte) { be.PutUint32(p[8:], 0xFFFF0001) }), nil, 8},
		{"default type", with(populateParameters(rangeOf{0, 8}), func(p []byte) { p[2] = 2; be.PutUint32(p[8:], 0x00800000) }), nil, 8},
		{"any type", with(populateParameters(rangeOf{0, 8}), func(p []byte) { p[2] = 2; be.PutUint32(p[8:], 0x0080FFFF) }), nil, 8},
		{"longest inactivity timeout", with(populateParameters(rangeOf{0, 8}), func(p []byte) { be.PutUint32(p[4:], 600) }), nil, 8},
		{"data length larger than needed", with(populateParameters(rangeOf{0, 8}), func(p []byte) { be.PutUint16(p, 0x2E) }),
			with(writeParameters(token, 0, rangeOf{64, 8}), func(p []byte) { be.PutUint16(p, 0x236) }), 8},
		{"padding after the descriptors", with(append(populateParameters(rangeOf{0, 8}), make([]byte, 40)...), func(p []byte) { be.PutUint16(p, 0x1E+40) }),
			with(append(writeParameters(token, 0, rangeOf{64, 8}), make([]byte, 40)...), func(p []byte) { be.PutUint16(p, 0x226+40) }), 8},
	} {
		b.manager.operations.dropNexus(owner{b.target.LU(lunA), b.nexus})
		if tc.populate != nil {
			if a := b.populate(lunA, 1, tc.populate); a.code() != "GOOD" {
				t.Errorf("%s: POPULATE TOKEN %s", tc.name, a.code())
			}
			b.wantReport(t, tc.name, lunA, 1, len(tc.populate) > 0, tc.blocks, tc.blocks > 0)
		}
		if tc.write != nil {
			if a := b.writeUsing(lunA, 2, tc.write); a.code() != "GOOD" {
				t.Errorf("%s: WRITE USING TOKEN %s", tc.name, a.code())
			}
			b.wantReport(t, tc.name, lunA, 2, len(tc.write) > 0, tc.blocks, false)
		}
	}
}

func (b *testbed) wantReport(t *testing.T, name string, lun int, listID uint32, exists bool, blocks uint64, token bool) {
	t.Helper()
	a := b.rodTokenInformation(lun, listID, 805)
	if !exists {
		if a.code() != "5/24/00" {
			t.Errorf("%s: report %s, want none", name, a.code())
		}
		return
	}
	length := 36
	if token {
		length = 550
	}
	if a.code() != "GOOD" || len(a.data) != length || a.data[5] != 0x01 || binary.BigEndian.Uint64(a.data[16:]) != blocks {
		t.Errorf("%s: report %s of %d bytes (want %d), % x", name, a.code(), len(a.data), length, a.data[:min(len(a.data), 32)])
	}
}

// A range may be as long as one transfer of the Block Limits page, several together
// longer.
func TestCheckRanges_MaximumTransferLength(t *testing.T) {
	most := rangeLimits{capacity: 1 << 40, longest: 1000, total: 1 << 30}
	for _, tt := range []struct {
		ranges []blockRange
		field  int // 0: good
	}{
		{[]blockRange{{0, 1000, 16}}, 0},
		{[]blockRange{{0, 1001, 16}}, 24},
		{[]blockRange{{0, 1000, 16}, {5000, 1000, 32}}, 0},
		{[]blockRange{{0, 1000, 16}, {5000, 1001, 32}}, 40},
	} {
		total, err := checkRanges(tt.ranges, most)
		if tt.field == 0 {
			if err != nil || total != uint64(1000*len(tt.ranges)) {
				t.Errorf("%v: %d, %v", tt.ranges, total, err)
			}
			continue
		}
		if want := sense.InvalidFieldInParameterList(tt.field, sense.WholeField); fmt.Sprint(err) != fmt.Sprint(want) || err.(*sense.Error).SenseKeySpecific != want.SenseKeySpecific {
			t.Errorf("%v: %v, want %v", tt.ranges, err, want)
		}
	}
	b := start(t, tokens.Limits{})
	page := b.send(ctx, b.nexus, lunA, []byte{0x12, 1, 0xB0, 0, 64, 0}, nil).data
	if got := binary.BigEndian.Uint32(page[8:]); got != b.manager.units[0].rangeLimits().longest || got < 65535 {
		t.Errorf("MAXIMUM TRANSFER LENGTH %d", got)
	}
}

func TestParameters_ListTooLong(t *testing.T) {
	b := start(t, tokens.Limits{})
	for _, length := range []uint32{65538, 1 << 24, 1<<32 - 1} {
		for _, action := range []byte{0x10, 0x11} {
			if a := b.send(ctx, b.nexus, lunA, copyOutCDB(action, 1, length), make([]byte, 1024)); a.code() != "5/1A/00" {
				t.Errorf("service action %02Xh, length %d: %s", action, length, a.code())
			}
		}
	}
}

// SPC-4 5.17.6.5.2.3 and table: one additional sense code for each defect of a token.
func TestWriteUsingToken_RefusedTokens(t *testing.T) {
	b := start(t, tokens.Limits{Tombstones: 5})
	before := b.fill(t, lunB, 1)
	end := func(reason tokens.Reason) []byte {
		token := b.token(t, lunA, rangeOf{0, 8})
		if err := b.tokens.Delete(ctx, (*tokens.Token)(token).ID(), reason); err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := b.token(t, lunA, rangeOf{0, 8})
	forgotten := end(tokens.Expired)
	expired, cancelled, revoked, deleted := end(tokens.Expired), end(tokens.Cancelled), end(tokens.Revoked), end(tokens.Deleted)
	end(tokens.Expired)
	for _, tc := range []struct {
		name  string
		token []byte
		want  string
	}{
		{"wrong length", with(good, func(p []byte) { p[7] = 0 }), "5/23/0A"},
		{"all zeros", make([]byte, 512), "5/23/0A"},
		{"zero type, wrong length", with(make([]byte, 512), func(p []byte) { binary.BigEndian.PutUint32(p, 0xFFFF0001) }), "5/23/0A"},
		{"a changed bit", with(good, func(p []byte) { p[511] ^= 1 }), "5/23/05"},
		{"another type", with(good, func(p []byte) { p[1] = 0x01 }), "5/23/05"},
		{"foreign, of another type", with(make([]byte, 512), func(p []byte) { p[1], p[6], p[7], p[16] = 2, 1, 0xF8, 0xE4 }), "5/23/01"},
		{"foreign", with(make([]byte, 512), func(p []byte) { p[1], p[6], p[7], p[16] = 0x80, 1, 0xF8, 0xE4 }), "5/23/02"},
		{"expired", expired, "5/23/07"},
		{"cancelled", cancelled, "5/23/08"},
		{"revoked", revoked, "5/23/06"},
		{"deleted", deleted, "5/23/09"},
		{"forgotten", forgotten, "5/23/04"},
	} {
		// The offset is bad as well, but the token comes first.
		for _, offset := range []uint64{0, 1 << 62} {
			a := b.writeUsing(lunB, 9, writeParameters(tc.token, offset, rangeOf{0, 1}))
			if strings.HasPrefix(tc.name, "zero") && offset > 0 {
				continue
			}
			if a.code() != tc.want {
				t.Errorf("%s: %s, want %s", tc.name, a.code(), tc.want)
			}
			b.wantRefusalOnRecord(t, lunB, 9, 0x11, a)
		}
	}
	if a := b.writeUsing(lunB, 9, writeParameters(good, 0, rangeOf{0, 1})); a.code() != "GOOD" {
		t.Errorf("the good token: %s", a.code())
	}
	copy(before, b.contents(t, lunA)[:4096])
	if !bytes.Equal(b.contents(t, lunB), before) {
		t.Error("a refused token wrote")
	}
}

func TestWriteUsingToken_AlteredToken(t *testing.T) {
	b := start(t, tokens.Limits{})
	before := b.fill(t, lunB, 1)
	token := b.token(t, lunA, rangeOf{0, 8})
	for i := range token {
		want := "5/23/05"
		if i == 6 || i == 7 {
			want = "5/23/0A"
		}
		bad := with(token, func(p []byte) { p[i] ^= 0x20 })
		if a := b.writeUsing(lunB, 9, writeParameters(bad, 0, rangeOf{0, 1})); a.code() != want {
			t.Errorf("byte %d: %s, want %s", i, a.code(), want)
		}
	}
	if !bytes.Equal(b.contents(t, lunB), before) {
		t.Error("an altered token wrote")
	}
}

func TestWriteUsingToken_WriteProtected(t *testing.T) {
	b := start(t, tokens.Limits{})
	token := b.token(t, lunRO, rangeOf{0, 8})
	a := b.writeUsing(lunRO, 3, writeParameters(token, 0, rangeOf{8, 8}))
	if a.code() != "7/27/00" {
		t.Errorf("%s", a.code())
	}
	b.wantRefusalOnRecord(t, lunRO, 3, 0x11, a)
}

func TestCopy_ReservationConflict(t *testing.T) {
	b := start(t, tokens.Limits{})
	token := b.token(t, lunA, rangeOf{0, 8})
	holder := b.attach("iqn.2026-11.example:other")
	if a := b.send(ctx, holder, lunA, []byte{0x16, 0, 0, 0, 0, 0}, nil); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	const conflict = "status 18h"
	if a := b.populate(lunA, 1, populateParameters(rangeOf{0, 8})); a.code() != conflict {
		t.Errorf("POPULATE TOKEN: %s", a.code())
	}
	if a := b.writeUsing(lunA, 1, writeParameters(token, 0, rangeOf{0, 8})); a.code() != conflict {
		t.Errorf("WRITE USING TOKEN: %s", a.code())
	}
	if a := b.rodTokenInformation(lunA, 77, 805); a.code() != "GOOD" {
		t.Errorf("RECEIVE ROD TOKEN INFORMATION: %s", a.code())
	}
	if a := b.copyStatus(lunA, 77, 805); a.code() != "GOOD" {
		t.Errorf("RECEIVE COPY STATUS: %s", a.code())
	}
}

func TestCopy_NoResources(t *testing.T) {
	b := start(t, tokens.Limits{TokensPerInitiator: 1})
	b.token(t, lunA, rangeOf{0, 8})
	a := b.populate(lunA, 1, populateParameters(rangeOf{0, 8}))
	if a.code() != "5/55/0D" {
		t.Errorf("second token: %s", a.code())
	}
	b.wantRefusalOnRecord(t, lunA, 1, 0x10, a)

	b = start(t, tokens.Limits{})
	b.store.FailWith(func(op string) error {
		if op == "Snapshot" {
			return blockdev.ErrNoSpace
		}
		return nil
	})
	if a := b.populate(lunA, 1, populateParameters(rangeOf{0, 8})); a.code() != "5/55/0C" {
		t.Errorf("full store: %s", a.code())
	}
}

func TestCopy_StoreErrors(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string // when nothing was written
	}{
		{blockdev.ErrNoSpace, "7/27/07"},
		{blockdev.ErrCorrupt, "3/11/00"},
		{errors.New("disk on fire"), "4/44/00"},
	} {
		for _, after := range []int{0, 2} {
			b := start(t, tokens.Limits{})
			token := b.token(t, lunA, rangeOf{0, 64})
			b.store.MapAtMost(8 * 512)
			calls := 0
			b.store.FailWith(func(op string) error {
				if op == "Map" {
					if calls++; calls > after {
						return tc.err
					}
				}
				return nil
			})
			a := b.writeUsing(lunB, 1, writeParameters(token, 0, rangeOf{0, 8}))
			if after == 0 {
				if a.code() != tc.want {
					t.Errorf("%v: %s, want %s", tc.err, a.code(), tc.want)
				}
				b.wantRefusalOnRecord(t, lunB, 1, 0x11, a)
				continue
			}
			// The completed part is reported; the initiator gets the error when it
			// continues.
			b.wantUnderrun(t, lunB, 1, a, 2)
		}
	}
}

// wantUnderrun checks the answer to a write that ended after count blocks, and
// its report.
func (b *testbed) wantUnderrun(t *testing.T, lun int, listID uint32, a answer, count uint64) {
	t.Helper()
	if info, ok := a.information(); a.code() != "A/0D/04" || !ok || uint64(info) != count {
		t.Errorf("%s, INFORMATION %d %v; want A/0D/04 and %d", a.code(), info, ok, count)
	}
	p := b.rodTokenInformation(lun, listID, 287).data
	if len(p) != 56 || p[5] != 0x04 || p[12] != 0x02 || binary.BigEndian.Uint64(p[16:]) != count {
		t.Errorf("report % x", p)
	}
}

func TestWriteUsingToken_EndOfToken(t *testing.T) {
	b := start(t, tokens.Limits{})
	data := b.fill(t, lunA, 3)
	b.fill(t, lunB, 4)
	token := b.token(t, lunA, rangeOf{0, 12}) // a block and a half of the destination
	a := b.writeUsing(lunB, 1, writeParameters(token, 0, rangeOf{10, 1}, rangeOf{20, 5}))
	b.wantUnderrun(t, lunB, 1, a, 2)
	got := b.contents(t, lunB)
	want := append(bytes.Clone(data[4096:6144]), make([]byte, 2048)...)
	if !bytes.Equal(got[10*4096:11*4096], data[:4096]) || !bytes.Equal(got[20*4096:21*4096], want) {
		t.Error("wrong data: the last block should end in zeros")
	}
	if a := b.writeUsing(lunB, 1, writeParameters(token, 1, rangeOf{10, 1})); a.code() != "GOOD" {
		t.Errorf("the part of a block alone: %s", a.code())
	}
	if a := b.writeUsing(lunB, 1, writeParameters(token, 2, rangeOf{10, 1})); a.code() != "5/26/00" {
		t.Errorf("after the part of a block: %s", a.code())
	}
}

func TestWriteUsingToken_Abort(t *testing.T) {
	b := start(t, tokens.Limits{})
	token := b.token(t, lunA, rangeOf{0, 64})
	stopped, stop := context.WithCancel(ctx)
	b.store.MapAtMost(4096)
	pieces := 0
	b.store.FailWith(func(op string) error {
		if op == "Map" {
			if pieces++; pieces == 2 {
				stop()
			}
		}
		return nil
	})
	parameters := writeParameters(token, 0, rangeOf{0, 8})
	a := b.send(stopped, b.nexus, lunB, copyOutCDB(0x11, 4, uint32(len(parameters))), parameters)
	if a.status == scsi.StatusGood {
		t.Error("the aborted command is good")
	}
	p := b.rodTokenInformation(lunB, 4, 287).data
	if len(p) != 36 || p[5] != 0x60 || p[12] != 0x40 || binary.BigEndian.Uint64(p[16:]) != 1 {
		t.Errorf("report % x; want status 60h, TASK ABORTED, one block", p)
	}
}

func TestStats_Refusals(t *testing.T) {
	b := start(t, tokens.Limits{})
	b.populate(lunA, 1, populateParameters(rangeOf{unitBlocks, 1}))
	b.writeUsing(lunA, 1, writeParameters(make([]byte, 512), 0, rangeOf{0, 1}))
	b.rodTokenInformation(lunA, 99, 805)
	s := b.manager.Stats()
	if s.Refused != 3 || s.RefusedBy["21h/00h"] != 1 || s.RefusedBy["23h/0Ah"] != 1 || s.RefusedBy["24h/00h"] != 1 {
		t.Errorf("%+v", s)
	}
	lines := strings.Split(strings.TrimSpace(b.log.String()), "\n")
	var refusals []string
	for _, l := range lines {
		if strings.Contains(l, "copy command refused") {
			refusals = append(refusals, l)
		}
	}
	for i, want := range []string{"POPULATE TOKEN", "token has an invalid length", "no copy operation of this I_T nexus with this list identifier"} {
		if i >= len(refusals) || !strings.Contains(refusals[i], want) || !strings.Contains(refusals[i], "iqn.2026-11.example:host") {
			t.Errorf("log line %d lacks %q: %v", i, want, refusals)
		}
	}
}

func TestPopulateToken_PartialToken(t *testing.T) {
	b := start(t, tokens.Limits{}).hurried()
	b.fill(t, lunOutside, 1)
	if a := b.populate(lunOutside, 1, populateParameters(rangeOf{0, 8}, rangeOf{8, 8})); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	p := b.rodTokenInformation(lunOutside, 1, 805).data
	if len(p) != 550 || p[5] != 0x04 || p[12] != 0 || binary.BigEndian.Uint64(p[16:]) != 8 {
		t.Errorf("report % x; want status 04h and 8 blocks", p[:32])
	}
	if got := binary.BigEndian.Uint64(p[38+56:]); got != 4096 {
		t.Errorf("the token represents %d bytes", got)
	}
}
