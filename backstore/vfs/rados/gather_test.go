package rados

import (
	"bytes"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// Small writes to a file of data, one after the other, are few messages, also over the ends of its
// objects; before they are sent they can be read, and count for the size.
func TestFile_Gathers(t *testing.T) {
	const block, blocks = 4 << 10, 2048 // two objects
	twin := NewTwin(sinceStart())
	f := New(twin.Client())
	must.Succeed(t, f.MkdirAll("/segments"))
	file, err := f.Create("/segments/1")
	must.Succeed(t, err)
	sent := 0
	twin.SetHook(func(_ string, c *Change) error {
		if len(c.Data) > 0 {
			sent++
		}
		return nil
	})
	want := make([]byte, block*blocks)
	for i := range blocks {
		part := want[i*block : (i+1)*block]
		for k := range part {
			part[k] = byte(i + k)
		}
		_, err := file.WriteAt(part, int64(i)*block)
		must.Succeed(t, err)
	}
	if size, err := file.Size(); err != nil || size != int64(len(want)) {
		t.Errorf("size %d, %v", size, err)
	}
	must.Succeed(t, file.Sync())
	if most := len(want)/gatherBytes + 2; sent > most {
		t.Errorf("%d messages for %d writes, want at most %d", sent, blocks, most)
	}
	// The last block again, which is read before it is sent.
	copy(want[len(want)-block:], bytes.Repeat([]byte{9}, block))
	_, err = file.WriteAt(want[len(want)-block:], int64(len(want)-block))
	must.Succeed(t, err)
	wantContent(t, file, want)
	must.Succeed(t, file.Close())
	again, err := f.Open("/segments/1")
	must.Succeed(t, err)
	wantContent(t, again, want)
	must.Succeed(t, again.Close())
}

func wantContent(t *testing.T, f vfs.File, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what is read differs from what was written, %v", err)
	}
}
