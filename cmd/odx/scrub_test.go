package main

import (
	"strings"
	"testing"
	"time"

	"odx/backstore"
)

// TestPrintScrub_Metadata: what is wrong with the files of a store is in the summary, too.
func TestPrintScrub_Metadata(t *testing.T) {
	var out strings.Builder
	r := backstore.ScrubResult{Metadata: []string{"DIR/store: permission denied"}}
	if err := printScrub(&out, r, time.Second); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Contains(text, "nothing is damaged") ||
		!strings.Contains(text, "files of the store are damaged, and all data is right") || !strings.Contains(text, "not mended: DIR/store: permission denied") {
		t.Errorf("printed %q", text)
	}
	for _, test := range []struct {
		damaged, metadata int
		want              string
	}{
		{0, 0, "nothing is damaged"},
		{2, 0, "2 extents are damaged"},
		{1, 1, "1 extent is damaged, and files of the store are"},
	} {
		r := backstore.ScrubResult{Metadata: make([]string, test.metadata)}
		r.Damaged = test.damaged
		if got := foundText(r); got != test.want {
			t.Errorf("%d extents, %d of the metadata: %q", test.damaged, test.metadata, got)
		}
	}
}
