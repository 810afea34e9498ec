package copymgr

import (
	"encoding/binary"
	"strings"
	"testing"

	"odx/target/scsi"
	"odx/tokens"
)

// The counters and the log have every refused copy command with the reason, whether the
// device server, the copy manager or a logical unit of the copy refused it.
func TestStats_RefusalKinds(t *testing.T) {
	b := start(t, tokens.Limits{})
	other := b.attach("iqn.2026-11.example:other")
	token := b.token(t, lunA, rangeOf{0, 8})
	whole := populateParameters(rangeOf{0, 8})
	populate := func(n *scsi.Nexus, lun int) answer {
		return b.send(ctx, n, lun, copyOutCDB(0x10, 9, uint32(len(whole))), whole)
	}
	for _, tc := range []struct {
		what    string
		do      func() answer
		command string
		by      string
		reason  string
	}{
		{"service action", func() answer { return b.send(ctx, b.nexus, lunA, copyOutCDB(0x1D, 0, 0), nil) },
			"operation code 83h, service action 1Dh", "20h/00h", "ILLEGAL REQUEST"},
		{"NACA", func() answer {
			cdb := copyInCDB(0x05, 1, 32)
			cdb[15] = 4
			return b.send(ctx, b.nexus, lunA, cdb, nil)
		}, nameCopyStatusLID4, "24h/00h", "ILLEGAL REQUEST"},
		{"reservation", func() answer {
			b.send(ctx, other, lunB, []byte{0x16, 0, 0, 0, 0, 0}, nil)
			defer b.send(ctx, other, lunB, []byte{0x17, 0, 0, 0, 0, 0}, nil)
			return b.writeUsing(lunB, 1, writeParameters(token, 0, rangeOf{0, 1}))
		}, nameWriteUsingToken, "RESERVATION CONFLICT", "reservation conflict"},
		{"unit whose erasure has failed", func() answer {
			b.failSanitize(lunB)
			defer b.send(ctx, other, lunB, []byte{0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0}, nil)
			return populate(b.nexus, lunB)
		}, namePopulateToken, "31h/03h", "MEDIUM ERROR"},
		{"write protection", func() answer { return b.writeUsing(lunRO, 1, writeParameters(token, 0, rangeOf{0, 8})) },
			nameWriteUsingToken, "27h/00h", "DATA PROTECT"},
		{"token", func() answer { return b.writeUsing(lunB, 1, writeParameters(make([]byte, 512), 0, rangeOf{0, 1})) },
			nameWriteUsingToken, "23h/0Ah", tokens.ErrInvalidLength.Error()},
		{"rule", func() answer {
			b.manager.Reconfigure(Rules{{From: []string{"volume0"}, Deny: true}})
			defer b.manager.Reconfigure(nil)
			return populate(b.nexus, lunA)
		}, namePopulateToken, "20h/02h", errRule.Error()},
		{"parameter list", func() answer {
			return b.send(ctx, b.nexus, lunA, copyOutCDB(0x00, 0, 1), []byte{1})
		}, nameExtendedCopyLID1, "1Ah/00h", errParameters.Error()},
		{"segment", func() answer {
			return b.extendedCopy(lunA, 1, lid4Parameters(5, 0, 0, b.cscds(), segmentOf{kind: 2, source: 1, destination: 9, count: 1}))
		}, nameExtendedCopyLID4, "08h/04h", errNoCSCD.Error()},
		{"list identifier", func() answer { return b.send(ctx, b.nexus, lunA, copyOutAbortCDB(77), nil) },
			nameCopyOperationAbort, "24h/00h", errNotRunning.Error()},
	} {
		before := b.manager.Stats()
		b.log.Reset()
		if a := tc.do(); a.code() == "GOOD" {
			t.Errorf("%s: GOOD", tc.what)
		}
		after := b.manager.Stats()
		if after.Partial != before.Partial {
			t.Errorf("%s: counted as a copy of a part", tc.what)
		}
		if after.Refused != before.Refused+1 || after.RefusedBy[tc.by] != before.RefusedBy[tc.by]+1 {
			t.Errorf("%s: counted as %v, was %v", tc.what, after.RefusedBy, before.RefusedBy)
		}
		r := after.Recent[0]
		if r.Command != tc.command || !strings.Contains(r.Reason, tc.reason) || r.Initiator == "" || r.Volume == "" || r.Time.Before(after.Since) {
			t.Errorf("%s: noted as %+v", tc.what, r)
		}
		if line := b.log.String(); !strings.Contains(line, "copy command refused") || !strings.Contains(line, tc.command) || !strings.Contains(line, tc.reason) {
			t.Errorf("%s: the log has %q", tc.what, line)
		}
	}
}

// A unit attention is no refusal.
func TestStats_UnitAttention(t *testing.T) {
	b := start(t, tokens.Limits{})
	n := b.target.Attach(scsi.NexusID{InitiatorName: "iqn.2026-11.example:new", TargetName: b.target.Name(), TargetPortalGroupTag: 1})
	whole := populateParameters(rangeOf{0, 8})
	for _, want := range []string{"6/29/00", "GOOD"} {
		if a := b.send(ctx, n, lunA, copyOutCDB(0x10, 9, uint32(len(whole))), whole); a.code() != want {
			t.Errorf("%s, want %s", a.code(), want)
		}
	}
	if s := b.manager.Stats(); s.Refused != 0 || len(s.Recent) != 0 || s.Populated != 1 {
		t.Errorf("%+v", s)
	}
}

// What is mapped is distinguished from what is moved: from and to volumes outside the store,
// and where source and destination do not lie alike to its blocks.
func TestStats_MovedBytes(t *testing.T) {
	b := start(t, tokens.Limits{})
	b.fill(t, lunA, 1)
	const n = 64 << 10
	counts := func() [6]uint64 {
		s := b.manager.Stats()
		return [6]uint64{s.PopulatedBytes, s.PopulatedMovedBytes, s.WrittenBytes, s.WrittenMovedBytes, s.ExtendedBytes, s.ExtendedMovedBytes}
	}
	for _, tt := range []struct {
		name     string
		from, to int
		want     [6]uint64
	}{
		{"in the store", lunA, lunA, [6]uint64{n, 0, n, 0, n, 0}},
		{"from outside", lunOutside, lunA, [6]uint64{n, n, n, 0, n, n}},
		{"to outside", lunA, lunOutside, [6]uint64{n, 0, n, n, n, n}},
	} {
		before := counts()
		token := b.token(t, tt.from, rangeOf{0, n / 512})
		if a := b.writeUsing(tt.to, 5, writeParameters(token, 0, rangeOf{n / 512, n / 512})); a.code() != "GOOD" {
			t.Fatal(a.code())
		}
		if a := b.extendedCopy(lunA, 0, lid1Parameters(1, 0, b.cscds(),
			segmentOf{kind: 2, source: uint16(tt.from), destination: uint16(tt.to), count: n / 512, destinationLBA: 2 * n / 512})); a.code() != "GOOD" {
			t.Fatal(a.code())
		}
		got := counts()
		for i := range got {
			if got[i]-before[i] != tt.want[i] {
				t.Errorf("%s: count %d is %d more, want %d", tt.name, i, got[i]-before[i], tt.want[i])
			}
		}
	}
}

func copyOutAbortCDB(listID uint32) []byte {
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = 0x83, 0x1C
	binary.BigEndian.PutUint32(cdb[2:], listID)
	return cdb
}

// The last refusals are kept, the latest first, and no more of them than said.
func TestStats_RecentBound(t *testing.T) {
	b := start(t, tokens.Limits{})
	for i := range 2*maxRecent + 3 {
		b.rodTokenInformation([]int{lunA, lunB}[i%2], uint32(i), 805)
	}
	s := b.manager.Stats()
	if len(s.Recent) != maxRecent || s.Refused != 2*maxRecent+3 {
		t.Fatalf("%d of %d refusals", len(s.Recent), s.Refused)
	}
	for i, r := range s.Recent {
		if want := []string{"volume0", "volume1"}[i%2]; r.Volume != want {
			t.Errorf("refusal %d is of %s, want %s", i, r.Volume, want)
		}
		if i > 0 && r.Time.After(s.Recent[i-1].Time) {
			t.Errorf("refusal %d is later than the one before", i)
		}
	}
}
