package backstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"odx/internal/kit/must"
	"odx/internal/kit/oldstores"
)

// TestDump shows all of a store of each format, whose journal has records of every
// kind, without changing it; damage is shown as such.
func TestDump(t *testing.T) {
	ctx := context.Background()
	seen := make(map[string]int)
	show := func(o Options, parts ...string) (text string) {
		t.Helper()
		err := Dump(ctx, o, parts, func(item DumpItem) error {
			seen[item.Part]++
			b, err := json.Marshal(item.Value)
			text += fmt.Sprintf("%s %s %s", item.Part, item.Key, b)
			if item.Error != "" {
				text += ` "error": ` + item.Error
			}
			text += "\n"
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for _, store := range oldstores.Stores(t) {
		d, rows := loadFormat2(t, &store)
		old := show(d.upgradeOptions(rows))
		if strings.Contains(old, `"error"`) && strings.Count(old, `"error"`) > 1 { // there is no second superblock
			t.Errorf("%s: %s", store.Name, old)
		}
		if !strings.Contains(old, `"name":"src"`) || !strings.Contains(old, `"format":2`) {
			t.Errorf("%s: the volume src is missing", store.Name)
		}
	}
	other := newDisk()
	vals := make([]uint32, 8)
	vals[0] = 1
	s := other.open(t, 4<<10)
	must.Succeed(t, createVolume(t, s, "v", 1<<20).WriteKnown(ctx, otherStore, content(vals), 0, []Run{namedRun(41, vals)}))
	must.Succeed(t, s.Close())
	if known := show(other.options(Options{}), "known"); !strings.Contains(known, `"slot":42`) || !strings.Contains(known, fmt.Sprintf(`"id":"%x"`, otherStore)) {
		t.Errorf("known names: %s", known)
	}
	for _, part := range DumpParts {
		if part != "aliases" && seen[part] == 0 {
			t.Errorf("nothing of %s was shown", part)
		}
	}
	d := newDisk()
	repairDisk(t, d.options(Options{DedupUnit: 16 << 10, CacheBytes: 4 << 20}))
	before := files(t, d.fs, "/store")
	o := d.options(Options{})
	whole := show(o)
	if strings.Contains(whole, `"error"`) || !strings.Contains(whole, `"kind":"write"`) || !strings.Contains(whole, `"kind":"unmap"`) {
		t.Errorf("%s", whole)
	}
	if one := show(o, "volumes"); strings.Count(one, "\n") != 3 || strings.Contains(one, "journal") {
		t.Errorf("the volumes: %s", one)
	}
	for name, content := range files(t, d.fs, "/store") {
		if !slices.Equal(content, before[name]) {
			t.Errorf("%s was changed", name)
		}
	}
	for _, name := range []string{"store", "checkpoints/store"} {
		bad := slices.Clone(before["/store/"+name])
		bad[70] ^= 1
		put(t, d.fs, "/store/"+name, bad)
		if damaged := show(o); !strings.Contains(damaged, "is not a whole superblock") {
			t.Errorf("a damaged superblock: %s", damaged)
		}
		put(t, d.fs, "/store/"+name, before["/store/"+name])
	}
	if err := Dump(ctx, o, []string{"blocks"}, func(DumpItem) error { return nil }); !errors.Is(err, ErrInvalid) {
		t.Errorf("an unknown part: %v, want ErrInvalid", err)
	}
}
