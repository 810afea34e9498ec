package api

import (
	"context"
	"errors"
	"slices"
	"testing"

	"odx/admin"
	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/target"
)

// TestDiff: what differs between a volume, its snapshot, its clone and a file, with holes
// and sizes, from the store and over the API.
func TestDiff(t *testing.T) {
	eachAdministrator(t, func(t *testing.T, _ *target.Service, _ string, a admin.Administrator) {
		ctx := t.Context()
		const mib = 1 << 20
		write := func(name string, off int64) {
			t.Helper()
			must.Succeed(t, a.WriteVolume(ctx, name, []byte("some data"), off))
		}
		diff := func(r admin.DiffRequest) (found []admin.DiffRange, d admin.Diff) {
			t.Helper()
			d, err := a.Diff(ctx, r, func(ranges []admin.DiffRange) error {
				found = append(found, ranges...)
				return nil
			})
			must.Succeed(t, err)
			return found, d
		}
		write("src", 0)
		write("src", 8*mib)
		_, err := a.SnapshotVolume(ctx, "src", "before")
		must.Succeed(t, err)
		write("src", 3*mib+100)
		must.Succeed(t, a.ZeroVolume(ctx, "src", 8*mib, mib))
		changed := []admin.DiffRange{{Offset: 3 * mib, Length: 4096}, {Offset: 8 * mib, Length: 4096, Hole: true}}
		if got, d := diff(admin.DiffRequest{Name: "src", Base: "before"}); !slices.Equal(got, changed) ||
			d != (admin.Diff{SizeBytes: 64 * mib, BaseBytes: 64 * mib, Ranges: 2, DataBytes: 4096, HoleBytes: 4096}) {
			t.Errorf("a volume and its snapshot: %v %+v", got, d)
		}
		if got, _ := diff(admin.DiffRequest{Name: "src", Base: "before", Offset: 8 * mib, Length: 1000}); !slices.Equal(got, []admin.DiffRange{{Offset: 8 * mib, Length: 1000, Hole: true}}) {
			t.Errorf("a part: %v", got)
		}
		if got, d := diff(admin.DiffRequest{Name: "before"}); !slices.Equal(got, []admin.DiffRange{{Offset: 0, Length: 4096}, {Offset: 8 * mib, Length: 4096}}) || d.BaseBytes != 0 {
			t.Errorf("what is allocated: %v %+v", got, d)
		}
		_, err = a.CloneVolume(ctx, "before", "clone")
		must.Succeed(t, err)
		_, err = a.ResizeVolume(ctx, "clone", 100*mib)
		must.Succeed(t, err)
		if got, d := diff(admin.DiffRequest{Name: "clone", Base: "before"}); len(got) != 0 || d.SizeBytes != 100*mib || d.BaseBytes != 64*mib {
			t.Errorf("a clone that is larger: %v %+v", got, d)
		}
		write("clone", 99*mib)
		if got, _ := diff(admin.DiffRequest{Name: "before", Base: "clone"}); len(got) != 0 {
			t.Errorf("beyond the end: %v", got)
		}
		_, err = a.CopyFile(ctx, "before", "images/before")
		must.Succeed(t, err)
		if got, _ := diff(admin.DiffRequest{Name: "src", Base: "file:images/before"}); !slices.Equal(got, changed) {
			t.Errorf("a volume and a file: %v", got)
		}
		// More ranges than are passed at once.
		for i := range int64(1500) {
			write("clone", 16*mib+i*8192)
		}
		if got, d := diff(admin.DiffRequest{Name: "clone", Base: "before"}); len(got) != 1501 || d.Ranges != 1501 {
			t.Errorf("%d ranges, %+v", len(got), d)
		}
		stop := errors.New("stop")
		if _, err := a.Diff(ctx, admin.DiffRequest{Name: "clone"}, func([]admin.DiffRange) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("%v, want the error of found", err)
		}
		for name, r := range map[string]admin.DiffRequest{
			"no volume": {Name: "none"}, "no base": {Name: "src", Base: "none"}, "range": {Name: "src", Offset: 65 * mib},
		} {
			_, err := a.Diff(ctx, r, func([]admin.DiffRange) error { return nil })
			if err == nil || name == "range" && !errors.Is(err, blockdev.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := a.Diff(ended, admin.DiffRequest{Name: "src"}, func([]admin.DiffRange) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want context.Canceled", err)
		}
		info, err := a.StoreInfo(ctx)
		must.Succeed(t, err)
		if info.Snapshots != 0 {
			t.Errorf("%d snapshots are left", info.Snapshots)
		}
	})
}
