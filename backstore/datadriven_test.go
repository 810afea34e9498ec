package backstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestStore_DataDriven runs the files of testdata. Each begins with a description of its
// commands; -rewrite replaces the expected output by the actual one.
func TestStore_DataDriven(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d files in testdata, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			t.Parallel()
			w := &script{start: time.Now().Add(-time.Second), data: newDictionary()}
			datadriven.RunTest(t, path, w.directive)
			w.end(t)
		})
	}
}

// script is the state of one file: its open store, and the objects that it names.
type script struct {
	t       *testing.T // of the directive that runs
	start   time.Time
	disk    *disk
	options Options
	store   *Store
	handles map[string]*Snapshot
	plan    *writePlan
	mark    int64  // see the command mark
	sound   string // lines that make a store for tamper
	data    *dictionary
}

// directive runs one directive and returns its output.
func (w *script) directive(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	w.t = t
	switch d.Cmd {
	case "store":
		w.end(t)
		w.open(d.CmdArgs)
		return w.lines(d.Input)
	case "do":
		return w.lines(d.Input)
	case "sound":
		w.sound = d.Input
		return ""
	case "tamper":
		return w.tamper(d.Input)
	}
	return w.command(d.Cmd, d.CmdArgs)
}

// lines runs one command per line and returns the lines that have output, with it.
func (w *script) lines(text string) string {
	w.t.Helper()
	var out strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		cmd, args, err := datadriven.ParseLine(line)
		if err != nil {
			w.t.Fatal(err)
		}
		if printed := w.command(cmd, args); printed != "" {
			fmt.Fprintf(&out, "%s: %s\n", line, strings.ReplaceAll(printed, "\n", ", "))
		}
	}
	return out.String()
}

// command runs one command. An error that callers decide on is output as its name, so
// that the files do not depend on the text of errors.
func (w *script) command(name string, args []datadriven.CmdArg) string {
	w.t.Helper()
	run, ok := commands()[name]
	if !ok {
		w.t.Fatalf("there is no command %s", name)
	}
	if w.store == nil {
		w.t.Fatalf("%s without a store", name)
	}
	a := &arguments{t: w.t, list: args}
	out, err := run(w, a)
	if len(a.list) > 0 {
		w.t.Fatalf("%s: arguments that mean nothing: %v", name, a.list)
	}
	if err != nil {
		return out + errorName(err)
	}
	return out
}

func errorName(err error) string {
	if damaged, ok := errors.AsType[*CorruptError](err); ok {
		return "ErrCorrupt at " + bytesText(damaged.Offset)
	}
	for _, kind := range []struct {
		error
		name string
	}{
		{ErrRange, "ErrRange"}, {ErrNoSpace, "ErrNoSpace"}, {ErrCorrupt, "ErrCorrupt"}, {ErrReadOnly, "ErrReadOnly"},
		{ErrInvalid, "ErrInvalid"}, {ErrNotFound, "ErrNotFound"}, {ErrExists, "ErrExists"}, {ErrClosed, "ErrClosed"},
		{context.Canceled, "context.Canceled"},
	} {
		if errors.Is(err, kind.error) {
			return kind.name
		}
	}
	return "error: " + err.Error()
}

// open creates a store on a new disk.
func (w *script) open(args []datadriven.CmdArg) {
	w.t.Helper()
	o := Options{DedupUnit: 16 << 10}
	for _, a := range args {
		switch a.Key {
		case "unit":
			o.DedupUnit = int(w.bytes(a.SingleVal(w.t)))
		case "cache":
			o.CacheBytes = w.bytes(a.SingleVal(w.t))
		case "capacity":
			o.CapacityBytes = w.bytes(a.SingleVal(w.t))
		case "store-duplicates":
			o.StoreDuplicates = true
		default:
			w.t.Fatalf("store has no option %s", a.Key)
		}
	}
	w.disk = newDisk()
	w.options = w.disk.options(o)
	w.handles = map[string]*Snapshot{}
	w.reopen()
}

func (w *script) reopen() {
	w.t.Helper()
	s, err := Open(context.Background(), w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	<-s.writer.indexLoaded // so that deduplication does not depend on the time
	w.store = s
}

// end checks the store and closes it.
func (w *script) end(t *testing.T) {
	t.Helper()
	if w.store == nil {
		return
	}
	for _, n := range w.handles {
		n.Release()
	}
	if findings, err := w.store.Check(context.Background()); err != nil || len(findings) > 0 {
		t.Errorf("at the end of a store: %q, %v", findings, err)
	}
	if err := w.store.Close(); err != nil {
		t.Error(err)
	}
	w.store = nil
}

// arguments are those of a command, which are taken in order.
type arguments struct {
	t    *testing.T
	list []datadriven.CmdArg
}

// flag takes the argument with this key, at any position.
func (a *arguments) flag(key string) (value string, ok bool) {
	for i, arg := range a.list {
		if arg.Key == key {
			a.list = append(a.list[:i:i], a.list[i+1:]...)
			return strings.Join(arg.Vals, ","), true
		}
	}
	return "", false
}

// next takes the next argument. A quoted one is unquoted; x*256 is x 256 times.
func (a *arguments) next() string {
	a.t.Helper()
	if len(a.list) == 0 {
		a.t.Fatal("an argument is missing")
	}
	word := a.list[0].Key
	a.list = a.list[1:]
	if unquoted, err := strconv.Unquote(word); err == nil {
		return unquoted
	}
	if text, times, ok := strings.Cut(word, "*"); ok {
		n, err := strconv.Atoi(times)
		if err != nil {
			a.t.Fatal(err)
		}
		return strings.Repeat(text, n)
	}
	return word
}

func (a *arguments) bytes() int64 {
	a.t.Helper()
	return parseBytes(a.t, a.next())
}

func (a *arguments) number() uint64 {
	a.t.Helper()
	n, err := strconv.ParseUint(a.next(), 0, 64)
	if err != nil {
		a.t.Fatal(err)
	}
	return n
}

// hex takes bytes in hexadecimal.
func (a *arguments) hex() []byte {
	a.t.Helper()
	p, err := hex.DecodeString(a.next())
	if err != nil {
		a.t.Fatal(err)
	}
	return p
}

// span takes AT+LENGTH.
func (a *arguments) span() Range {
	a.t.Helper()
	word := a.next()
	at, length, ok := strings.Cut(word, "+")
	if !ok {
		a.t.Fatalf("%q is not AT+LENGTH", word)
	}
	return Range{Offset: parseBytes(a.t, at), Length: parseBytes(a.t, length)}
}

// spans takes all remaining arguments.
func (a *arguments) spans() (list []Range) {
	a.t.Helper()
	for len(a.list) > 0 {
		list = append(list, a.span())
	}
	return list
}

func (w *script) bytes(text string) int64 {
	w.t.Helper()
	return parseBytes(w.t, text)
}

var units = []struct {
	name  string
	bytes int64
}{{"t", 1 << 40}, {"g", 1 << 30}, {"m", 1 << 20}, {"k", 1 << 10}}

func parseBytes(t *testing.T, text string) int64 {
	t.Helper()
	number, factor := text, int64(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(text, u.name); ok {
			number, factor = n, u.bytes
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * factor
}

func bytesText(n int64) string {
	for _, u := range units {
		if n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func spanText(r Range) string { return bytesText(r.Offset) + "+" + bytesText(r.Length) }

// dictionary has the contents that writes name. Their sectors are all different, so that
// a sector identifies its content and its place in it.
type dictionary struct {
	named   map[string][]byte
	sectors map[[16]byte]piece // by the first bytes
}

// piece is a place in a content.
type piece struct {
	name string
	at   int64
}

const zeros = "zeros"

func newDictionary() *dictionary {
	return &dictionary{named: map[string][]byte{}, sectors: map[[16]byte]piece{}}
}

// take returns a range of the content of this name.
func (c *dictionary) take(name string, at, length int64) []byte {
	if name == zeros {
		return make([]byte, length)
	}
	have := c.named[name]
	if end := (at + length + sector - 1) / sector * sector; end > int64(len(have)) {
		first := len(have)
		have = make([]byte, end)
		_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(have) // never fails
		c.named[name] = have
		for ; first < len(have); first += sector {
			c.sectors[[16]byte(have[first:])] = piece{name, int64(first)}
		}
	}
	return have[at:][:length]
}

// run is a range that holds consecutive bytes of one content.
type run struct {
	Range
	piece
}

func (r run) String() string {
	if r.at == 0 || r.name == zeros {
		return spanText(r.Range) + " " + r.name
	}
	return fmt.Sprintf("%s %s from %s", spanText(r.Range), r.name, bytesText(r.at))
}

// runs describes p, which was read at off.
func (c *dictionary) runs(p []byte, off int64) (list []run) {
	for len(p) > 0 {
		of, n := c.identify(p[:min(sector-int(off%sector), len(p))], next(list))
		if last := len(list) - 1; last >= 0 && next(list) == of {
			list[last].Length += int64(n)
		} else {
			list = append(list, run{Range{Offset: off, Length: int64(n)}, of})
		}
		p, off = p[n:], off+int64(n)
	}
	return list
}

// next returns the piece that would extend the last run.
func next(list []run) piece {
	if len(list) == 0 {
		return piece{name: zeros}
	}
	last := list[len(list)-1]
	if last.name != zeros {
		last.at += last.Length
	}
	return last.piece
}

// identify returns the piece that the first n bytes of p equal. p is the rest of a sector.
func (c *dictionary) identify(p []byte, likely piece) (best piece, n int) {
	var key [16]byte
	copy(key[:], p)
	for _, of := range []piece{likely, c.sectors[key], {name: zeros}} {
		if of.name != zeros && c.named[of.name] == nil {
			continue // never written
		}
		if same := commonPrefix(p, c.take(of.name, of.at, int64(len(p)))); same > n {
			best, n = of, same
		}
	}
	if n == 0 {
		return piece{name: "other data"}, len(p)
	}
	return best, n
}

func commonPrefix(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}
