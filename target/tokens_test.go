package target

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"odx/blockdev"
	"odx/tokens"
)

// TestTokensGoWhenTheStoreGetsFull: the watch over space asks for what is over
// the soft threshold, and tokens that hold space end.
func TestTokensGoWhenTheStoreGetsFull(t *testing.T) {
	s := start(t, parse(t, t.TempDir(), fmt.Sprintf(disks, `"127.0.0.1:0"`)+"store: {capacity: 256MiB, soft_threshold: 10}\n"))
	v, err := s.store.Volume("src")
	if err != nil {
		t.Fatal(err)
	}
	write := func(value byte) {
		p := make([]byte, 16<<20)
		for at := 0; at < len(p); at += blockdev.BlockLength {
			p[at], p[at+1], p[at+2] = byte(at>>12), byte(at>>20), value
		}
		if err := v.WriteAt(t.Context(), p, 0); err != nil {
			t.Fatal(err)
		}
	}
	write(1)
	res, err := s.tokens.OffloadRead(t.Context(), tokens.Source{Volume: v, LU: tokens.LU{BlockLength: 512}}, []blockdev.Range{{Length: 16 << 20}}, tokens.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.relieveStore(1 << 20)
	if _, err := s.tokens.Lookup(res.Token); err != nil {
		t.Fatalf("a token that holds nothing went: %v", err)
	}
	write(2)
	// The watch looks every second; a token that ends is refused before it is counted.
	for err == nil || s.tokens.Stats().Live > 0 {
		select {
		case <-t.Context().Done():
			t.Fatal("the token stayed")
		case <-time.After(10 * time.Millisecond):
		}
		_, err = s.tokens.Lookup(res.Token)
	}
	if !errors.Is(err, tokens.ErrCancelled) || s.tokens.Stats().CancelledFor[tokens.OutOfSpace] != 1 {
		t.Errorf("%v; %+v", err, s.tokens.Stats())
	}
}
