//go:build e2e

package disks

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"odx/admin"
	"odx/api"
	v1 "odx/api/v1"
	"odx/internal/kit"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
	"odx/vhd"
)

const (
	killedDisk = 64 << 20
	rounds     = 15
)

// Disks in the store that every round begins with: a parent with the old contents, a
// child over it with the new ones, a disk of its own with the new ones, which has
// room that nothing uses, and one in the other format with the old ones.
const (
	parentFile = "run/parent.vhdx"
	childFile  = "run/child.vhdx"
	looseFile  = "run/loose.vhdx"
	otherFile  = "run/other.vhd"
)

var runFiles = []string{childFile, looseFile, otherFile, parentFile}

// attempt is an operation during which the server is killed. new reports whether it has
// taken effect; both outcomes have contents that are known.
type attempt struct {
	request admin.DiskRequest
	isNew   func(k *killed) bool
	// old and new are the contents by file; a file that is not there has none.
	old, new map[string][]byte
}

// TestKilledDuringOperations kills the server by SIGKILL at random times while it
// converts, merges and compacts. After the restart there is the old disk or the new
// one, with the right contents, and nothing else that takes space.
func TestKilledDuringOperations(t *testing.T) {
	t.Parallel() // programs wait for each other a lot
	k := startKilled(t)
	attempts := k.attempts()
	limits := make([]time.Duration, len(attempts))
	for i, a := range attempts {
		limits[i] = k.duration(a)
	}
	onTheWay, changed := 0, 0
	for round := range rounds {
		a := attempts[round%len(attempts)]
		k.prepare()
		// Some after the end, when the new disk must be there.
		delay := time.Duration(k.r.Int64N(int64(limits[round%len(attempts)]) * 3 / 2))
		died := k.kill(a.request, delay)
		isNew := k.check(a)
		t.Logf("round %d: %s, killed after %v: interrupted: %v, new disk: %v", round, a.request.Operation, delay, died, isNew)
		if !died && !isNew {
			t.Errorf("round %d: %s has ended and is undone", round, a.request.Operation)
		}
		if died {
			onTheWay++
		}
		if isNew {
			changed++
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d rounds, %d killed on the way, %d left the new disk", rounds, onTheWay, changed)
	if onTheWay < rounds/3 {
		t.Errorf("only %d of %d operations were killed on the way: too few to prove anything", onTheWay, rounds)
	}
	k.wantSpaceBack()
}

// duration returns how long an operation takes, and checks that it is done then.
func (k *killed) duration(a attempt) time.Duration {
	k.t.Helper()
	shortest := time.Hour
	for range 3 { // the first one finds nothing in the caches
		k.prepare()
		began := time.Now()
		if _, err := k.client.ChangeDisk(k.ctx, a.request, nil); err != nil {
			k.t.Fatal(err)
		}
		shortest = min(shortest, time.Since(began))
	}
	if !k.check(a) {
		k.t.Fatalf("%s has done nothing", a.request.Operation)
	}
	return shortest
}

// killed is a server that is killed, and what its disks hold.
type killed struct {
	*bed
	client *api.Client
	r      *rand.Rand
	// old and new are contents of the disks.
	old, new []byte
}

// startKilled makes the disks in the directory saved.
func startKilled(t *testing.T) *killed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	k := &killed{r: rand.New(rand.NewPCG(6, 6)), old: make([]byte, killedDisk)}
	k.bed = &bed{t: t, ctx: ctx, dir: t.TempDir(), target: harness.ServeWith(t, kit.Settings{}, kit.LUN{Size: 1 << 20})}
	k.client = api.NewClient(filepath.Join(k.target.Dir, "data"))
	t.Cleanup(k.client.Close)
	random := rand.NewChaCha8([32]byte{6})
	random.Read(k.old[:killedDisk/2])
	k.new = slices.Clone(k.old)
	if err := os.WriteFile(k.host("old.raw"), k.old, 0o600); err != nil {
		t.Fatal(err)
	}
	k.admin(nil, "file", "put", k.host("old.raw"), "saved/old.raw")
	k.change("convert", "--block-size", "1MiB", "saved/old.raw", "saved/parent.vhdx")
	k.change("convert", "saved/old.raw", "saved/other.vhd")
	k.change("snapshot", "saved/parent.vhdx", "saved/child.vhdx")
	k.writeChild(random)
	k.change("convert", "--block-size", "1MiB", "saved/child.vhdx", "saved/loose.vhdx")
	// Its first blocks are given back, so there are gaps to close.
	k.serve(kit.LUN{Size: 1 << 20}, kit.LUN{File: "saved/loose.vhdx"})
	k.unmap(k.target.URL(1), 0, 4<<20)
	k.serve(kit.LUN{Size: 1 << 20})
	k.admin(nil, "file", "rm", "saved/old.raw")
	return k
}

// writeChild changes what the child shows, in places of all sizes, as an initiator.
func (k *killed) writeChild(random *rand.ChaCha8) {
	k.t.Helper()
	k.serve(kit.LUN{Size: 1 << 20}, kit.LUN{File: "saved/child.vhdx"})
	s := harness.Open(k.t, harness.Client(k.t), k.target.URL(1))
	for range 300 {
		sectors := 1 + k.r.IntN(200)
		at := k.r.IntN(killedDisk/512 - sectors)
		part := k.new[at*512 : (at+sectors)*512]
		random.Read(part)
		a, err := s.Write(bytes.NewReader(part), uint64(at), uint64(sectors), tokenclient.WriteOptions{})
		if err != nil || !a.Good() {
			k.t.Fatalf("write: %v, %v", a, err)
		}
	}
	if err := s.Close(); err != nil {
		k.t.Fatal(err)
	}
	k.serve(kit.LUN{Size: 1 << 20})
}

// attempts are the operations that are tried.
func (k *killed) attempts() []attempt {
	loose := slices.Clone(k.new)
	clear(loose[:4<<20])
	all := func(parent, child, other []byte) map[string][]byte {
		return map[string][]byte{parentFile: parent, childFile: child, looseFile: loose, otherFile: other}
	}
	old := all(k.old, k.new, k.old)
	length := k.info("saved/loose.vhdx").FileBytes
	return []attempt{
		{
			request: admin.DiskRequest{Operation: vhd.Convert, Source: childFile, Destination: otherFile, Overwrite: true},
			isNew:   func(k *killed) bool { return bytes.Equal(k.read(otherFile), k.new) },
			old:     old, new: all(k.old, k.new, k.new),
		}, {
			request: admin.DiskRequest{Operation: vhd.Merge, Source: childFile},
			isNew:   func(k *killed) bool { return !slices.Contains(k.files("run/"), childFile) },
			old:     old, new: all(k.new, nil, k.old),
		}, {
			request: admin.DiskRequest{Operation: vhd.Compact, Source: looseFile},
			isNew:   func(k *killed) bool { return k.info(looseFile).FileBytes < length },
			old:     old, new: old,
		},
	}
}

// prepare recreates the directory run.
func (k *killed) prepare() {
	k.t.Helper()
	for _, name := range k.files("run/") {
		if err := k.client.DeleteParent(k.ctx, name); err != nil {
			k.t.Fatal(err)
		}
	}
	for _, name := range runFiles {
		if _, err := k.client.CopyFile(k.ctx, admin.FilePrefix+"saved/"+filepath.Base(name), name); err != nil {
			k.t.Fatal(err)
		}
	}
}

// kill kills the server some time after an operation has begun, and starts it again.
// It reports whether the operation had not ended.
func (k *killed) kill(r admin.DiskRequest, after time.Duration) (died bool) {
	k.t.Helper()
	killed := make(chan error, 1)
	time.AfterFunc(after, func() { killed <- k.target.Kill() })
	_, err := k.client.ChangeDisk(k.ctx, r, nil)
	if err := <-killed; err != nil {
		k.t.Fatal(err)
	}
	if err := k.target.Restart(k.ctx); err != nil {
		k.t.Fatal(err)
	}
	return err != nil
}

// check checks everything after an operation that may have been interrupted, and
// reports whether it has taken effect.
func (k *killed) check(a attempt) (isNew bool) {
	k.t.Helper()
	want := a.old
	if isNew = a.isNew(k); isNew {
		want = a.new
	}
	var names []string
	for _, name := range runFiles {
		if want[name] == nil {
			continue
		}
		names = append(names, name)
		var c v1.DiskCheck
		k.admin(&c, "vhd", "check", name)
		if !c.Sound {
			k.t.Errorf("%s after %s: %+v", name, a.request.Operation, c.Findings)
		}
		if !bytes.Equal(k.read(name), want[name]) {
			k.t.Errorf("%s has neither the old nor the new contents after %s", name, a.request.Operation)
		}
	}
	if have := k.files("run/"); !slices.Equal(have, names) {
		k.t.Errorf("the files are %q, not %q, after %s", have, names, a.request.Operation)
	}
	if hidden := k.files("."); len(hidden) > 0 {
		k.t.Errorf("hidden files are left: %q", hidden)
	}
	if err := k.target.CheckStore(k.ctx); err != nil {
		k.t.Error(err)
	}
	return isNew
}

// files returns the files whose names have a prefix, hidden ones too
// who lists files.
func (k *killed) files(prefix string) (names []string) {
	k.t.Helper()
	store, err := k.client.StoreInfo(k.ctx)
	if err != nil {
		k.t.Fatal(err)
	}
	for _, f := range store.Files {
		if strings.HasPrefix(f.Name, prefix) {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	return names
}

// read returns what a disk shows.
func (k *killed) read(name string) []byte {
	k.t.Helper()
	const raw = "read.raw"
	k.change("convert", name, raw)
	p := make([]byte, killedDisk)
	if err := k.client.ReadVolume(k.ctx, admin.FilePrefix+raw, p, 0); err != nil {
		k.t.Fatal(err)
	}
	if err := k.client.DeleteFile(k.ctx, raw); err != nil {
		k.t.Fatal(err)
	}
	return p
}

// unmap makes a part of a LUN zeros, as fstrim does.
func (k *killed) unmap(url string, off, length uint64) {
	k.t.Helper()
	s := harness.Open(k.t, harness.Client(k.t), url)
	list := make([]byte, 24)
	list[1], list[3] = 22, 16
	binary.BigEndian.PutUint64(list[8:], off/512)
	binary.BigEndian.PutUint32(list[16:], uint32(length/512))
	a, err := s.Command([]byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, list, 0)
	if err != nil || !a.Good() {
		k.t.Fatalf("unmap: %v, %v", a, err)
	}
	if err := s.Close(); err != nil {
		k.t.Fatal(err)
	}
}

// wantSpaceBack deletes all files: nothing may be left in the store then.
func (k *killed) wantSpaceBack() {
	k.t.Helper()
	for _, name := range k.files("") {
		if err := k.client.DeleteParent(k.ctx, name); err != nil {
			k.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(k.ctx, 20*time.Second)
	defer cancel()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		store, err := k.client.StoreInfo(ctx)
		if err != nil {
			k.t.Fatal(err)
		}
		if store.LiveBytes == 0 && store.Snapshots == 0 {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			k.t.Fatalf("without any file the store still holds %d bytes and %d snapshots", store.LiveBytes, store.Snapshots)
		}
	}
}
