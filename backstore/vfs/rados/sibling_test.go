package rados

import (
	"testing"

	"odx/internal/kit/must"
)

// TestSibling_MadeAgain: where a store was deleted and made again, its files have numbers that others
// had before; Forget has the names be read again.
func TestSibling_MadeAgain(t *testing.T) {
	twin := NewTwin(sinceStart())
	sibling := NewSibling(twin.Client())
	made := func(names ...string) {
		f := New(twin.Client())
		must.Succeed(t, f.MkdirAll("/segments"))
		for _, name := range names {
			file, err := f.Create("/segments/" + name)
			must.Succeed(t, err)
			_, err = file.WriteAt([]byte(name), 0)
			must.Succeed(t, err, file.Sync(), file.Close())
		}
	}
	read := func(name string) string {
		file, err := sibling.Open("/segments/" + name)
		must.Succeed(t, err)
		b := make([]byte, 1)
		_, err = file.ReadAt(b, 0)
		must.Succeed(t, err)
		return string(b)
	}
	made("a", "b")
	if got := read("a"); got != "a" {
		t.Fatalf("file a has %q", got)
	}
	clear(twin.objects)
	made("b", "a")
	sibling.Forget()
	if got := read("a"); got != "a" {
		t.Errorf("file a has %q after the store was made again", got)
	}
}
