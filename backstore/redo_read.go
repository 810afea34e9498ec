package backstore

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"odx/backstore/meta"
)

// maxRedoField bounds what a length in a checkpoint may ask for: the largest
// keys and values are records, which callers keep small.
const maxRedoField = 16 << 20

// readRedo applies the changes of a checkpoint, whose checksum is right, to w.
func readRedo(r io.Reader, w *meta.Writer) error {
	br := bufio.NewReaderSize(r, redoBuffer)
	magic := make([]byte, len(redoMagic))
	if _, err := io.ReadFull(br, magic); err != nil || string(magic) != redoMagic {
		return fmt.Errorf("%w: not a checkpoint of this version", ErrCorrupt)
	}
	for {
		keyLen, err := binary.ReadUvarint(br)
		if err != nil {
			return err
		}
		if keyLen == 0 {
			return nil
		}
		valueLen, err := binary.ReadUvarint(br)
		if err != nil {
			return err
		}
		if keyLen > maxRedoField || valueLen > maxRedoField {
			return fmt.Errorf("%w: checkpoint field of %d and %d bytes", ErrCorrupt, keyLen, valueLen)
		}
		key := make([]byte, keyLen)
		if _, err := io.ReadFull(br, key); err != nil {
			return err
		}
		if valueLen == 0 {
			err = w.Delete(key)
		} else {
			value := make([]byte, valueLen-1)
			if _, err := io.ReadFull(br, value); err != nil {
				return err
			}
			err = w.Put(key, value)
		}
		if err != nil {
			return err
		}
	}
}
