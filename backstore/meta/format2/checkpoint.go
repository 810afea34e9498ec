package format2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"

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
	checkpointName  = "checkpoint"
	checkpointMagic = "odxckpt1"
	readBuffer      = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errCheckpoint = errors.New("checkpoint is corrupt")

// applyCheckpoint applies a finished checkpoint file to the engine and keeps it.
// It does nothing where there is none.
func applyCheckpoint(fsys vfs.FS, dir string, kv *DB) error {
	name := filepath.Join(dir, checkpointName)
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
	if err := checkCheckpoint(f, size); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	w := newWriter(kv.update)
	if err := readCheckpoint(io.NewSectionReader(f, 0, size-4), w); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return w.close()
}

func checkCheckpoint(f vfs.File, size int64) error {
	if size < int64(len(checkpointMagic))+5 {
		return fmt.Errorf("%w: checkpoint of %d bytes", errCheckpoint, size)
	}
	h := crc32.New(castagnoli)
	if _, err := io.CopyBuffer(h, io.NewSectionReader(f, 0, size-4), make([]byte, readBuffer)); err != nil {
		return err
	}
	var sum [4]byte
	if _, err := f.ReadAt(sum[:], size-4); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(sum[:]) != h.Sum32() {
		return fmt.Errorf("%w: checkpoint fails its checksum", errCheckpoint)
	}
	return nil
}
