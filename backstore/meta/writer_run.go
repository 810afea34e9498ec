package meta

import (
	"bytes"
	"fmt"
	"hash/crc32"
)

// runBuffer is the number of bytes per write.
const runBuffer = 256 << 10

// runWriter writes a run to all its copies in one pass.
type runWriter struct {
	files  []output
	layout layout
	off    int64 // of buf
	buf    []byte
	table  tableWriter
	keys   keyList
	index  []byte
	// lengths are the lengths of the files after finish.
	lengths []int64
}

func newRunWriter(files []output, store [16]byte, id runID) *runWriter {
	w := &runWriter{files: files, layout: layout{store: store, id: id}}
	w.buf = append(make([]byte, 0, runBuffer+2*tableBytes), w.layout.header()...)
	return w
}

// put adds a row, or a deletion where sealed is nil. Keys ascend.
func (w *runWriter) put(key, sealed []byte) error {
	if len(key) == 0 || len(key) > MaxKey || len(sealed) > MaxValue+sealLength {
		return fmt.Errorf("row with a key of %d and a value of %d bytes: %w", len(key), len(sealed), ErrTooLarge)
	}
	if bytes.Compare(key, w.keys.last) <= 0 {
		return fmt.Errorf("metadata row %q comes after %q", key, w.keys.last)
	}
	if w.keys.count == tableRows || w.table.bytes > 0 && w.table.bytes+len(key)+len(sealed) > tableBytes {
		if err := w.endTable(); err != nil {
			return err
		}
	}
	w.keys.add(key, sealed == nil)
	if sealed == nil {
		w.layout.deletions++
		return nil
	}
	w.layout.rows++
	w.table.add(key, sealed)
	return nil
}

func (w *runWriter) endTable() error {
	if w.keys.count == 0 {
		return nil
	}
	data := w.table.finish()
	w.index = w.keys.appendTo(w.index, len(data), crc32.Checksum(data, castagnoli))
	w.buf = append(w.buf, data...)
	if len(w.buf) < runBuffer {
		return nil
	}
	return w.flush()
}

func (w *runWriter) flush() error {
	for _, f := range w.files {
		if _, err := f.WriteAt(w.buf, w.off); err != nil {
			return err
		}
		if err := f.WriteBack(w.off, int64(len(w.buf))); err != nil {
			return err
		}
	}
	w.off += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

// pad writes zeros up to an offset in the file.
func (w *runWriter) pad(to int64) {
	w.buf = append(w.buf, make([]byte, to-w.off-int64(len(w.buf)))...)
}

// finish writes index and trailer and makes all copies durable. It returns the layout
// and the index.
func (w *runWriter) finish() (layout, []byte, error) {
	if err := w.endTable(); err != nil {
		return layout{}, nil, err
	}
	l := placed(w.off+int64(len(w.buf)), int64(len(w.index)))
	l.store, l.id = w.layout.store, w.layout.id
	l.rows, l.deletions = w.layout.rows, w.layout.deletions
	l.indexCRC = crc32.Checksum(w.index, castagnoli)
	for _, at := range l.index {
		w.pad(at)
		w.buf = append(w.buf, w.index...)
	}
	w.pad(l.size - 2*blockLength)
	trailer := l.trailer()
	w.buf = append(append(w.buf, trailer...), trailer...)
	if err := w.flush(); err != nil {
		return layout{}, nil, err
	}
	for i := range w.files {
		length, err := w.files[i].end(&l)
		if err != nil {
			return layout{}, nil, err
		}
		w.lengths = append(w.lengths, length)
	}
	return l, w.index, nil
}
