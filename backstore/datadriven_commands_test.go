package backstore

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"odx/blockdev"
)

// commands returns the commands of the files of testdata. The comment at the head of a
// file describes those that it uses.
func commands() map[string]func(*script, *arguments) (string, error) {
	return map[string]func(*script, *arguments) (string, error){
		"create": (*script).create, "clone": (*script).clone, "volumes": (*script).volumes,
		"grow": quiet((*script).grow), "truncate": quiet((*script).truncate),
		"delete": quiet((*script).delete), "rename": quiet((*script).rename),

		"write": quiet((*script).write), "scatter": quiet((*script).scatter), "zero": quiet((*script).zero),
		"unmap": quiet((*script).unmap), "compare-and-write": (*script).compareAndWrite,
		"read": (*script).read, "contents": (*script).contents, "extents": (*script).extents,

		"snapshot": quiet((*script).snapshot), "release": quiet((*script).release),
		"delete-snapshot": quiet((*script).deleteSnapshot), "map": (*script).mapRange,
		"record": (*script).record,

		"reap": quiet((*script).reap), "seal": quiet((*script).seal), "clean": quiet((*script).clean),
		"checkpoint": quiet((*script).checkpoint), "reopen": quiet((*script).closeAndOpen),
		"power-cut": quiet((*script).powerCut), "damage": quiet((*script).damage),
		"space": (*script).space, "physical": (*script).physical, "segments": (*script).segments, "exclusive": (*script).exclusive,
		"mark": quiet((*script).setMark), "added": (*script).added, "check": (*script).check,

		"prepare": quiet((*script).prepare), "discard": quiet((*script).discard),
		"ref": quiet((*script).ref), "unref": quiet((*script).unref), "hold-root": quiet((*script).holdRoot),
		"drop-root": quiet((*script).dropRoot), "move": quiet((*script).move), "row": quiet((*script).row),
	}
}

// quiet adapts commands whose only output is an error.
func quiet(run func(*script, *arguments) error) func(*script, *arguments) (string, error) {
	return func(w *script, a *arguments) (string, error) { return "", run(w, a) }
}

func (w *script) ctx() context.Context { return context.Background() }

// volume takes the name of a volume, or of a file if it begins with a slash.
func (w *script) volume(a *arguments) (*Volume, error) {
	w.t.Helper()
	name := a.next()
	if file, ok := strings.CutPrefix(name, "/"); ok {
		return w.store.File(file)
	}
	return w.store.Volume(name)
}

func (w *script) create(a *arguments) (string, error) {
	_, apart := a.flag("store-duplicates")
	name, size := a.next(), a.bytes()
	if file, ok := strings.CutPrefix(name, "/"); ok {
		f, err := w.store.CreateFile(w.ctx(), file)
		if err == nil && size > 0 {
			err = f.Truncate(w.ctx(), size)
		}
		return "", err
	}
	v, err := w.store.CreateVolume(w.ctx(), name, size)
	if err == nil && apart {
		v.StoreDuplicates(true)
	}
	return "", err
}

func (w *script) clone(a *arguments) (string, error) {
	_, readOnly := a.flag("read-only")
	src, name := a.next(), a.next()
	if file, ok := strings.CutPrefix(name, "/"); ok {
		v, err := w.store.Volume(src)
		if err == nil {
			_, err = w.store.CloneFile(w.ctx(), v, file)
		}
		return "", err
	}
	clone := w.store.CloneVolume
	if readOnly {
		clone = w.store.SnapshotVolume
	}
	_, err := clone(w.ctx(), src, name)
	return "", err
}

// volumes prints volumes and files. Identities and creation times, which differ in each
// run, are compared with what is expected instead.
func (w *script) volumes(*arguments) (string, error) {
	var out []string
	seen := map[[16]byte]string{}
	for _, v := range append(w.store.Volumes(), w.store.Files()...) {
		line := fmt.Sprintf("%v %s", v, bytesText(v.Size()))
		if origin, ok := v.Origin(); ok {
			line += " from " + origin
		}
		if v.ReadOnly() {
			line += " read-only"
		}
		if same, ok := seen[v.ID()]; ok {
			line += " with the identity of " + same
		}
		if made := v.Created(); made.Before(w.start) || made.After(time.Now()) {
			line += fmt.Sprintf(" made at another time: %v", made)
		}
		find := w.store.Volume
		if v.IsFile() {
			find = w.store.File
		}
		if same, err := find(v.Name()); same != v {
			line += fmt.Sprintf(" is %v by its name: %v", same, err)
		}
		seen[v.ID()] = v.Name()
		out = append(out, line)
	}
	slices.Sort(out)
	return strings.Join(out, "\n"), nil
}

func (w *script) grow(a *arguments) error {
	v, err := w.volume(a)
	if size := a.bytes(); err == nil {
		err = v.Grow(w.ctx(), size)
	}
	return err
}

func (w *script) truncate(a *arguments) error {
	v, err := w.volume(a)
	if size := a.bytes(); err == nil {
		err = v.Truncate(w.ctx(), size)
	}
	return err
}

func (w *script) delete(a *arguments) error {
	name := a.next()
	if file, ok := strings.CutPrefix(name, "/"); ok {
		return w.store.DeleteFile(w.ctx(), file)
	}
	return w.store.DeleteVolume(w.ctx(), name)
}

// rename takes names of files.
func (w *script) rename(a *arguments) error {
	_, keep := a.flag("no-replace")
	var names []string
	for len(a.list) > 0 {
		names = append(names, strings.TrimPrefix(a.next(), "/"))
	}
	rename := w.store.RenameFile
	if keep {
		rename = w.store.NameFile
	}
	return rename(w.ctx(), names[0], names[1], names[2:]...)
}

func (w *script) write(a *arguments) error {
	v, err := w.volume(a)
	if r, data := a.span(), a.next(); err == nil {
		err = v.WriteAt(w.ctx(), w.data.take(data, 0, r.Length), r.Offset)
	}
	return err
}

// scatter writes pieces to several volumes in turn.
func (w *script) scatter(a *arguments) error {
	every, _ := a.flag("every")
	length, _ := a.flag("piece")
	r, step, n, at := a.span(), w.bytes(every), w.bytes(length), int64(0)
	type destination struct {
		*Volume
		data string
	}
	var volumes []destination
	for len(a.list) > 0 {
		v, err := w.volume(a)
		if err != nil {
			return err
		}
		volumes = append(volumes, destination{v, a.next()})
	}
	for off := r.Offset; off+n <= r.Offset+r.Length; off, at = off+step, at+n {
		for _, v := range volumes {
			if err := v.WriteAt(w.ctx(), w.data.take(v.data, at, n), off); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *script) zero(a *arguments) error {
	v, err := w.volume(a)
	if r := a.span(); err == nil {
		err = v.Zero(w.ctx(), r.Offset, r.Length)
	}
	return err
}

func (w *script) unmap(a *arguments) error {
	every, scattered := a.flag("every")
	length, _ := a.flag("piece")
	v, err := w.volume(a)
	r := a.span()
	if err != nil {
		return err
	}
	if !scattered {
		return v.Unmap(w.ctx(), r.Offset, r.Length)
	}
	for off := r.Offset; off < r.Offset+r.Length && err == nil; off += w.bytes(every) {
		err = v.Unmap(w.ctx(), off, w.bytes(length))
	}
	return err
}

func (w *script) compareAndWrite(a *arguments) (string, error) {
	v, err := w.volume(a)
	r, old, fresh := a.span(), a.next(), a.next()
	if err != nil {
		return "", err
	}
	at, err := v.CompareAndWrite(w.ctx(), w.data.take(old, 0, r.Length), w.data.take(fresh, 0, r.Length), r.Offset)
	if err == nil && at >= 0 {
		return fmt.Sprintf("differs at byte %d", at), nil
	}
	return "", err
}

// source is a volume, a file or a snapshot.
type source interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
	Extents(ctx context.Context, off, length int64, fn func(part Range, mapped bool) bool) error
}

// source takes a name and a range. The default is the whole source.
func (w *script) source(a *arguments) (source, Range, error) {
	w.t.Helper()
	var of source
	var whole Range
	if n, ok := w.handles[a.list[0].Key]; ok {
		a.next()
		of, whole.Length = n, n.Length()
	} else {
		v, err := w.volume(a)
		if err != nil {
			a.list = nil
			return nil, whole, err
		}
		of, whole.Length = v, v.Size()
	}
	if len(a.list) > 0 {
		return of, a.span(), nil
	}
	return of, whole, nil
}

func (w *script) readRuns(a *arguments) ([]run, error) {
	from, r, err := w.source(a)
	if err != nil {
		return nil, err
	}
	p := make([]byte, r.Length)
	if err := from.ReadAt(w.ctx(), p, r.Offset); err != nil {
		return nil, err
	}
	return w.data.runs(p, r.Offset), nil
}

func (w *script) read(a *arguments) (string, error) {
	runs, err := w.readRuns(a)
	var out []string
	for _, r := range runs {
		out = append(out, r.String())
	}
	return strings.Join(out, "\n"), err
}

// contents prints the number of bytes of each content.
func (w *script) contents(a *arguments) (string, error) {
	runs, err := w.readRuns(a)
	sums := map[string]int64{}
	for _, r := range runs {
		sums[r.name] += r.Length
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		out = append(out, name+" "+bytesText(sums[name]))
	}
	return strings.Join(out, "\n"), err
}

func (w *script) extents(a *arguments) (string, error) {
	of, r, err := w.source(a)
	if err != nil {
		return "", err
	}
	var out []string
	err = of.Extents(w.ctx(), r.Offset, r.Length, func(part Range, mapped bool) bool {
		line := spanText(part) + " mapped"
		if !mapped {
			line = spanText(part) + " unmapped"
		}
		out = append(out, line)
		return true
	})
	return strings.Join(out, "\n"), err
}

func (w *script) snapshot(a *arguments) error {
	v, err := w.volume(a)
	name, ranges := a.next(), a.spans()
	if err != nil {
		return err
	}
	n, err := v.Snapshot(w.ctx(), ranges, nil)
	if err == nil {
		w.handles[name] = n
	}
	return err
}

// handle takes the name of a snapshot whose handle is held.
func (w *script) handle(a *arguments) (name string, n *Snapshot) {
	w.t.Helper()
	name = a.next()
	n, ok := w.handles[name]
	if !ok {
		w.t.Fatalf("there is no snapshot %s", name)
	}
	return name, n
}

func (w *script) release(a *arguments) error {
	name, n := w.handle(a)
	delete(w.handles, name)
	n.Release()
	return nil
}

// deleteSnapshot takes a name, or a number.
func (w *script) deleteSnapshot(a *arguments) error {
	if _, ok := w.handles[a.list[0].Key]; !ok {
		return w.store.DeleteSnapshot(w.ctx(), a.number())
	}
	_, n := w.handle(a)
	return w.store.DeleteSnapshot(w.ctx(), n.ID())
}

func (w *script) mapRange(a *arguments) (string, error) {
	_, late := a.flag("late")
	_, canceled := a.flag("canceled")
	v, err := w.volume(a)
	at := a.bytes()
	_, n := w.handle(a)
	r := a.span()
	if err != nil {
		return "", err
	}
	var copied atomic.Int64
	ctx := blockdev.WithCopied(w.ctx(), &copied)
	if late {
		ctx = blockdev.StopAfter(ctx, 0)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if canceled {
		cancel()
	}
	done, err := v.Map(ctx, at, n, r.Offset, r.Length)
	out := bytesText(done) + " done"
	if n := copied.Load(); n > 0 {
		out += fmt.Sprintf(", %s of it copied", bytesText(n))
	}
	if err != nil {
		out += ": "
	}
	return out, err
}

func (w *script) record(a *arguments) (string, error) {
	value, err := w.store.GetRecord([]byte(a.next()))
	return string(value), err
}

func (w *script) closeAndOpen(*arguments) error {
	err := w.store.Close()
	w.reopen()
	return err
}

// powerCut reopens the store as a power cut leaves it.
func (w *script) powerCut(*arguments) error {
	left := w.disk.crash(rand.New(rand.NewPCG(1, 2)))
	if err := w.store.Close(); err != nil {
		return err
	}
	w.disk, w.options.FS = left, left.fs
	w.reopen()
	return nil
}
