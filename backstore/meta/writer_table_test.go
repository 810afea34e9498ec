package meta

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
)

// TestTableWriter compares tables with those of table.Builder, byte by byte.
func TestTableWriter(t *testing.T) {
	cases := map[string][]row{
		"one row":              {{[]byte("k"), []byte("v")}},
		"empty value":          {{[]byte("k"), nil}},
		"rows of a block each": {{[]byte("a"), make([]byte, blockBytes)}, {[]byte("b"), make([]byte, 2*blockBytes)}, {[]byte("c"), make([]byte, 1)}},
		"long value":           {{[]byte("a"), make([]byte, 3*tableBytes)}},
		"longest key":          {{bytes.Repeat([]byte{1}, MaxKey), []byte("v")}, {bytes.Repeat([]byte{2}, MaxKey), []byte("v")}},
		"key within a key":     {{[]byte("a"), nil}, {[]byte("aa"), nil}, {[]byte("aab"), nil}},
	}
	for seed := range uint64(200) {
		cases[fmt.Sprint("random rows ", seed)] = randomRows(seed)
	}
	var w tableWriter // one for all, so that buffers are reused
	for name, rows := range cases {
		b := table.NewTableBuilder(tableOptions(tableBytes))
		for _, r := range rows {
			w.add(r.key, r.sealed)
			b.Add(y.KeyWithTs(r.key, rowVersion), y.ValueStruct{Value: r.sealed}, 0)
		}
		if got, want := w.finish(), b.Finish(); !bytes.Equal(got, want) {
			t.Errorf("%s: table of %d bytes differs from Badger's of %d", name, len(got), len(want))
		}
		b.Close()
	}
	if w.finish() != nil {
		t.Error("a table without rows")
	}
}

// randomRows returns rows with ascending keys that share prefixes.
func randomRows(seed uint64) []row {
	r := newRand(seed)
	var rows []row
	for i := range 1 + r.IntN(tableRows) {
		value := make([]byte, r.IntN(2000))
		for k := range value {
			value[k] = byte(r.Uint32())
		}
		rows = append(rows, row{fmt.Appendf(nil, "%03d/%s", i, bytes.Repeat([]byte("x"), r.IntN(40))), value})
	}
	return rows
}

func BenchmarkTableWriter(b *testing.B) {
	rows := randomRows(1)
	var w tableWriter
	b.ReportAllocs()
	for b.Loop() {
		for _, r := range rows {
			w.add(r.key, r.sealed)
		}
		b.SetBytes(int64(len(w.finish())))
	}
}
