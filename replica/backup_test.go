package replica

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"odx/backstore"
	"odx/internal/kit/must"
	"odx/stream"
)

// Backups of random histories are restored to an empty store as they were: volumes,
// snapshots, clones and files; from plain files and encrypted ones. A store that was
// restored is backed up further to the same directory.
func TestBackup(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	second := func(_ any, err error) error { return err }
	id, err := age.GenerateX25519Identity()
	must.Succeed(t, err)
	for _, encrypted := range []bool{false, true} {
		a, dir, ctx := aSite(t), t.TempDir(), t.Context()
		must.Succeed(t, second(a.admin.CreateVolume(ctx, "data", 4*mib)), second(a.admin.CreateVolume(ctx, "other", 2*mib+512)))
		must.Succeed(t, second(a.admin.CreateFile(ctx, "images/x.raw", 70_001)))
		a.write("file:images/x.raw", 0, fresh(rnd, 70_001))
		history(rnd, a, "data", 30)
		a.snapshotOf("data", "first")
		must.Succeed(t, second(a.admin.CloneVolume(ctx, "first", "clone")))
		o := BackupOptions{Level: stream.Fastest, Config: []byte("secret: x\n"), Now: time.Unix(1_700_000_000, 0)}
		var ids []age.Identity
		if encrypted {
			o.Recipients, ids = []age.Recipient{id.Recipient()}, []age.Identity{id}
		}
		backup := func(s *site) *Manifest {
			t.Helper()
			m, err := (&Backup{Admin: s.admin, Streams: s, Dir: dir}).Make(ctx, o)
			must.Succeed(t, err)
			o.Now = o.Now.Add(time.Minute)
			m, err = ReadManifest(dir, m.Name)
			must.Succeed(t, err, (&Backup{Dir: dir}).Verify(ctx, m, ids))
			return m
		}
		compare := func(s *site, m *Manifest) {
			t.Helper()
			b := aSite(t)
			must.Succeed(t, (&Backup{Admin: b.admin, Streams: b, Dir: dir}).Restore(ctx, m, ids))
			for _, o := range m.Objects {
				name := o.Name
				if o.Kind == kindFile {
					name = "file:" + name
				}
				if !bytes.Equal(b.content(name), s.content(name)) || b.content(name) == nil {
					t.Fatalf("%s differs", name)
				}
				if b.volume(name).ReadOnly() != (o.Kind == kindSnapshot) {
					t.Errorf("%s: read-only %v", name, b.volume(name).ReadOnly())
				}
			}
			b.clean()
			b.sound()
			if err := (&Backup{Admin: b.admin, Streams: b, Dir: dir}).Restore(ctx, m, ids); !errors.Is(err, backstore.ErrExists) {
				t.Errorf("restored twice: %v", err)
			}
		}
		compare(a, backup(a))
		history(rnd, a, "data", 10)
		a.snapshotOf("data", "second")
		must.Succeed(t, a.admin.DeleteVolume(ctx, "first"))
		history(rnd, a, "data", 5)
		m := backup(a)
		compare(a, m)
		incremental := 0
		for _, s := range m.Streams {
			if s.Base != "" {
				incremental++
			}
		}
		if incremental < 2 {
			t.Errorf("%d incremental streams: %+v", incremental, m.Streams)
		}
		b := aSite(t)
		must.Succeed(t, (&Backup{Admin: b.admin, Streams: b, Dir: dir}).Restore(ctx, m, ids))
		history(rnd, b, "data", 5)
		again := backup(b)
		compare(b, again)
		fresh := 0
		for _, s := range again.Streams {
			if bytes.HasPrefix([]byte(s.File), []byte(again.Name+"-full")) {
				fresh++
			}
		}
		if fresh > 0 {
			t.Errorf("a restored store was backed up whole: %+v", again.Streams)
		}
		o.Full = true
		compare(b, backup(b))
		if text, err := (&Backup{Dir: dir}).Config(again, ids); err != nil || string(text) != "secret: x\n" {
			t.Errorf("configuration %q, %v", text, err)
		}
		damage(t, rnd, dir, again, ids)
	}
}

// Two backups that begin in the same second, to one directory or to two, have names of their
// own.
func TestBackup_SameSecond(t *testing.T) {
	s, ctx := aSite(t), t.Context()
	_, err := s.admin.CreateVolume(ctx, "data", mib)
	must.Succeed(t, err)
	here, there := t.TempDir(), t.TempDir()
	begun := time.Unix(1_700_000_000, 1)
	// The second backup deletes the snapshots of the first one.
	for n, dir := range []string{here, here, there, there} {
		m, err := (&Backup{Admin: s.admin, Streams: s, Dir: dir}).Make(ctx, BackupOptions{Now: begun})
		must.Succeed(t, err)
		if want := begun.Add(time.Duration(n%2) * time.Second).UTC().Format(backupTime); m.Name != want {
			t.Errorf("backup %d is %s, want %s", n, m.Name, want)
		}
		must.Succeed(t, (&Backup{Dir: dir}).Verify(ctx, m, nil))
	}
}

// damage changes a byte of each file of a backup.
func damage(t *testing.T, rnd *rand.Rand, dir string, m *Manifest, ids []age.Identity) {
	t.Helper()
	names := []string{m.Name + ".json"}
	for _, f := range m.files() {
		names = append(names, f.File)
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		good, err := os.ReadFile(path)
		must.Succeed(t, err)
		for _, what := range []string{"changed", "cut", "gone"} {
			bad := bytes.Clone(good)
			switch what {
			case "changed":
				bad[rnd.IntN(len(bad))] ^= 1
				must.Succeed(t, os.WriteFile(path, bad, 0o600))
			case "cut":
				must.Succeed(t, os.WriteFile(path, bad[:rnd.IntN(len(bad))], 0o600))
			default:
				must.Succeed(t, os.Remove(path))
			}
			read, err := ReadManifest(dir, m.Name)
			if err == nil {
				err = (&Backup{Dir: dir}).Verify(t.Context(), read, ids)
			}
			if err == nil || what != "gone" && !errors.Is(err, ErrBackup) && !bytes.Contains([]byte(err.Error()), []byte("version")) {
				t.Errorf("%s: %s: %v", name, what, err)
			}
			must.Succeed(t, os.WriteFile(path, good, 0o600))
		}
	}
}
