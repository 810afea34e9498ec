package backstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"

	"odx/backstore/meta"
	"odx/backstore/vfs"
)

// A checkpoint is written to the file "checkpoint" first and applied to the
// metadata engine from there, because it can be larger than the engine's
// largest transaction. While the file exists it is authoritative: a restart
// applies it again, which changes nothing that was applied already.
//
// Layout: magic (8 bytes), then for each change uvarint key length, uvarint
// value length plus 1 (0: delete), key, value; then a zero byte and the CRC-32C
// of all before it.
const (
	redoName   = "checkpoint"
	redoMagic  = "odxckpt1"
	redoBuffer = 1 << 20
)

type redoWriter struct {
	f   vfs.File
	off int64
	buf []byte
	crc uint32
}

func newRedoWriter(f vfs.File) *redoWriter {
	return &redoWriter{f: f, buf: append(make([]byte, 0, redoBuffer+64<<10), redoMagic...)}
}

func (w *redoWriter) put(op meta.Op) error {
	w.buf = binary.AppendUvarint(w.buf, uint64(len(op.Key)))
	if op.Value == nil {
		w.buf = binary.AppendUvarint(w.buf, 0)
	} else {
		w.buf = binary.AppendUvarint(w.buf, uint64(len(op.Value))+1)
	}
	w.buf = append(w.buf, op.Key...)
	w.buf = append(w.buf, op.Value...)
	if len(w.buf) < redoBuffer {
		return nil
	}
	return w.flush()
}

func (w *redoWriter) flush() error {
	w.crc = crc32.Update(w.crc, castagnoli, w.buf)
	_, err := w.f.WriteAt(w.buf, w.off)
	w.off += int64(len(w.buf))
	w.buf = w.buf[:0]
	return err
}

func (w *redoWriter) finish() error {
	w.buf = append(w.buf, 0)
	if err := w.flush(); err != nil {
		return err
	}
	w.buf = binary.BigEndian.AppendUint32(w.buf, w.crc)
	return w.flush()
}

// applyRedo applies a finished checkpoint file to the engine and removes it.
// It does nothing where there is none.
func applyRedo(fsys vfs.FS, dir string, kv meta.KV) error {
	name := filepath.Join(dir, redoName)
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	if err := checkRedo(f, size); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	w := meta.NewWriter(kv)
	if err := readRedo(io.NewSectionReader(f, 0, size-4), w); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := fsys.Remove(name); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

func checkRedo(f vfs.File, size int64) error {
	if size < int64(len(redoMagic))+5 {
		return fmt.Errorf("%w: checkpoint of %d bytes", ErrCorrupt, size)
	}
	h := crc32.New(castagnoli)
	if _, err := io.CopyBuffer(h, io.NewSectionReader(f, 0, size-4), make([]byte, redoBuffer)); err != nil {
		return err
	}
	var sum [4]byte
	if _, err := f.ReadAt(sum[:], size-4); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(sum[:]) != h.Sum32() {
		return fmt.Errorf("%w: checkpoint fails its checksum", ErrCorrupt)
	}
	return nil
}
