package target

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	client "odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/migrate"
	"odx/tokens"
)

// migratedDisk is a configuration with one LUN, and views.
const migratedDisk = `# the disks
data_dir: data
portals: ["127.0.0.1:0"]
views:
  - name: checked
    size: 16MiB
    verify: {of: below}
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: a, size: 16MiB} # the first
`

const migratedSize = 16 << 20

// state returns the migration of a volume.
func migrationOf(t testing.TB, s *Service, volume string) admin.Migration {
	t.Helper()
	all, err := s.migrations.Migrations(context.Background())
	must.Succeed(t, err)
	i := slices.IndexFunc(all, func(m admin.Migration) bool { return m.Volume == volume })
	if i < 0 {
		t.Fatalf("no migration of %s among %+v", volume, all)
	}
	return all[i]
}

// awaitMigration waits until the migration of a volume has ended.
func awaitMigration(t testing.TB, s *Service, volume string) admin.Migration {
	t.Helper()
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if m := migrationOf(t, s, volume); !m.Ended.IsZero() {
			return m
		}
	}
	t.Fatalf("the migration does not end: %+v", migrationOf(t, s, volume))
	return admin.Migration{}
}

// writer writes random blocks of its part of a disk and reads others back, until stop.
type writer struct {
	d     *client.Disk
	first int // block of 4 KiB
	model []uint64
	count atomic.Uint64
}

const writerBlocks = 256

func (w *writer) run(t *testing.T, seed uint64, stop <-chan struct{}) {
	random := rand.New(rand.NewPCG(seed, uint64(w.first)))
	block := make([]byte, 4096)
	for n := uint64(1); ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		i := random.IntN(len(w.model))
		off := int64(w.first+i) * 4096
		switch random.IntN(5) {
		case 0, 1, 2:
			fillBlock(block, n)
			if err := w.d.WriteAt(t.Context(), block, off); err != nil {
				t.Errorf("write: %v", err)
				return
			}
			w.model[i] = n
		default:
			if err := w.d.ReadAt(t.Context(), block, off); err != nil {
				t.Errorf("read: %v", err)
				return
			}
			if got := binary.BigEndian.Uint64(block); got != w.model[i] {
				t.Errorf("block %d has %d, want %d", w.first+i, got, w.model[i])
				return
			}
		}
		w.count.Add(1)
	}
}

func fillBlock(p []byte, n uint64) {
	for i := 0; i < len(p); i += 8 {
		binary.BigEndian.PutUint64(p[i:], n)
	}
}

// check reads everything that was written.
func (w *writer) check(t *testing.T) {
	block := make([]byte, 4096)
	for i, want := range w.model {
		must.Succeed(t, w.d.ReadAt(t.Context(), block, int64(w.first+i)*4096))
		if got := binary.BigEndian.Uint64(block); got != want {
			t.Fatalf("block %d has %d at the end, want %d", w.first+i, got, want)
		}
	}
}

// startWriters starts initiators that write to LUN 0 until stop is called. pinned is what token stands
// for and is not there any more, onReference a token that refers to the data in place.
func startWriters(t *testing.T, s *Service, seed uint64) (w *writers) {
	t.Helper()
	w = &writers{stopped: make(chan struct{}), pinned: random(seed, 1<<20)}
	u, err := client.ParseURL(s.LUNs()[0].URLs[0])
	must.Succeed(t, err)
	for i := range 3 {
		d, err := client.Open(t.Context(), client.Options{InitiatorName: "iqn.2026-11.example:writer", ISID: [6]byte{0x80, 0, 0, 0, 0, byte(i)}, URL: u})
		must.Succeed(t, err)
		t.Cleanup(func() { d.Close() })
		one := &writer{d: d, first: i * writerBlocks, model: make([]uint64, writerBlocks)}
		w.list = append(w.list, one)
		w.running.Go(func() { one.run(t, seed, w.stopped) })
	}
	d := w.list[0].d
	must.Succeed(t, d.WriteAt(t.Context(), w.pinned, 12<<20))
	w.token, _, err = d.PopulateToken(t.Context(), 12<<20, 1<<20)
	must.Succeed(t, err)
	must.Succeed(t, d.WriteAt(t.Context(), make([]byte, 1<<20), 12<<20))
	made, err := s.admin.CreateToken(t.Context(), admin.TokenRequest{Volume: "a", Offset: 0, Length: 4096, Type: tokens.RODTypeAccessUponReference})
	must.Succeed(t, err)
	w.onReference = made.Token
	return w
}

// writers are what startWriters has started.
type writers struct {
	list                []*writer
	stopped             chan struct{}
	running             sync.WaitGroup
	token               *client.Token
	pinned, onReference []byte
}

// await waits until all have done more commands.
func (w *writers) await(t *testing.T, commands uint64) {
	t.Helper()
	for _, w := range w.list {
		for n := w.count.Load(); w.count.Load() < n+commands && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	}
}

// stop stops them, and reads everything that they have written. Then it writes what is pinned to
// byte 13 MiB, by its token.
func (w *writers) stop(t *testing.T) {
	t.Helper()
	close(w.stopped)
	w.running.Wait()
	for _, w := range w.list {
		w.check(t)
	}
	d := w.list[0].d
	if n, err := d.WriteUsingToken(t.Context(), w.token, 0, 13<<20, 1<<20); err != nil || n != 1<<20 {
		t.Errorf("a token from before the migration: %d bytes, %v", n, err)
	}
	if got := read(t, d, 13<<20, 1<<20); !bytes.Equal(got, w.pinned) {
		t.Error("the token stands for other data")
	}
}

// A LUN moves 20 times, to other names and to a view, while initiators write and verify: no
// command fails, and nothing of what initiators know changes.
func TestMigrate(t *testing.T) {
	s := serveFile(t, migratedDisk)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	before := identityOf(t, s.Service)
	reserver := session(t, s.Service, "iqn.2026-11.example:reserver")
	defer reserver.Close()
	register(t, reserver, 0x1234)
	writers := startWriters(t, s.Service, seed)

	at, longest := "a", time.Duration(0)
	for i := range 20 {
		to := fmt.Sprintf("v%d", i)
		if i == 10 {
			to = "checked"
		}
		if at == "checked" { // a view is no source
			break
		}
		writers.await(t, 1) // each round has something to copy
		r := admin.MigrationRequest{Volume: at, To: to, Overwrite: to == "checked"}
		_, err := s.migrations.StartMigration(t.Context(), r)
		must.Succeed(t, err)
		m := awaitMigration(t, s.Service, at)
		if m.State != admin.MigrationMoved || m.Cut > migrate.Bound || m.Cut <= 0 {
			t.Fatalf("%+v", m)
		}
		longest = max(longest, m.LongestCut)
		if i == 0 {
			_, err := s.admin.WriteToken(t.Context(), admin.TokenWrite{Token: writers.onReference, Volume: "v0"})
			if !errors.Is(err, tokens.ErrCancelled) {
				t.Errorf("a token that refers to the data in place: %v, want %v", err, tokens.ErrCancelled)
			}
			if err := s.admin.DeleteVolume(t.Context(), "a"); !strings.Contains(fmt.Sprint(err), "needed by") {
				t.Errorf("the source is deleted without the end of the migration: %v", err)
			}
		}
		_, err = s.migrations.FinishMigration(t.Context(), at, i == 1)
		must.Succeed(t, err)
		if _, err := s.store.Volume(at); (err == nil) != (i == 1) {
			t.Errorf("source %s after the end of the migration: %v", at, err)
		}
		at = to
	}
	writers.stop(t)
	t.Logf("longest cut %s, %d commands", longest, writers.list[0].count.Load())
	if after := identityOf(t, s.Service); after != before {
		t.Errorf("the identity was %s, and is %s", before, after)
	}
	if keys := registered(t, reserver); keys != 0x1234 {
		t.Errorf("registered key %x", keys)
	}
	text, err := os.ReadFile(s.file)
	must.Succeed(t, err)
	if want := fmt.Sprintf("      - {lun: 0, identity: %q, view: checked} # the first\n", before); !strings.HasPrefix(string(text), "# the disks\n") || !strings.Contains(string(text), want) {
		t.Errorf("the configuration is\n%s", text)
	}
}

// identityOf returns the serial number of LUN 0.
func identityOf(t *testing.T, s *Service) string {
	t.Helper()
	st := s.state.Load()
	for _, l := range st.luns {
		if lu := st.unit(l.Medium()); lu != nil {
			return lu.SerialNumber()
		}
	}
	t.Fatal("no LUN is served")
	return ""
}

// register registers a key for persistent reservations, and registered returns the first one.
func register(t *testing.T, c *client.Session, key uint64) {
	t.Helper()
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list[8:], key)
	must.Succeed(t, run(t, c, []byte{0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0}, list))
}

func registered(t *testing.T, c *client.Session) uint64 {
	t.Helper()
	p := make([]byte, 64)
	command := client.Command{CDB: []byte{0x5E, 0, 0, 0, 0, 0, 0, 0, 64, 0}, In: p}
	err := c.Do(t.Context(), &command)
	for errors.As(err, new(*client.SenseError)) { // INQUIRY DATA HAS CHANGED, for the view
		err = c.Do(t.Context(), &command)
	}
	must.Succeed(t, err)
	return binary.BigEndian.Uint64(p[8:])
}

// Whatever step a process ends at, the next one serves the LUN with all that was acknowledged,
// from just one side, and the migration comes to its end or is aborted.
func TestMigrate_Killed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		end   func(s *Service)
		ended admin.MigrationState
	}{
		{"moves", nil, admin.MigrationMoved},
		{"aborted", func(s *Service) {
			_, _ = s.migrations.AbortMigration(context.Background(), "a")
		}, admin.MigrationAborted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serveFile(t, migratedDisk)
			s.cutBound = time.Minute
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, 0))
			d := login(t, s.Service, 0)
			model := make([]byte, migratedSize)
			change := func() { scribble(t, d, rng, model) }
			for range 100 {
				change()
			}
			var steps []string
			var holding heldCommands
			var aborting sync.WaitGroup
			s.reached = func(step string) {
				steps = append(steps, step)
				if !holding.at(step) {
					change()
				}
				killedAt(t, s, step, model, "volume b")
				if step == "migration: difference copied" && tt.end != nil {
					aborting.Go(func() { tt.end(s.Service) })
					<-s.migrationContextEnds()
				}
			}
			_, err := s.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "a", To: "b"})
			must.Succeed(t, err)
			if m := awaitMigration(t, s.Service, "a"); m.State != tt.ended {
				t.Errorf("%+v, want %s", m, tt.ended)
			}
			aborting.Wait()
			s.reached = nil
			for _, want := range []string{"migration: point taken", "migration: difference copied"} {
				if !slices.Contains(steps, want) {
					t.Errorf("step %q was not reached, only %q", want, steps)
				}
			}
			if got := read(t, d, 0, migratedSize); !bytes.Equal(got, model) {
				t.Error("the LUN has other data than was written")
			}
			if left := snapshotsOf(t, s.Service); left != 0 {
				t.Errorf("%d snapshots are left", left)
			}
			t.Logf("%d steps: %q", len(steps), steps)
		})
	}
}

// migrationContextEnds returns a channel that is closed once an abort waits.
func (s *Service) migrationContextEnds() <-chan struct{} {
	ended := make(chan struct{})
	time.AfterFunc(20*time.Millisecond, func() { close(ended) })
	return ended
}

// scribble writes something to a disk and to the model of what it has.
func scribble(t *testing.T, d *client.Disk, rng *rand.Rand, model []byte) {
	t.Helper()
	off := rng.IntN(len(model)/4096) * 4096
	p := random(rng.Uint64(), 4096*(1+rng.IntN(4)))
	p = p[:min(len(p), len(model)-off)]
	must.Succeed(t, d.WriteAt(t.Context(), p, int64(off)))
	copy(model[off:], p)
}

// heldCommands is whether the cut of a migration holds commands.
type heldCommands bool

// at returns that for a step.
func (h *heldCommands) at(step string) bool {
	switch step {
	case "migration: commands held", "held":
		*h = true
	case "committed", "migration: moved":
		*h = false
	}
	return bool(*h)
}

// killedAt starts another service of what the store and the configuration are now, waits for the
// end of the migration of volume a to the medium to, and finishes it. The result is how it has
// ended, "" if it had not begun.
func killedAt(t *testing.T, s *reloaded, step string, model []byte, to string) admin.MigrationState {
	t.Helper()
	dir := t.TempDir()
	text, err := os.ReadFile(s.file)
	must.Succeed(t, err)
	must.Succeed(t, os.CopyFS(filepath.Join(dir, "data"), withoutSockets{os.DirFS(s.state.Load().cfg.DataDir)}))
	file := filepath.Join(dir, "odx.yaml")
	must.Succeed(t, os.WriteFile(file, text, 0o600))
	cfg, err := conf.Load(file)
	must.Succeed(t, err)
	next, err := Start(t.Context(), cfg, logs.Discard())
	must.Succeed(t, err)
	defer stop(t, next)
	check := func(when string) {
		t.Helper()
		d := login(t, next, 0)
		defer d.Close()
		if got := read(t, d, 0, len(model)); !bytes.Equal(got, model) {
			t.Errorf("killed at %q, %s: the LUN has other data than was written", step, when)
		}
	}
	check("at once")
	if all, err := next.migrations.Migrations(t.Context()); err == nil && len(all) == 0 {
		return ""
	}
	m := awaitMigration(t, next, "a")
	check("once the migration has ended, " + string(m.State))
	moved, units := m.State == admin.MigrationMoved, next.state.Load().units
	if (units[to] != nil) != moved || (units["volume a"] == nil) != moved {
		t.Errorf("killed at %q: %s, and %s is served: %t, volume a: %t", step, m.State, to, units[to] != nil, units["volume a"] != nil)
	}
	if _, err := next.store.Volume("b"); !moved && !errors.Is(err, backstore.ErrNotFound) {
		t.Errorf("killed at %q: %s, and volume b: %v", step, m.State, err)
	}
	if left := snapshotsOf(t, next); left != 0 {
		t.Errorf("killed at %q: %d snapshots are left", step, left)
	}
	_, err = next.migrations.FinishMigration(t.Context(), "a", false)
	must.Succeed(t, err)
	check("once the migration is finished")
	return m.State
}

// What cannot be migrated is refused, and changes nothing.
func TestMigrate_Refused(t *testing.T) {
	s := serveFile(t, migratedDisk)
	_, err := s.admin.CreateVolume(t.Context(), "idle", migratedSize)
	must.Succeed(t, err)
	for _, tt := range []struct {
		r    admin.MigrationRequest
		want error
	}{
		{admin.MigrationRequest{Volume: "none", To: "b"}, backstore.ErrNotFound},
		{admin.MigrationRequest{Volume: "idle", To: "b"}, blockdev.ErrInvalid},
		{admin.MigrationRequest{Volume: "a", To: "a"}, blockdev.ErrInvalid},
		{admin.MigrationRequest{Volume: "a", To: "idle"}, backstore.ErrExists},
		{admin.MigrationRequest{Volume: "a", To: "checked"}, backstore.ErrExists},
		{admin.MigrationRequest{Volume: "a", To: "not/a name"}, blockdev.ErrInvalid},
		{admin.MigrationRequest{Volume: "a", To: "b", Rate: -1}, blockdev.ErrInvalid},
	} {
		before := s.describe()
		if _, err := s.migrations.StartMigration(t.Context(), tt.r); !errors.Is(err, tt.want) {
			t.Errorf("%+v: %v, want %v", tt.r, err, tt.want)
		}
		if after := s.describe(); after != before {
			t.Errorf("%+v has changed\n%s to\n%s", tt.r, before, after)
		}
	}
	if _, err := s.migrations.AbortMigration(t.Context(), "a"); !errors.Is(err, admin.ErrNoMigration) {
		t.Errorf("abort without a migration: %v", err)
	}
}

// The destination of a migration is not used otherwise.
func TestMigrate_Reserved(t *testing.T) {
	s := serveFile(t, migratedDisk)
	must.Succeed(t, login(t, s.Service, 0).WriteAt(t.Context(), random(1, 8<<20), 0))
	_, err := s.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "a", To: "b", Rate: 1 << 20})
	must.Succeed(t, err)
	s.refuses(migratedDisk+"      - {lun: 1, volume: b}\n", "destination of the migration of volume a")
	if err := s.admin.DeleteVolume(t.Context(), "b"); !strings.Contains(fmt.Sprint(err), "needed by the migration of volume a") {
		t.Errorf("delete the destination: %v", err)
	}
	m, err := s.migrations.AbortMigration(t.Context(), "a")
	must.Succeed(t, err)
	if m.State != admin.MigrationAborted {
		t.Errorf("%+v", m)
	}
	s.reload(strings.Replace(migratedDisk, "# the first", "# the first, still", 1))
	if _, err := s.store.Volume("b"); !errors.Is(err, backstore.ErrNotFound) {
		t.Errorf("destination after an abort: %v", err)
	}
}

func snapshotsOf(t *testing.T, s *Service) int {
	t.Helper()
	stats, err := s.store.Stats(t.Context())
	must.Succeed(t, err)
	return int(stats.Snapshots)
}
