package vhdfile

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"odx/internal/kit/must"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

// TestFile_PowerCut cuts the power after every write of a change and loses any writes
// after the last barrier. Each block then has its old or its new state, unchanged
// payload is intact, Check finds nothing harmful, and the disk can be written.
func TestFile_PowerCut(t *testing.T) {
	lay := func(kind disk.Kind) func(testing.TB) *disktest.Memory {
		return func(t testing.TB) *disktest.Memory {
			f, c := made(t, spec(kind, 9))
			apply(t, f, "C013")
			fill(t, f, 0, 'a')
			fill(t, f, 1, 'b')
			fill(t, f, 3, 'd')
			return c
		}
	}
	other := func(kind disk.Kind) func(testing.TB) *disktest.Memory {
		return func(t testing.TB) *disktest.Memory { return foreign(t, kind) }
	}
	for name, tt := range map[string]struct {
		lay     func(testing.TB) *disktest.Memory
		prepare string
		change  string
	}{
		"dynamic, added":               {lay(disk.Dynamic), "", "A2456"},
		"dynamic, completed":           {lay(disk.Dynamic), "", "C8"},
		"dynamic, dropped":             {lay(disk.Dynamic), "", "F1"},
		"dynamic, all dropped":         {lay(disk.Dynamic), "C45", "F0123456"},
		"dynamic, free places used":    {lay(disk.Dynamic), "F1", "A2"},
		"dynamic, and more":            {lay(disk.Dynamic), "F1", "C876542"},
		"differencing, added":          {lay(disk.Differencing), "", "A2456"},
		"differencing, completed":      {lay(disk.Differencing), "A4", "C456"},
		"differencing, dropped":        {lay(disk.Differencing), "A4", "F145"},
		"differencing, sectors":        {lay(disk.Differencing), "A4", "S429"},
		"differencing, last sector":    {lay(disk.Differencing), "A8", "S801"},
		"differencing, written":        {lay(disk.Differencing), "A4", "W4 S402 S4a9"},
		"differencing, filled":         {lay(disk.Differencing), "A4 S402", "W4 C4"},
		"of others, added":             {other(disk.Dynamic), "", "A2"},
		"of others, dropped":           {other(disk.Dynamic), "", "F1"},
		"of others, dropped and added": {other(disk.Dynamic), "F1", "A12"},
		"of others, differencing":      {other(disk.Differencing), "", "C12"},
	} {
		t.Run(name, func(t *testing.T) {
			c := tt.lay(t)
			f := opened(t, c)
			for _, change := range strings.Fields(tt.prepare) {
				apply(t, f, change)
			}
			footerAt := f.endAt
			// As after reopening, which reads bitmaps.
			was := describe(t, opened(t, c))
			base := c.Bytes()
			c.Forget()
			for _, change := range strings.Fields(tt.change) {
				apply(t, f, change)
			}
			will := describe(t, opened(t, disktest.New(c.Bytes())))
			if strings.Join(was, "") == strings.Join(will, "") {
				t.Fatal("the change writes nothing")
			}
			for n := range c.Changes() + 1 {
				for seed := range uint64(16) {
					var rng *rand.Rand
					if seed > 0 {
						rng = rand.New(rand.NewPCG(seed, uint64(n)))
					}
					where, left := fmt.Sprintf("cut %d, seed %d", n, seed), c.Cut(base, n, rng)
					if file := left.Bytes(); !isFooterAt(file, footerAt) && !isFooterAt(file, left.Size()-footerLength) {
						t.Errorf("%s: neither the old nor the new footer exists", where)
					}
					cutHere(t, where, left, was, will, strings.Contains(name, "differencing, dropped"))
				}
			}
		})
	}
}

func isFooterAt(file []byte, at int64) bool {
	p := make([]byte, footerLength) // a footer of 511 bytes leaves the last byte
	copy(p, file[at:])
	_, err := decodeFooter(p)
	return err == nil
}

// describe returns, per block, its state, a digit per sector, and the bytes of its
// present sectors without repetitions.
func describe(t testing.TB, f *File) (blocks []string) {
	t.Helper()
	for i := range f.Info().Blocks() {
		sectors := present(t, f, i, 0, f.sectors(i))
		var seen []byte
		if f.block(i).State != disk.Absent {
			for k, p := range slices.Collect(slices.Chunk(payload(t, f, i), sectorLength))[:len(sectors)] {
				if bytes.Equal(p, bytes.Repeat(p[:1], len(p))) {
					p = p[:1]
				}
				if sectors[k] == '1' {
					seen = slices.Compact(append(seen, p...))
				}
			}
		}
		blocks = append(blocks, fmt.Sprintf("%c%s %q", "AZFP"[f.block(i).State], sectors, seen))
	}
	return blocks
}

// cutHere verifies c after a power cut. If zeroed, payload may be zeros before the
// state of its block changes.
func cutHere(t *testing.T, where string, c *disktest.Memory, was, will []string, zeroed bool) {
	t.Helper()
	harmless := func() {
		t.Helper()
		findings, err := Check(t.Context(), c)
		must.Succeed(t, err)
		for _, f := range findings {
			if !f.Harmless {
				t.Errorf("%s: %s", where, f.Text)
			}
		}
	}
	harmless()
	if _, err := OpenReadOnly(t.Context(), c); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	f, err := Open(t.Context(), c)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	harmless()
	for i, is := range describe(t, f) {
		sectors, _, _ := strings.Cut(was[i], " ")
		if is != was[i] && is != will[i] && !(zeroed && is == sectors+` "\x00"`) && !between(is, was[i], will[i]) {
			t.Errorf("%s: block %d: %s, want %s before or %s after the change", where, i, is, was[i], will[i])
		}
	}
	// The disk is writable: all blocks can be allocated, new ones are zeros.
	absent := map[int64]bool{}
	var all []int64
	for i := range f.Info().Blocks() {
		absent[i] = f.block(i).State == disk.Absent
		all = append(all, i)
	}
	must.Succeed(t, f.Complete(t.Context(), all))
	f = opened(t, c)
	for i, s := range describe(t, f) {
		if absent[int64(i)] && !strings.HasSuffix(s, ` "\x00"`) {
			t.Errorf("%s: new block %d: %s", where, i, s)
		}
	}
	harmless()
}

// between reports whether a subset of the added sectors is present, each with the
// written bytes.
func between(is, was, will string) bool {
	state, content, _ := strings.Cut(is, " ")
	_, after, _ := strings.Cut(will, " ")
	if len(state) != strings.IndexByte(was, ' ') || content != after {
		return false
	}
	for k := 1; k < len(state); k++ {
		if state[k] < was[k] || state[k] > will[k] {
			return false
		}
	}
	return true
}
