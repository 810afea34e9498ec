// This file changes stored bytes of a store that is stopped.

package survival

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// FlipBit flips a bit in the middle of where the store in dir holds the data.
func FlipBit(dir string, data []byte) error {
	segments, err := filepath.Glob(filepath.Join(dir, "segments", "*.seg"))
	if err != nil {
		return err
	}
	for _, name := range segments {
		stored, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		at := bytes.Index(stored, data)
		if at < 0 {
			continue
		}
		stored[at+len(data)/2] ^= 0x10
		return os.WriteFile(name, stored, 0o600)
	}
	return fmt.Errorf("none of the %d segments of %s holds the data", len(segments), dir)
}
