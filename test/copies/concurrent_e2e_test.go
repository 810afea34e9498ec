//go:build e2e

package copies

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"odx/initiator"
	"odx/internal/kit"
	"odx/internal/kit/harness"
)

// TestThousandCopiesOfEightSessions: 1,000 token copies run at once, by eight sessions,
// each with a token of its own; every copy is what its token stood for when it was
// made, though its source is overwritten concurrently.
func TestThousandCopiesOfEightSessions(t *testing.T) {
	const sessions, copies, length = 8, 125, 256 << 10
	target := harness.Serve(t, kit.LUN{Size: sessions * length * 2}, kit.LUN{Size: sessions * copies * length * 2, BlockSize: 4096})
	var all sync.WaitGroup
	for s := range int64(sessions) {
		src, dst := openLUN(t, target, 0), openLUN(t, target, 1)
		all.Go(func() {
			if err := copyManyTimes(t, src, dst, s*length*2, s*copies*length*2, copies, length); err != nil {
				t.Errorf("session %d: %v", s, err)
			}
		})
	}
	all.Wait()
	if n := target.CheckStore(t.Context()); n != nil {
		t.Errorf("check of the store: %v", n)
	}
}

func openLUN(t *testing.T, target *kit.Target, lun int) *initiator.Disk {
	t.Helper()
	u, err := initiator.ParseURL(target.URL(lun))
	if err != nil {
		t.Fatal(err)
	}
	d, err := initiator.Open(t.Context(), initiator.Options{URL: u})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// copyManyTimes fills a range of src with something new, makes a token of it and
// starts a copy to its own place, again and again; then it reads all copies.
// Every second one is shifted, so that it shares extents and no nodes.
func copyManyTimes(t *testing.T, src, dst *initiator.Disk, from, to, copies, length int64) error {
	data := make([]byte, length)
	var running sync.WaitGroup
	failed := make(chan error, copies)
	place := func(i int64) int64 { return to + i*length*2 + i%2*4096 }
	for i := range copies {
		stamp(data, from, i)
		if err := src.WriteAt(t.Context(), data, from); err != nil {
			return err
		}
		token, n, err := src.PopulateToken(t.Context(), from, length)
		if err != nil || n != length {
			return fmt.Errorf("token %d for %d bytes: %w", i, n, err)
		}
		running.Go(func() { failed <- writeWhole(t, dst, token, place(i), length) })
	}
	running.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			return err
		}
	}
	got := make([]byte, length)
	for i := range copies {
		stamp(data, from, i)
		if err := dst.ReadAt(t.Context(), got, place(i)); err != nil {
			return err
		}
		if !bytes.Equal(got, data) {
			return fmt.Errorf("copy %d is not what its token stood for", i)
		}
	}
	return nil
}

// writeWhole writes with a token until nothing is left.
func writeWhole(t *testing.T, dst *initiator.Disk, token *initiator.Token, at, length int64) error {
	for done := int64(0); done < length; {
		n, err := dst.WriteUsingToken(t.Context(), token, done, at+done, length-done)
		if err != nil {
			return err
		}
		done += n
	}
	return nil
}

// stamp fills p so that each 512 bytes tell whose they are and which version.
func stamp(p []byte, from, version int64) {
	for i := 0; i < len(p); i += 512 {
		binary.LittleEndian.PutUint64(p[i:], uint64(from)+uint64(i))
		binary.LittleEndian.PutUint64(p[i+8:], uint64(version)+1)
	}
}
