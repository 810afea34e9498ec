package backstore

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"odx/backstore/blockmap"
	"odx/backstore/extent"
	"odx/backstore/meta"
	"odx/backstore/rows"
	"odx/backstore/segment"
)

func (w *script) reap(*arguments) error {
	reaped(w.t, w.store)
	return nil
}

func (w *script) seal(*arguments) error {
	w.store.parts.segments.Seal()
	return nil
}

func (w *script) clean(*arguments) error { return w.store.Clean(w.ctx()) }

func (w *script) checkpoint(*arguments) error { return w.store.Checkpoint(w.ctx()) }

// damage flips a bit of the block that a volume has at a byte.
func (w *script) damage(a *arguments) error {
	v, err := w.volume(a)
	if err != nil {
		return err
	}
	p := make([]byte, 16)
	if err := v.ReadAt(w.ctx(), p, a.bytes()); err != nil {
		return err
	}
	damageFiles(w.t, w.disk, p)
	return nil
}

// space prints the mapped and the live bytes.
func (w *script) space(*arguments) (string, error) {
	st, err := w.store.Stats(w.ctx())
	return fmt.Sprintf("logical %s, live %s, ratio %.3g", bytesText(st.LogicalBytes), bytesText(st.LiveBytes), st.DedupRatio), err
}

// physical prints the length of the segments.
func (w *script) physical(*arguments) (string, error) {
	return bytesText(physical(w.t, w.store)), nil
}

// segments prints the segments and their live bytes.
func (w *script) segments(*arguments) (string, error) {
	var out []string
	for _, id := range w.store.parts.segments.List() {
		out = append(out, fmt.Sprintf("segment %d: %s live", id, bytesText(w.store.parts.usage.Live(id)*BlockLength)))
	}
	return strings.Join(out, "\n"), nil
}

// exclusive prints what deleting each volume would reclaim.
func (w *script) exclusive(*arguments) (string, error) {
	of, _, err := w.store.ExclusiveBytes(w.ctx())
	var out []string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		out = append(out, name+" "+bytesText(of[name]))
	}
	return strings.Join(out, ", "), err
}

// taken returns the bytes of data and metadata.
func (w *script) taken() (int64, error) {
	m, err := w.store.Metadata(w.ctx())
	return m.Bytes + physical(w.t, w.store), err
}

func (w *script) setMark(*arguments) (err error) {
	w.mark, err = w.taken()
	return err
}

// added prints the growth since the mark, unless it is within a limit.
func (w *script) added(a *arguments) (string, error) {
	limit := a.bytes()
	now, err := w.taken()
	if added := now - w.mark; err == nil && added > limit {
		return fmt.Sprintf("%d bytes", added), nil
	}
	return "at most " + bytesText(limit), err
}

// check prints findings. Of those in a row that differ only in numbers it prints the
// first, and how many follow.
func (w *script) check(*arguments) (string, error) {
	findings, err := w.store.Check(w.ctx())
	if len(findings) == 0 {
		return "sound", err
	}
	digits := regexp.MustCompile(`[0-9]+`)
	var out []string
	for len(findings) > 0 {
		kind, n := digits.ReplaceAllString(findings[0], "#"), 1
		for n < len(findings) && digits.ReplaceAllString(findings[n], "#") == kind {
			n++
		}
		out = append(out, findings[0])
		if n > 1 {
			out = append(out, fmt.Sprintf("... and %d like it", n-1))
		}
		findings = findings[n:]
	}
	return strings.Join(out, "\n"), err
}

// prepare does the first part of a write, which finds and pins the extents that already
// hold its data.
func (w *script) prepare(a *arguments) error {
	v, err := w.volume(a)
	if err != nil {
		return err
	}
	r := a.span()
	w.plan = v.newPlan()
	return w.store.writer.prepare(w.plan, uint64(r.Offset/BlockLength), w.data.take(a.next(), 0, r.Length))
}

// discard discards the prepared write.
func (w *script) discard(*arguments) error {
	w.store.opMu.RLock()
	defer w.store.opMu.RUnlock()
	return w.store.writer.discard(w.plan)
}

// tamper runs commands on a new store, made by the lines of sound, and prints the
// findings of a check.
func (w *script) tamper(text string) string {
	w.t.Helper()
	w.end(w.t)
	w.open(nil)
	defer func() {
		_ = w.store.Close() // which can fail for what was changed
		w.store = nil
	}()
	if out := w.lines(w.sound); out != "" {
		w.t.Fatal(out)
	}
	if out, err := w.check(nil); out != "sound" || err != nil {
		w.t.Fatal(out, err)
	}
	out := w.lines(text)
	found, err := w.check(nil)
	if err != nil {
		w.t.Error(err)
	}
	return out + found
}

// The commands below change the state of a store in memory, or its rows, directly.

func (w *script) ref(a *arguments) error {
	w.store.opMu.RLock()
	defer w.store.opMu.RUnlock()
	return w.store.parts.extents.Ref([]extent.Slot{w.store.parts.extents.Slot(extent.ID(a.number()), 0)})
}

func (w *script) unref(a *arguments) error {
	w.store.opMu.RLock()
	defer w.store.opMu.RUnlock()
	return w.store.parts.extents.Unref([]extent.Slot{w.store.parts.extents.Slot(extent.ID(a.number()), 0)})
}

func (w *script) holdRoot(a *arguments) error {
	v, err := w.volume(a)
	if err != nil {
		return err
	}
	w.store.opMu.RLock()
	defer w.store.opMu.RUnlock()
	return w.store.parts.forest.Hold(v.root)
}

func (w *script) dropRoot(a *arguments) error {
	v, err := w.volume(a)
	if err != nil {
		return err
	}
	w.store.opMu.RLock()
	defer w.store.opMu.RUnlock()
	v.root = blockmap.Root{Level: v.root.Level}
	return nil
}

// move takes an extent, a segment and a block of it.
func (w *script) move(a *arguments) error {
	id := extent.ID(a.number())
	to := segment.Addr{Segment: segment.ID(a.number()), Block: uint32(a.number())}
	w.store.opMu.RLock()
	defer w.store.opMu.RUnlock()
	x, _, err := w.store.parts.extents.Get(id)
	if err == nil {
		_, err = w.store.parts.extents.Move(id, x.Addr, to)
	}
	return err
}

// row changes a stored row: its bytes, one of them, or where it ends.
func (w *script) row(a *arguments) error {
	key := rows.Key(a.next()[0], a.number())
	value, err := w.store.parts.kv.Get(key)
	if err != nil {
		value = nil
	}
	switch how := a.next(); how {
	case "remove":
		value = nil
	case "shorten":
		value = value[:len(value)-1]
	case "byte":
		at := a.number()
		value = slices.Clone(value)
		value[at] = byte(a.number())
	case "splice": // new bytes in place of those that begin at FROM and end before TO
		from, to := a.number(), a.number()
		value = slices.Concat(value[:from], a.hex(), value[to:])
	case "without": // the last bytes
		value = value[:len(value)-int(a.number())]
	case "set":
		value = a.hex()
	default:
		w.t.Fatalf("a row cannot be changed by %s", how)
	}
	w.store.opMu.RLock()
	defer w.store.opMu.RUnlock()
	return w.store.parts.kv.Store(0, func(put func(meta.Op) error) error {
		return put(meta.Op{Key: key, Value: value})
	})
}
