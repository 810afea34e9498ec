package format2

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// maxField bounds what a length in a checkpoint may ask for: the largest
// keys and values are records, which callers keep small.
const maxField = 16 << 20

// readCheckpoint applies the changes of a checkpoint, whose checksum is right, to w.
func readCheckpoint(r io.Reader, w *writer) error {
	br := bufio.NewReaderSize(r, readBuffer)
	magic := make([]byte, len(checkpointMagic))
	if _, err := io.ReadFull(br, magic); err != nil || string(magic) != checkpointMagic {
		return fmt.Errorf("%w: not a checkpoint of this version", errCheckpoint)
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
		if keyLen > maxField || valueLen > maxField {
			return fmt.Errorf("%w: checkpoint field of %d and %d bytes", errCheckpoint, keyLen, valueLen)
		}
		key := make([]byte, keyLen)
		if _, err := io.ReadFull(br, key); err != nil {
			return err
		}
		if valueLen == 0 {
			err = w.add(key, nil)
		} else {
			value := make([]byte, valueLen-1)
			if _, err := io.ReadFull(br, value); err != nil {
				return err
			}
			err = w.add(key, value)
		}
		if err != nil {
			return err
		}
	}
}
