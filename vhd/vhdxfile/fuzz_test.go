package vhdxfile

import (
	"bytes"
	"errors"
	"testing"

	"odx/internal/kit/must"
	"odx/vhd/disk"
)

// A fuzzed file is a valid one with patches, so that inputs are small and checksums
// valid. A patch has 3 bytes of offset, in multiples of 4 bytes from the start of the
// file, a length, and that many bytes. The first byte of the input selects the valid
// file, and whether checksums are recomputed.

// maxFuzzed bounds the file of a fuzzed disk in bytes.
const maxFuzzed = 64 * mib

// fuzzBase returns a sparse container with the data.
func fuzzBase(f *testing.F, data []byte) *sparse {
	s := &sparse{size: int64(len(data)), limit: maxFuzzed}
	for at := 0; at < len(data); at += sparsePage {
		if page := data[at:min(at+sparsePage, len(data))]; bytes.Count(page, []byte{0}) < len(page) {
			must.Succeed(f, s.WriteAt(f.Context(), page, int64(at)))
		}
	}
	return s
}

// fuzzBases returns the valid files: one of each kind with a few blocks, and two with a
// log to replay.
func fuzzBases(f *testing.F) []*sparse {
	var bases []*sparse
	for _, kind := range []disk.Kind{disk.Fixed, disk.Dynamic, disk.Differencing, disk.Dynamic, disk.Differencing} {
		m, file := newDisk(f, spec(kind, 3*mib))
		must.Succeed(f, file.Allocate(f.Context(), []int64{2}))
		must.Succeed(f, file.Complete(f.Context(), []int64{0}))
		if len(bases) < 3 {
			closeFile(f, file)
		}
		bases = append(bases, fuzzBase(f, m.Bytes()))
	}
	return bases
}

// patched returns the file of an input.
func patched(t *testing.T, bases []*sparse, input []byte) *sparse {
	if len(input) == 0 {
		return &sparse{}
	}
	mode := int(input[0])
	c := bases[mode%len(bases)].copy()
	for p := input[1:]; len(p) > 4; {
		at, n := 4*(int64(p[0])<<16|int64(p[1])<<8|int64(p[2])), min(int(p[3]), len(p)-4)
		if at+int64(n) <= c.size {
			must.Succeed(t, c.WriteAt(t.Context(), p[4:4+n], at))
		}
		p = p[4+n:]
	}
	if mode < 128 {
		resealAll(t, c)
	}
	return c
}

// resealAll recomputes the checksums of all structures.
func resealAll(t *testing.T, c *sparse) {
	for n := range 2 {
		for _, r := range []region{{headerAt(n), headerLength}, {regionTableAt(n), regionTableLength}} {
			reseal(t, c, r)
		}
	}
	p := make([]byte, 12)
	for at := int64(newLogAt); at < newLogAt+newLogLength; at += sectorLength {
		must.Succeed(t, c.ReadAt(t.Context(), p, at))
		if n := int64(le.Uint32(p[8:])); string(p[:4]) == "loge" && n >= entryHeaderLength && at+n <= newLogAt+newLogLength {
			reseal(t, c, region{at, n})
		}
	}
}

func reseal(t *testing.T, c *sparse, r region) {
	p := make([]byte, r.length)
	must.Succeed(t, c.ReadAt(t.Context(), p, r.offset))
	seal(p)
	must.Succeed(t, c.WriteAt(t.Context(), p[4:8], r.offset+4))
}

// patch encodes a patch.
func patch(at int, p ...byte) []byte {
	return append([]byte{byte(at >> 18), byte(at >> 10), byte(at >> 2), byte(len(p))}, p...)
}

// FuzzOpen opens and checks arbitrary files, reads all blocks, and changes some.
func FuzzOpen(f *testing.F) {
	bases := fuzzBases(f)
	for mode := range bases {
		f.Add([]byte{byte(mode)})
		f.Add(append([]byte{byte(mode)}, patch(newBATAt, 4, 0, 0x20)...))
		f.Add(append([]byte{byte(mode)}, patch(newBATAt+8, 6, 0, 0x50)...))
		f.Add(append([]byte{byte(mode)}, patch(int(parametersAt), 0, 0, 0x20, 0, 2)...))
		f.Add(append([]byte{byte(mode)}, patch(int(regionTableAt(0))+16, make([]byte, 32)...)...))
		f.Add(append([]byte{byte(mode)}, patch(int(headerAt(0))+68, 0, 0, 0, 0)...))
		f.Add([]byte{byte(mode), 1})
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		m := patched(t, bases, input)
		found, err := Check(t.Context(), m)
		if err != nil {
			t.Fatalf("Check: %v", err)
		}
		r, readErr := OpenReadOnly(t.Context(), m)
		if readErr == nil {
			visit(t, r)
		}
		w, err := Open(t.Context(), m)
		if err != nil {
			return
		}
		visit(t, w)
		for _, f := range found {
			if !f.Harmless && readErr != nil {
				return
			}
		}
		exercise(t, m, w)
	})
}

// visit queries all blocks.
func visit(t *testing.T, f *File) {
	info := f.Info()
	for i := range min(info.Blocks(), 10000) {
		if b := f.block(i); b.State == disk.Full || b.State == disk.Partial {
			if b.Offset < headerSection || b.Offset >= f.view.size {
				t.Fatalf("block %d is at %d of %d", i, b.Offset, f.view.size)
			}
		}
		if _, err := f.Present(t.Context(), i, 0, f.sectors(i)); err != nil && f.block(i).State == disk.Full {
			t.Fatalf("block %d: %v", i, err)
		}
	}
}

// exercise changes a file, which must be valid afterwards.
func exercise(t *testing.T, m *sparse, f *File) {
	ctx := t.Context()
	last := f.table.blocks - 1
	errs := []error{
		f.Changing(ctx), f.Allocate(ctx, []int64{0, last}), f.Free(ctx, []int64{0}), f.Complete(ctx, []int64{last}), f.Allocate(ctx, []int64{0}),
	}
	if f.block(0).State == disk.Partial {
		errs = append(errs, f.SetPresent(ctx, 0, 0, 1))
	}
	if err := errors.Join(errs...); err != nil {
		t.Logf("changes: %v", err) // the file may exceed its maximum
		return
	}
	closeFile(t, f)
	g, err := Open(ctx, m)
	if err != nil {
		t.Fatalf("after changes: %v", err)
	}
	if g.block(last).State != disk.Full {
		t.Fatalf("block %d is %v", last, g.block(last))
	}
}

// FuzzReplay replays arbitrary logs. The input has entries, each with a length, its
// position in the log in multiples of 4 KiB, and its first bytes.
func FuzzReplay(f *testing.F) {
	base := fuzzBase(f, withLog(f).Bytes())
	for _, e := range [][]rawEntry{
		{{sequence: 7, fill: 'a'}},
		{{sequence: 7, zeros: 2 * sectorLength}},
		{{sequence: 7, fill: 'a'}, {sequence: 8, fill: 'b', at: 2 * sectorLength}},
		{{sequence: 7, fill: 'a', at: newLogLength - 2*sectorLength, tail: newLogLength - 2*sectorLength}, {sequence: 8, fill: 'b', tail: newLogLength - 2*sectorLength}},
		{{sequence: 7, fill: 'a', last: 8 * mib, dest: newBATAt}},
	} {
		var input []byte
		for _, e := range e {
			p := e.encode()
			input = append(append(input, 96, byte(e.at/sectorLength)), p[:96]...)
		}
		f.Add(input)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		m := base.copy()
		for p := input; len(p) > 2; {
			n, at := min(int(p[0]), len(p)-2), int64(p[1])*sectorLength
			entry := make([]byte, 4*sectorLength)
			copy(entry, p[2:2+n])
			for s := entry[sectorLength:]; len(s) > 0; s = s[sectorLength:] {
				copy(s, "data")
				copy(s[4:8], entry[20:24])
				copy(s[sectorLength-4:], entry[16:20])
			}
			must.Succeed(t, m.WriteAt(t.Context(), entry[:min(int64(len(entry)), newLogLength-at)], newLogAt+at))
			p = p[2+n:]
		}
		resealAll(t, m)
		if _, err := Check(t.Context(), m); err != nil {
			t.Fatalf("Check: %v", err)
		}
		r, readErr := OpenReadOnly(t.Context(), m)
		w, err := Open(t.Context(), m)
		if err != nil {
			return
		}
		if readErr == nil && states(r) != states(w) {
			t.Fatalf("opened for reading it is %s, for writing %s", states(r), states(w))
		}
		if w.headers.log != (disk.GUID{}) {
			t.Fatal("the log is still in use")
		}
		exercise(t, m, w)
	})
}
