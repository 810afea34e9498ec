package format2

import (
	"bytes"
	"testing"

	"odx/backstore/meta"
)

// FuzzCheckpointFile reads a file whose checksum is right.
func FuzzCheckpointFile(f *testing.F) {
	f.Add([]byte(checkpointMagic + "\x01\x02ab\x01\x00c\x00"))
	f.Add([]byte(checkpointMagic + "\x00"))
	f.Add([]byte(checkpointMagic + "\xff\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newWriter(func([]meta.Op) error { return nil })
		_ = readCheckpoint(bytes.NewReader(b), w)
	})
}
