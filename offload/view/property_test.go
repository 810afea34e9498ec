package view

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/offload"
	"odx/tokens"
)

// served is a stack and its model.
type served struct {
	*Stack
	kind     string
	model    []byte
	readOnly bool
}

// modelToken is a token and the data that it represents.
type modelToken struct {
	token *tokens.Token
	bytes []byte
}

// world is random stacks and their models.
type world struct {
	*bed
	stacks  []*served
	tokens  []modelToken
	mirrors []*Mirror
}

const worldBytes = 160 << 10

// draw creates a random device of at least size bytes, and the other devices to serve
// that share its volumes.
func (w *world) draw(t *rapid.T, depth int, size int64, gate Gate) (Device, string) {
	kinds := []string{"volume", "outside"}
	if depth > 0 {
		kinds = append(kinds, "partition", "stripe", "mirror", "write-through", "write-back", "verify", "origin")
	}
	kind := rapid.SampledFrom(kinds).Draw(t, "kind")
	below := func(size int64) (Device, string) { return w.draw(t, depth-1, size, gate) }
	switch kind {
	case "volume":
		return w.base(w.volume(t, size)), kind
	case "outside":
		return w.base(w.outside((size + 4095) / 4096 * 4096)), kind
	case "partition":
		start := rapid.SampledFrom([]int64{512, 4096, 63 * 512}).Draw(t, "start")
		of, name := below(size + start + 512)
		v, err := NewPartition(of, start, of.Size()-start-512)
		must.Succeed(t, err)
		return v, "partition(" + name + ")"
	case "stripe":
		unit := rapid.SampledFrom([]int64{4096, 12288}).Draw(t, "unit")
		legs := make([]Device, rapid.IntRange(2, 3).Draw(t, "legs"))
		name := ""
		for i := range legs {
			leg := ""
			legs[i], leg = below((size/int64(len(legs)) + 2*unit) / 4096 * 4096)
			name += " " + leg
		}
		return stripeOf(t, unit, legs...), "stripe(" + name + ")"
	case "mirror":
		a, an := below(size)
		b, bn := below(size + 4096)
		m := w.mirror(t, a, b)
		w.mirrors = append(w.mirrors, m)
		return m, "mirror(" + an + " " + bn + ")"
	case "verify":
		of, name := below(size)
		return w.verify(t, of), "verify(" + name + ")"
	case "origin":
		of, name := below(size)
		o := w.origin(t, of)
		w.serve(NewSnapshot(o), "snapshot("+name+")", gate, true)
		return o, "origin(" + name + ")"
	default:
		of, name := below(size)
		return w.cache(of, kind == "write-back", rapid.IntRange(1, 12).Draw(t, "lines")), kind + "(" + name + ")"
	}
}

func (w *world) serve(d Device, kind string, gate Gate, readOnly bool) {
	w.stacks = append(w.stacks, &served{NewStack(d, gate), kind, make([]byte, d.Size()), readOnly})
}

func (w *world) pick(t *rapid.T) *served {
	return w.stacks[rapid.IntRange(0, len(w.stacks)-1).Draw(t, "stack")]
}

func (s *served) draw(t *rapid.T) blockdev.Range {
	blocks := s.Size() / 512
	unit := rapid.SampledFrom([]int64{1, 8}).Draw(t, "alignment")
	first := rapid.Int64Range(0, blocks-1).Draw(t, "block") / unit * unit
	count := rapid.Int64Range(1, min(blocks-first, 200)).Draw(t, "blocks")
	return blockdev.Range{Offset: first * 512, Length: count * 512}
}

// drawBytes draws a range of bytes, unaligned if all volumes below support that.
func (w *world) drawBytes(t *rapid.T, s *served) blockdev.Range {
	r := s.draw(t)
	if w.manager.Engine().Shares(s) && rapid.Bool().Draw(t, "any bytes") {
		cut := rapid.Int64Range(0, 511).Draw(t, "cut")
		r.Offset, r.Length = r.Offset+cut, r.Length-cut-rapid.Int64Range(0, 511-cut).Draw(t, "cut at the end")
	}
	return r
}

// wrote verifies the result of a write for the stack's kind, and reports whether the
// write took place.
func (s *served) wrote(t *rapid.T, err error) bool {
	if s.readOnly {
		if err == nil {
			t.Fatalf("%s: a write succeeded", s.kind)
		}
		return false
	}
	if err != nil {
		t.Fatalf("%s: %v", s.kind, err)
	}
	return true
}

func (w *world) write(t *rapid.T) {
	s := w.pick(t)
	r := w.drawBytes(t, s)
	p := pattern(rapid.Byte().Draw(t, "seed"), r.Length)
	if s.wrote(t, s.WriteAt(ctx, p, r.Offset)) {
		copy(s.model[r.Offset:], p)
	}
}

func (w *world) unmap(t *rapid.T) {
	s := w.pick(t)
	r := w.drawBytes(t, s)
	if s.wrote(t, s.Unmap(ctx, r.Offset, r.Length)) {
		clear(s.model[r.Offset : r.Offset+r.Length])
	}
}

func (w *world) compareAndWrite(t *rapid.T) {
	s := w.pick(t)
	r := s.draw(t)
	r.Length = 512
	want := bytes.Clone(s.model[r.Offset:][:512])
	at := rapid.IntRange(-1, 511).Draw(t, "differs at")
	if at >= 0 {
		want[at]++
	}
	p := pattern(rapid.Byte().Draw(t, "seed"), 512)
	got, err := s.CompareAndWrite(ctx, want, p, r.Offset)
	if at >= 0 {
		if err != nil || got != at {
			t.Fatalf("%s: mismatch at %d, %v; want %d", s.kind, got, err, at)
		}
		return
	}
	if s.wrote(t, err) {
		copy(s.model[r.Offset:], p)
	}
}

func (w *world) read(t *rapid.T) {
	s := w.pick(t)
	r := w.drawBytes(t, s)
	p := make([]byte, r.Length)
	must.Succeed(t, s.ReadAt(ctx, p, r.Offset))
	same(t, s.kind, p, s.model[r.Offset:][:r.Length])
}

func (w *world) flush(t *rapid.T) { must.Succeed(t, w.pick(t).Flush(ctx)) }

func (w *world) populateRandom(t *rapid.T) {
	s := w.pick(t)
	ranges := make([]blockdev.Range, rapid.IntRange(1, 3).Draw(t, "ranges"))
	var want []byte
	for i := range ranges {
		ranges[i] = s.draw(t)
		want = append(want, s.model[ranges[i].Offset:][:ranges[i].Length]...)
	}
	token, n := w.populate(t, s, ranges...)
	if n <= 0 || n > int64(len(want)) || n%512 != 0 {
		t.Fatalf("%s: a token of %d bytes, asked for %d", s.kind, n, len(want))
	}
	w.tokens = append(w.tokens, modelToken{token, want[:n]})
}

func (w *world) writeToken(t *rapid.T) {
	if len(w.tokens) == 0 {
		t.Skip("no token")
	}
	tok := w.tokens[rapid.IntRange(0, len(w.tokens)-1).Draw(t, "token")]
	s := w.pick(t)
	r := s.draw(t)
	skip := rapid.Int64Range(0, int64(len(tok.bytes))/512-1).Draw(t, "offset") * 512
	r.Length = min(r.Length, int64(len(tok.bytes))-skip)
	for r.Length > 0 {
		n, err := w.manager.OffloadWrite(ctx, tok.token, skip, offload.Destination{Volume: s, BlockLength: 512}, []blockdev.Range{r}, tokens.WriteOptions{})
		if !s.wrote(t, err) {
			return
		}
		if n <= 0 {
			t.Fatalf("%s: no progress", s.kind)
		}
		copy(s.model[r.Offset:][:n], tok.bytes[skip:])
		r.Offset, r.Length, skip = r.Offset+n, r.Length-n, skip+n
	}
}

func (w *world) copy(t *rapid.T) {
	from, to := w.pick(t), w.pick(t)
	src, dst := from.draw(t), to.draw(t)
	if w.manager.Engine().Shares(from) && w.manager.Engine().Shares(to) {
		src, dst = w.drawBytes(t, from), w.drawBytes(t, to)
	}
	n := min(src.Length, dst.Length)
	want := bytes.Clone(from.model[src.Offset:][:n])
	err := w.manager.Engine().Copy(ctx, from, src.Offset, to, dst.Offset, n, func(int64) {})
	if to.wrote(t, err) {
		copy(to.model[dst.Offset:], want)
	}
}

func (w *world) check(t *rapid.T) {
	for _, s := range w.stacks {
		same(t, s.kind, contents(t, s), s.model)
	}
}

// TestStack_Random: random stacks of views have the data written to them, tokens
// represent the data at their creation, and the legs of a mirror are equal at the end.
func TestStack_Random(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{bed: newBed(t)}
		for range rapid.IntRange(1, 2).Draw(t, "stacks") {
			gate := NewGate()
			d, kind := w.draw(t, 3, worldBytes, gate)
			w.serve(d, kind, gate, false)
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": w.write, "unmap": w.unmap, "compare and write": w.compareAndWrite, "read": w.read, "flush": w.flush,
			"populate": w.populateRandom, "write using token": w.writeToken, "copy": w.copy,
		})
		w.check(t)
		for i := len(w.mirrors) - 1; i >= 0; i-- {
			w.mirrors[i].resyncs.Wait() // upper ones first: they write to lower ones
		}
		for _, m := range w.mirrors {
			if len(m.InSync()) != len(m.Legs) {
				t.Fatalf("in sync: %v", m.InSync())
			}
			a := contents(t, m.Legs[0])[:m.Size()]
			same(t, "second leg", contents(t, m.Legs[1])[:m.Size()], a)
		}
		w.close(t)
	})
}
