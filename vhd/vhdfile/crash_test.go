package vhdfile

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

// TestPowerCut cuts the power after every write of a change, with any of those
// lost that no barrier protects. Each block then has its old or its new state,
// payload that was not changed is there, nothing is wrong with the file that
// would harm, and it can be written again.
func TestPowerCut(t *testing.T) {
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
		"of others, added":             {other(disk.Dynamic), "", "A2"},
		"of others, dropped":           {other(disk.Dynamic), "", "F1"},
		"of others, dropped and added": {other(disk.Dynamic), "F1", "A12"},
		"of others, differencing":      {other(disk.Differencing), "", "C12"},
	} {
		t.Run(name, func(t *testing.T) {
			c := tt.lay(t)
			f := opened(t, c)
			if tt.prepare != "" {
				apply(t, f, tt.prepare)
			}
			// As a new opening sees it, which reads bitmaps.
			was := describe(t, opened(t, c))
			base := c.Bytes()
			c.Forget()
			apply(t, f, tt.change)
			will := describe(t, opened(t, disktest.New(c.Bytes())))
			if strings.Join(was, "") == strings.Join(will, "") {
				t.Fatal("nothing changes")
			}
			for n := range c.Changes() + 1 {
				for seed := range uint64(8) {
					var rng *rand.Rand
					if seed > 0 {
						rng = rand.New(rand.NewPCG(seed, 0))
					}
					cutHere(t, fmt.Sprintf("cut %d, seed %d", n, seed), c.Cut(base, n, rng), was, will, tt.change)
				}
			}
		})
	}
}

// describe returns for each block its state, its sectors and, where it is all of
// one byte, that byte.
func describe(t testing.TB, f *File) (blocks []string) {
	t.Helper()
	for i := range f.Info().Blocks() {
		s := present(t, f, i, 0, f.sectors(i))
		s = string("AZFP"[f.Block(i).State]) + s
		if f.Block(i).State != disk.Absent {
			p := payload(t, f, i)
			if !bytes.Equal(p, bytes.Repeat(p[:1], len(p))) {
				t.Errorf("block %d has torn payload", i)
			}
			s += fmt.Sprintf("%q", p[0])
		}
		blocks = append(blocks, s)
	}
	return blocks
}

// cutHere looks at what a power cut left in c.
func cutHere(t *testing.T, where string, c *disktest.Memory, was, will []string, change string) {
	t.Helper()
	harmless := func() {
		t.Helper()
		findings, err := Check(t.Context(), c)
		must(t, err)
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
		// Payload that is dropped may go before the block does.
		dropped := false
		if k := strings.IndexByte(was[i], '\''); k > 0 && change[0] == 'F' {
			dropped = is == was[i][:k]+`'\x00'`
		}
		if is != was[i] && is != will[i] && !dropped {
			t.Errorf("%s: block %d was %s, should be %s, is %s", where, i, was[i], will[i], is)
		}
	}
	// Life goes on: every block is there, new ones are zeros.
	absent := map[int64]bool{}
	var all []int64
	for i := range f.Info().Blocks() {
		absent[i] = f.Block(i).State == disk.Absent
		all = append(all, i)
	}
	must(t, f.Complete(t.Context(), all))
	f = opened(t, c)
	for i, s := range describe(t, f) {
		if absent[int64(i)] && !strings.HasSuffix(s, `'\x00'`) {
			t.Errorf("%s: block %d, new, is %s", where, i, s)
		}
	}
	harmless()
}
