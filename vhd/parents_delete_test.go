package vhd

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"odx/blockdev"
)

// TestManager_CheckDelete: a parent cannot be deleted before its children, which the
// error names; what has no children can be.
func TestManager_CheckDelete(t *testing.T) {
	forFormats(t, func(t *testing.T, ext string) {
		b := start(t)
		b.do(t, Request{Operation: Create, Destination: "dir/a" + ext, Size: 4 * mib})
		b.raw(t, "raw.img", []byte("raw"))
		sound := func(names ...string) {
			t.Helper()
			for _, name := range names {
				if err := b.CheckDelete(ctx, name); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		sound("dir/a"+ext, "raw.img")
		for i := range 7 {
			b.do(t, Request{Operation: Snapshot, Source: "dir/a" + ext, Destination: fmt.Sprintf("c%d%s", i, ext)})
			named := []string{"c0" + ext + " is a differencing disk"}
			switch i {
			case 0:
			case 5, 6:
				named = []string{"c0" + ext + ", ", fmt.Sprintf("c4%s and %d more are", ext, i-4)}
			default:
				named = []string{"c0" + ext, fmt.Sprintf(" and c%d%s are", i, ext)}
			}
			err := b.CheckDelete(ctx, "dir/a"+ext)
			if !errors.Is(err, blockdev.ErrInvalid) {
				t.Fatalf("%d children: %v", i+1, err)
			}
			for _, text := range named {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%d children: %v; want %q", i+1, err, text)
				}
			}
		}
		sound("c0"+ext, "c6"+ext, "raw.img")
	})
}
