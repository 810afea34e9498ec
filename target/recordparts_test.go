package target

import (
	"bytes"
	"errors"
	"testing"

	"odx/backstore"
)

// TestWriteParts: a text is read as it was written last, whatever its length was before.
func TestWriteParts(t *testing.T) {
	const key = "server/text"
	s := start(t, parse(t, t.TempDir(), one()))
	defer stop(t, s)
	if _, err := readParts(s.store, key); !errors.Is(err, backstore.ErrNotFound) {
		t.Errorf("before the first: %v", err)
	}
	for i, n := range []int{0, 1, recordPart, recordPart + 1, 3 * recordPart, 12 * recordPart, 2 * recordPart, 10} {
		text := random(uint64(i), n)
		if err := writeParts(t.Context(), s.store, key, text); err != nil {
			t.Fatal(err)
		}
		if got, err := readParts(s.store, key); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%d bytes: read %d, %v", n, len(got), err)
		}
	}
}
