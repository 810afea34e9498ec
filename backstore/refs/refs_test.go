package refs

import (
	"encoding/hex"
	"errors"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"odx/backstore/meta"
	"odx/backstore/pages"
)

var testKind = Kind{Prefix: 'x', Least: -4}

// TestCounts_Model applies random operations, checkpoints and restarts to counts and a
// map. Pages of zeros are not stored.
func TestCounts_Model(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kv, clock := meta.NewMem(), pages.NewClock()
		open := func() *Counts { return New(Options{Kind: testKind, KV: kv, Clock: clock, MaxBytes: 1 << 20}) }
		c, model := open(), map[uint64]int64{}
		number := rapid.Custom(func(t *rapid.T) uint64 {
			return rapid.SampledFrom([]uint64{0, 1, 2, 510, 511, 512, 513, 1 << 60}).Draw(t, "number")
		})
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				n, extra := number.Draw(t, "n"), rapid.SampledFrom([]int64{0, 0, 1, 1, -4, 1 << 50}).Draw(t, "extra")
				p, err := c.Lock(n)
				if err != nil {
					t.Fatal(err)
				}
				if extra != p.Extra(n) {
					c.Change(p)
					p.Add(n, extra-p.Extra(n))
				}
				p.Unlock()
				if model[n] = extra; extra == 0 {
					delete(model, n)
				}
			},
			"checkpoint_restart": func(t *rapid.T) {
				checkpoint(t, c, kv, clock)
				c = open()
			},
			"": func(t *rapid.T) {
				n := number.Draw(t, "n")
				if got, err := c.Extra(n); err != nil || got != model[n] {
					t.Fatalf("%d has %d, %v, want %d", n, got, err, model[n])
				}
			},
		})
		checkpoint(t, c, kv, clock)
		wantStored(t, kv, model)
	})
}

func checkpoint(t *rapid.T, c *Counts, kv *meta.Mem, clock *pages.Clock) {
	clock.Tick()
	cut := c.Cut()
	var ops []meta.Op
	if err := cut.Encode(func(op meta.Op) error { ops = append(ops, op); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := kv.Update(ops); err != nil {
		t.Fatal(err)
	}
	cut.Done()
}

// wantStored compares the stored counts with the nonzero counts of the model.
func wantStored(t *rapid.T, kv *meta.Mem, want map[uint64]int64) {
	got := map[uint64]int64{}
	err := Scan(kv, testKind, func(first uint64, extra []int64, err error) error {
		before := len(got)
		for i, n := range extra {
			if n != 0 {
				got[first+uint64(i)] = n
			}
		}
		if len(got) == before {
			t.Errorf("stored page from %d has only zeros", first)
		}
		return err
	})
	if err != nil || !maps.Equal(got, want) {
		t.Fatalf("stored counts %v, %v, want %v", got, err, want)
	}
	for n, extra := range want {
		p, err := Read(kv, testKind, n)
		if err != nil || p.Extra(n) != extra {
			t.Fatalf("Read of %d: %v, want %d", n, err, extra)
		}
	}
}

func TestCounts_Lock(t *testing.T) {
	c := New(Options{Kind: testKind, KV: meta.NewMem(), Clock: pages.NewClock(), MaxBytes: 1 << 20})
	p, err := c.Lock(700)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Unlock()
	if !p.Has(512) || !p.Has(1023) || p.Has(511) || p.Has(1024) {
		t.Error("page of 700: Has is not true for exactly 512 to 1023")
	}
	if c.DirtyBytes() != 0 {
		t.Error("page is dirty without a change")
	}
	if c.Change(p); c.DirtyBytes() != PageBytes {
		t.Errorf("%d dirty bytes after a change of one page of %d", c.DirtyBytes(), PageBytes)
	}
}

// TestLayouts pins the stored form of a page.
func TestLayouts(t *testing.T) {
	p := &Page{}
	p.extra[5], p.extra[6], p.extra[7], p.extra[300], p.extra[511] = 1, 1, 150, 2, -1
	const want = "05" + "02" + "02" + // two of 1
		"00" + "01" + "ac02" + // 150
		"a402" + "01" + "04" + // 2
		"d201" + "01" + "01" // -1
	if got := hex.EncodeToString(p.Encode()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestScan_Malformed covers each error of the decoder.
func TestScan_Malformed(t *testing.T) {
	for name, stored := range map[string][]byte{
		"truncated after zeros":  {5},
		"truncated after length": {5, 1},
		"empty run":              {5, 0, 2},
		"run of zeros":           {5, 1, 0},
		"zeros past end":         {0x81, 4, 1, 2},
		"run past end":           {5, 0x80, 4, 2},
		"count below minimum":    {5, 1, 9},
		"count above maximum":    {5, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7e},
		"uvarint too long":       {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 2},
	} {
		if _, err := decode(testKind.Least, stored); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	kv := meta.NewMem()
	if err := kv.Update([]meta.Op{{Key: []byte("x1"), Value: []byte{5, 1, 2}}}); err != nil {
		t.Fatal(err)
	}
	err := Scan(kv, testKind, func(uint64, []int64, error) error { return nil })
	if !errors.Is(err, ErrMalformed) {
		t.Errorf("key of two bytes: %v", err)
	}
}

func FuzzPage_Decode(f *testing.F) {
	f.Add([]byte{0, 1, 2, 5, 9, 3})
	f.Add([]byte{0x80, 2, 0x80, 2, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decode(testKind.Least, b)
		if err != nil {
			return
		}
		again, err := decode(testKind.Least, p.Encode())
		if err != nil || again.extra != p.extra {
			t.Fatalf("decoded counts differ after another round trip: %v", err)
		}
	})
}

// TestPage_Lists: Lead, AddEach and TakeEach have the results of processing entries one
// by one.
func TestPage_Lists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shift := uint(rapid.IntRange(0, 3).Draw(t, "shift"))
		list := rapid.SliceOf(rapid.Custom(func(t *rapid.T) uint64 {
			number := rapid.SampledFrom([]uint64{0, 0, 1, 2, 3, 511, 512, 513, 1024}).Draw(t, "number")
			if number == 0 {
				return 0
			}
			return number<<shift + rapid.Uint64Range(0, 1<<shift-1).Draw(t, "low bits")
		})).Draw(t, "list")
		p := &Page{}
		if rapid.Bool().Draw(t, "second page") {
			p = secondPage(t)
		}
		for i := range p.extra {
			p.extra[i] = int64(i % 3)
		}
		before := p.extra
		on := func(e uint64) bool { return e == 0 || p.Has(e>>shift) }

		lead := 0
		for lead < len(list) && on(list[lead]) {
			lead++
		}
		if got := Lead(p, list, shift); got != lead {
			t.Errorf("Lead = %d, want %d", got, lead)
		}
		if got := AddEach(p, list, shift, 2); got != lead {
			t.Errorf("AddEach = %d, want %d", got, lead)
		}
		want := before
		for _, e := range list[:lead] {
			if e != 0 {
				want[e>>shift%PerPage] += 2
			}
		}
		if p.extra != want {
			t.Error("counts after AddEach differ from those of adding one by one")
		}

		p.extra, want = before, before
		took := 0
		for ; took < lead; took++ {
			if e := list[took]; e == 0 {
				continue
			} else if want[e>>shift%PerPage] == 0 {
				break
			} else {
				want[e>>shift%PerPage]--
			}
		}
		if got := TakeEach(p, list, shift); got != took || p.extra != want {
			t.Errorf("TakeEach = %d, want %d, or its counts differ from taking one by one", got, took)
		}
	})
}

// secondPage returns the page whose first number is PerPage.
func secondPage(t *rapid.T) *Page {
	c := New(Options{Kind: testKind, KV: meta.NewMem(), Clock: pages.NewClock(), MaxBytes: 1 << 20})
	p, err := c.Lock(PerPage)
	if err != nil {
		t.Fatal(err)
	}
	p.Unlock()
	return p
}
