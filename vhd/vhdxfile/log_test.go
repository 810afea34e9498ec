package vhdxfile

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"odx/internal/kit/must"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

// logAt is an unused offset in the metadata region, which the logs of these tests write
// to.
const logAt = newMetadataAt + 512*kib

// logID is the identifier of the logs of these tests.
var logID = mustGUID("11111111-2222-3333-4444-555555555555")

// rawEntry is a log entry that a test constructs.
type rawEntry struct {
	at       int // in the log, in bytes
	sequence uint64
	tail     int
	fill     byte  // of the updated sector
	dest     int64 // offset of the updated sector
	zeros    int64 // length of zeros instead of a sector, if not zero
	last     int64 // LastFileOffset
	damage   func(p []byte)
	afterCRC func(p []byte)
}

func (e rawEntry) encode() []byte {
	target := e.dest
	if target == 0 {
		target = logAt
	}
	entry := logEntry{tail: uint32(e.tail), sequence: e.sequence, log: logID, flushed: 4 * mib, last: uint64(max(e.last, 4*mib))}
	entry.pieces = []piece{{target, sectorLength, bytes.Repeat([]byte{e.fill}, sectorLength)}}
	p := entry.encode()
	if e.zeros > 0 {
		p = p[:sectorLength]
		le.PutUint32(p[8:], sectorLength)
		d := p[entryHeaderLength:]
		copy(d, "zero\x00\x00\x00\x00")
		le.PutUint64(d[8:], uint64(e.zeros))
	}
	if e.damage != nil {
		e.damage(p)
	}
	seal(p)
	if e.afterCRC != nil {
		e.afterCRC(p)
	}
	return p
}

// withLog returns a disk whose log has the entries.
func withLog(t testing.TB, entries ...rawEntry) *disktest.Memory {
	t.Helper()
	m, f := newDisk(t, spec(disk.Dynamic, 4*mib))
	must.Succeed(t, m.WriteAt(t.Context(), bytes.Repeat([]byte{'o'}, 2*sectorLength), logAt))
	log := make([]byte, newLogLength)
	for _, e := range entries {
		p := e.encode()
		n := copy(log[e.at:], p)
		copy(log, p[n:])
	}
	must.Succeed(t, m.WriteAt(t.Context(), log, newLogAt))
	must.Succeed(t, f.headers.update(t.Context(), m, func(h *header) { h.log = logID }))
	return m
}

// Logs are constructed by hand.
func TestOpen_Replay(t *testing.T) {
	const last = newLogLength - sectorLength
	put32 := func(at int, v uint32) func([]byte) { return func(p []byte) { le.PutUint32(p[at:], v) } }
	put64 := func(at int, v uint64) func([]byte) { return func(p []byte) { le.PutUint64(p[at:], v) } }
	torn := func(p []byte) { clear(p[sectorLength:]) }
	a := rawEntry{sequence: 7, fill: 'a'}
	b := rawEntry{sequence: 8, fill: 'b', at: 2 * sectorLength}
	for name, tt := range map[string]struct {
		entries []rawEntry
		want    string // the first byte of two sectors, or part of the error
		grown   bool
	}{
		"one entry":                           {[]rawEntry{a}, "ao", false},
		"the second entry wins":               {[]rawEntry{a, b}, "bo", false},
		"an entry that was torn is dropped":   {[]rawEntry{a, {sequence: 8, fill: 'b', at: 2 * sectorLength, afterCRC: torn}}, "ao", false},
		"the last one reaches over the end":   {[]rawEntry{{sequence: 7, fill: 'a', at: last, tail: last}}, "ao", false},
		"the second one begins at the start":  {[]rawEntry{{sequence: 7, fill: 'a', at: last - sectorLength, tail: last - sectorLength}, {sequence: 8, fill: 'b', tail: last - sectorLength}}, "bo", false},
		"what is before the tail is done":     {[]rawEntry{{sequence: 7, fill: 'a', dest: logAt + sectorLength}, {sequence: 8, fill: 'b', at: 2 * sectorLength, tail: 2 * sectorLength}}, "bo", false},
		"an older sequence stays after":       {[]rawEntry{{sequence: 3, fill: 'x'}, {sequence: 9, fill: 'y', at: 8 * sectorLength, tail: 8 * sectorLength}}, "yo", false},
		"an older sequence follows":           {[]rawEntry{{sequence: 9, fill: 'y'}, {sequence: 3, fill: 'x', at: 8 * sectorLength, tail: 8 * sectorLength}}, "yo", false},
		"a sequence without its tail":         {[]rawEntry{a, {sequence: 9, fill: 'y', at: 8 * sectorLength, tail: 4 * sectorLength}}, "ao", false},
		"a gap in the numbers":                {[]rawEntry{a, {sequence: 9, fill: 'y', at: 2 * sectorLength}}, "ao", false},
		"zeros":                               {[]rawEntry{{sequence: 7, zeros: 2 * sectorLength}}, "\x00\x00", false},
		"zeros, then data":                    {[]rawEntry{{sequence: 7, zeros: 2 * sectorLength, at: 0}, {sequence: 8, fill: 'b', at: sectorLength}}, "b\x00", false},
		"the file grows":                      {[]rawEntry{{sequence: 7, fill: 'a', last: 6 * mib}}, "ao", true},
		"entries of another log":              {[]rawEntry{{sequence: 7, fill: 'a', damage: put32(32, 0)}}, "oo", false},
		"no sequence number":                  {[]rawEntry{{sequence: 0, fill: 'a'}}, "log is damaged", false},
		"nothing but an entry that was torn":  {[]rawEntry{{sequence: 7, fill: 'a', afterCRC: torn}}, "oo", false},
		"the checksum":                        {[]rawEntry{{sequence: 7, fill: 'a', afterCRC: put32(4, 0)}}, "log is damaged", false},
		"a bit":                               {[]rawEntry{{sequence: 7, fill: 'a', afterCRC: func(p []byte) { p[sectorLength+100] ^= 1 }}}, "log is damaged", false},
		"longer than the log":                 {[]rawEntry{{sequence: 7, fill: 'a', damage: put32(8, 2*mib)}}, "log is damaged", false},
		"half a sector":                       {[]rawEntry{{sequence: 7, fill: 'a', damage: put32(8, sectorLength/2)}}, "log is damaged", false},
		"no length":                           {[]rawEntry{{sequence: 7, fill: 'a', damage: put32(8, 0)}}, "log is damaged", false},
		"more descriptors than there is room": {[]rawEntry{{sequence: 7, fill: 'a', damage: put32(24, 1<<31)}}, "log is damaged", false},
		"a descriptor without data":           {[]rawEntry{{sequence: 7, fill: 'a', damage: put32(24, 2)}}, "log is damaged", false},
		"data without a descriptor":           {[]rawEntry{{sequence: 7, fill: 'a', damage: put32(24, 0)}}, "log is damaged", false},
		"a descriptor of another entry":       {[]rawEntry{{sequence: 7, fill: 'a', damage: put64(entryHeaderLength+24, 6)}}, "log is damaged", false},
		"data of another entry":               {[]rawEntry{{sequence: 7, fill: 'a', damage: put32(2*sectorLength-4, 6)}}, "oo", false},
		"half a sector of the file":           {[]rawEntry{{sequence: 7, fill: 'a', dest: logAt + 512}}, "log is damaged", false},
		"the file was truncated":              {[]rawEntry{{sequence: 7, fill: 'a', damage: put64(48, 5*mib)}}, "was truncated", false},
		"a file larger than there are":        {[]rawEntry{{sequence: 7, fill: 'a', damage: put64(56, 1<<60)}}, "requires a file", false},
		"beyond the file":                     {[]rawEntry{{sequence: 7, fill: 'a', dest: 6*mib - sectorLength}}, "oo", true},
		"zeros beyond the file":               {[]rawEntry{{sequence: 7, zeros: 6*mib - logAt}}, "\x00\x00", true},
		"zeros beyond all files":              {[]rawEntry{{sequence: 7, zeros: maxFile}}, "requires a file", false},
		"far beyond all files":                {[]rawEntry{{sequence: 7, fill: 'a', dest: 1 << 62}}, "log is damaged", false},
		"a header":                            {[]rawEntry{{sequence: 7, fill: 'a', dest: 64 * kib}}, "does not go through the log", false},
		"the log":                             {[]rawEntry{{sequence: 7, fill: 'a', dest: newLogAt}}, "does not go through the log", false},
		"the region table, with nonsense":     {[]rawEntry{{sequence: 7, fill: 'a', dest: regionTableAt(0)}}, "oo", false},
	} {
		t.Run(name, func(t *testing.T) {
			m := withLog(t, tt.entries...)
			size := m.Size()
			read := func(f *File) string {
				p := make([]byte, sectorLength+1)
				must.Succeed(t, f.view.readAt(t.Context(), p, logAt))
				return string([]byte{p[0], p[sectorLength]})
			}
			r, readErr := OpenReadOnly(t.Context(), m)
			if m.Size() != size {
				t.Error("OpenReadOnly changed the length of the file")
			}
			f, err := Open(t.Context(), m)
			if err != nil || readErr != nil {
				if !errors.Is(err, disk.ErrFormat) || !errors.Is(readErr, disk.ErrFormat) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("errors %q, %q, want %q", readErr, err, tt.want)
				}
				return
			}
			if got := read(r); got != tt.want {
				t.Errorf("opened for reading it reads %q, want %q", got, tt.want)
			}
			if got := read(f); got != tt.want || f.headers.log != (disk.GUID{}) {
				t.Errorf("it reads %q, want %q", got, tt.want)
			}
			if grown := m.Size() == 6*mib; grown != tt.grown {
				t.Errorf("it has %d bytes", m.Size())
			}
		})
	}
}

// The log of a file that is opened read-only changes payload.
func TestOpenReadOnly_ReplayPayload(t *testing.T) {
	ctx := t.Context()
	m := withLog(t, rawEntry{sequence: 1, fill: 'a', dest: 4 * mib, last: 5 * mib})
	bat := make([]byte, sectorLength)
	le.PutUint64(bat, entry(fullyPresent, 4*mib))
	must.Succeed(t, m.WriteAt(ctx, bat, newBATAt))
	reads := func() {
		t.Helper()
		before := m.Bytes()
		f, err := OpenReadOnly(ctx, m)
		must.Succeed(t, err)
		p := make([]byte, mib)
		must.Succeed(t, f.Payload().ReadAt(ctx, p, f.block(0).Offset))
		if want := append(bytes.Repeat([]byte{'a'}, sectorLength), make([]byte, mib-sectorLength)...); !bytes.Equal(p, want) {
			t.Error("the log is not applied in memory")
		}
		if !bytes.Equal(m.Bytes(), before) {
			t.Error("OpenReadOnly changed the file")
		}
	}
	reads() // the block is in the extension of the file by the log
	must.Succeed(t, m.Truncate(ctx, 5*mib))
	reads()
	f, err := Open(ctx, m)
	must.Succeed(t, err)
	p := make([]byte, 1)
	must.Succeed(t, m.ReadAt(ctx, p, f.block(0).Offset))
	if p[0] != 'a' {
		t.Error("the log was not replayed")
	}
}

// Every sector of the log starts a long entry.
func TestOpen_OverlappingEntries(t *testing.T) {
	var entries []rawEntry
	for at := 0; at < newLogLength; at += 2 * sectorLength {
		entries = append(entries, rawEntry{sequence: 1, at: at, damage: func(p []byte) { le.PutUint32(p[8:], newLogLength) }})
	}
	m := withLog(t, entries...)
	if _, err := Open(t.Context(), m); err == nil || !strings.Contains(err.Error(), "overlap") {
		t.Errorf("error %v", err)
	}
}

// Encoding and decoding an entry preserves it.
func TestLogEntry(t *testing.T) {
	e := logEntry{tail: 8192, sequence: 1<<40 + 5, log: logID, flushed: mib, last: 2 * mib}
	for i := range byte(maxSectors) {
		data := make([]byte, sectorLength)
		for j := range data {
			data[j] = byte(j) ^ i
		}
		e.pieces = append(e.pieces, piece{int64(i) * mib, sectorLength, data})
	}
	p := e.encode()
	m := disktest.New(append(append(make([]byte, mib), p...), make([]byte, mib-len(p))...))
	r := newRing(&view{r: m, size: m.Size()}, header{log: logID, logOffset: mib, logLength: mib})
	got, ok, err := r.entry(t.Context(), 0)
	must.Succeed(t, err)
	if !ok || got.sequence != e.sequence || got.tail != int64(e.tail) || got.flushed != e.flushed || got.last != e.last {
		t.Errorf("decoded entry: %+v", got)
	}
	n := 0
	must.Succeed(t, r.updates(t.Context(), got, func(u update) error {
		data := make([]byte, sectorLength)
		must.Succeed(t, u.read(t.Context(), m, data, u.offset))
		if want := e.pieces[n]; u.offset != want.offset || !bytes.Equal(data, want.data) {
			t.Errorf("decoded update %d differs", n)
		}
		n++
		return nil
	}))
	if n != len(e.pieces) {
		t.Errorf("%d updates, want %d", n, len(e.pieces))
	}
}
