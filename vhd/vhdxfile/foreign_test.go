package vhdxfile

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

// word returns a sector of the BAT that starts with these entries.
func word(entries ...uint64) []byte {
	p := make([]byte, 0, sectorLength)
	for _, e := range entries {
		p = le.AppendUint64(p, e)
	}
	return p
}

// grownByLog returns a disk of 12 MiB whose log extends the file by block 1.
func grownByLog() *disktest.VHDX {
	x := &disktest.VHDX{Size: 12 * mib}
	end := x.End()
	x.BAT = map[int64]uint64{0: entry(fullyPresent, end)}
	x.Payload = map[int64][]byte{end: bytes.Repeat([]byte{'a'}, mib)}
	x.Log = []disktest.LogEntry{
		{Last: end + 2*mib, Sectors: map[int64][]byte{x.BATAt(): word(entry(fullyPresent, end), entry(fullyPresent, end+mib))}},
		{Last: end + 2*mib, Zeros: map[int64]int64{end + 512*kib: 8 * kib}, Sectors: map[int64][]byte{end + mib: []byte("logged")}},
	}
	return x
}

// A log that changes payload and the length of the file is applied in memory when the
// file is opened read-only, and to the file when it is opened for writing.
func TestFile_Payload(t *testing.T) {
	ctx := t.Context()
	x := grownByLog()
	m := disktest.New(x.Bytes())
	before := m.Bytes()
	want := append(bytes.Repeat([]byte{'a'}, mib), make([]byte, mib)...)
	clear(want[512*kib:][:8*kib])
	copy(want[mib:], "logged")
	look := func(f *File, r blockdev.Reader) {
		t.Helper()
		if got := states(f); got != "FF----------" {
			t.Fatalf("blocks are %s", got)
		}
		for i := range int64(2) {
			p := make([]byte, mib)
			must.Succeed(t, r.ReadAt(ctx, p, f.block(i).Offset))
			if !bytes.Equal(p, want[i*mib:][:mib]) {
				t.Errorf("block %d is wrong", i)
			}
		}
	}
	f, err := OpenReadOnly(ctx, m)
	must.Succeed(t, err)
	look(f, f.Payload())
	if w, ok := f.Payload().(disk.Container); ok {
		t.Errorf("payload can be written to %v", w)
	}
	if !bytes.Equal(m.Bytes(), before) {
		t.Error("opening the file for reading changed it")
	}
	f, err = Open(ctx, m)
	must.Succeed(t, err)
	look(f, m)
	if f.Payload() != blockdev.Reader(m) {
		t.Error("payload is still read through the log")
	}
	closeFile(t, f)
	if text := clean(t, m); strings.Contains(text, "not closed") {
		t.Error(text)
	}
}

// A header or region table with one damaged copy is harmless, and is repaired.
func TestOpen_Torn(t *testing.T) {
	for _, torn := range [][]string{{"header 1"}, {"header 2"}, {"region table 1"}, {"region table 2"}, {"header 1", "region table 2"}, {"header 2", "region table 1"}} {
		for _, dirty := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, log %v", torn, dirty), func(t *testing.T) {
				x := grownByLog()
				if !dirty {
					x.Log = nil
				}
				x.Torn = torn
				m := disktest.New(x.Bytes())
				text := clean(t, m)
				for _, what := range torn {
					if !strings.Contains(text, what+" is damaged") {
						t.Errorf("%s is not found: %s", what, text)
					}
				}
				before := m.Bytes()
				if _, err := OpenReadOnly(t.Context(), m); err != nil || !bytes.Equal(m.Bytes(), before) {
					t.Errorf("opened for reading: %v", err)
				}
				f, err := Open(t.Context(), m)
				must.Succeed(t, err)
				if text := clean(t, m); text != "" {
					t.Errorf("after it was opened for writing: %s", text)
				}
				closeFile(t, f)
			})
		}
	}
}

// Undefined, zero and unmapped blocks are zeros, not the contents of the parent
// (MS-VHDX 2.5.1.1).
func TestFile_Undefined(t *testing.T) {
	x := &disktest.VHDX{Size: 6 * mib, Parent: `.\p.vhdx`, BAT: map[int64]uint64{
		1: uint64(undefined), 2: uint64(zero), 3: uint64(unmapped), 4: entry(undefined, 1<<40), 5: uint64(unmappedOld),
	}}
	m := disktest.New(x.Bytes())
	f, err := OpenReadOnly(t.Context(), m)
	must.Succeed(t, err)
	if got := states(f); got != "-00000" {
		t.Errorf("blocks are %s", got)
	}
}

// Reading a log of 1 GiB needs little memory.
func TestReadLog_Long(t *testing.T) {
	x := &disktest.VHDX{Size: 4 * mib, LogLength: 1 << 30}
	for i := range byte(40) {
		e := disktest.LogEntry{Last: x.End(), Sectors: map[int64][]byte{}}
		for k := range int64(100) {
			e.Sectors[x.MetadataAt()+256*kib+k*sectorLength] = []byte{'a' + i, byte(k)}
		}
		x.Log = append(x.Log, e)
	}
	s := &sparse{size: x.End()}
	x.WriteTo(func(off int64, p []byte) { must.Succeed(t, s.WriteAt(t.Context(), p, off)) })
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f, err := OpenReadOnly(t.Context(), s)
	must.Succeed(t, err)
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 32*mib {
		t.Errorf("%d bytes were allocated", used)
	}
	check := func(f *File) {
		t.Helper()
		for k := range int64(100) {
			p := make([]byte, 2)
			must.Succeed(t, f.view.readAt(t.Context(), p, x.MetadataAt()+256*kib+k*sectorLength))
			if p[0] != 'a'+39 || p[1] != byte(k) {
				t.Fatalf("sector %d has %q", k, p)
			}
		}
	}
	check(f)
	f, err = Open(t.Context(), s)
	must.Succeed(t, err)
	check(f)
}

// Merged updates are equivalent to sequential writes.
func TestMergeUpdates(t *testing.T) {
	const sectors = 40
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var updates []update
		var want [sectors]int64 // -1: zeros
		for n := range 1 + rng.IntN(30) {
			u := update{offset: rng.Int64N(sectors), length: 1}
			if rng.IntN(3) == 0 {
				u.length = rng.Int64N(sectors - u.offset + 1)
			} else {
				u.sector = int64(n + 1)
			}
			for i := range u.length {
				want[u.offset+i] = u.sector
				if u.sector == 0 {
					want[u.offset+i] = -1
				}
			}
			u.offset, u.length = u.offset*sectorLength, u.length*sectorLength
			updates = append(updates, u)
		}
		var got [sectors]int64
		last := int64(0)
		for _, u := range mergeUpdates(updates) {
			if u.offset < last || u.length <= 0 || u.sector != 0 && u.length != sectorLength {
				t.Fatalf("seed %d: an update of %d bytes at %d, after %d", seed, u.length, u.offset, last)
			}
			last = u.end()
			for i := u.offset / sectorLength; i < u.end()/sectorLength; i++ {
				if got[i] = u.sector; u.sector == 0 {
					got[i] = -1
				}
			}
		}
		if got != want {
			t.Fatalf("seed %d: %v, want %v", seed, got, want)
		}
	}
}

// A log of many small zero updates in a very long file needs no more time than others.
func TestOpen_ManyZeros(t *testing.T) {
	x := &disktest.VHDX{Size: 4 * mib}
	at := int64(maxFile - 4*mib)
	x.BAT = map[int64]uint64{0: entry(fullyPresent, at)}
	e := disktest.LogEntry{Last: at + 2*mib, Zeros: map[int64]int64{}}
	for i := range int64(30000) {
		e.Zeros[x.End()+i*2*sectorLength] = sectorLength
	}
	x.Log = []disktest.LogEntry{e}
	s := &sparse{size: at}
	x.WriteTo(func(off int64, p []byte) { must.Succeed(t, s.WriteAt(t.Context(), p, off)) })
	f, err := OpenReadOnly(t.Context(), s)
	must.Succeed(t, err)
	if f.Payload() == blockdev.Reader(s) {
		t.Error("the block after the end of the file is not read through the log")
	}
}
