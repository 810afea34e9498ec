package target

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	client "odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
	"odx/migrate"
	"odx/target/foreign"
)

// arrayTarget is a server to whose LUN another one moves its own: a volume of a size, with more
// keys. It demands a login, and proves itself.
const arrayTarget = `
data_dir: data
portals: ["%s"]
targets:
  - name: iqn.2026-11.example.other:disks
    luns:
      - {lun: 3, volume: far, size: %dMiB%s}
    authentication:
      users:
        - {name: odx, secret: "0123456789abcd"}
      mutual: {name: array, secret: "abcd0123456789"}
`

// array is such a server, which stops and starts at one address.
type array struct {
	*Service
	t                  *testing.T
	dir, address, more string
	mib                int
}

func newArray(t *testing.T, mib int, more string) *array {
	t.Helper()
	a := &array{t: t, dir: t.TempDir(), address: "127.0.0.1:0", mib: mib, more: more}
	a.start()
	t.Cleanup(a.stop)
	return a
}

func (a *array) start() {
	a.t.Helper()
	s, err := Start(a.t.Context(), parse(a.t, a.dir, fmt.Sprintf(arrayTarget, a.address, a.mib, a.more)), logs.Discard())
	must.Succeed(a.t, err)
	a.Service, a.address = s, s.Portals()[0]
}

func (a *array) stop() {
	a.t.Helper()
	stop(a.t, a.Service)
}

func (a *array) url() string {
	return fmt.Sprintf("iscsi://%s/iqn.2026-11.example.other:disks/3", a.address)
}

// far returns what the LUN has; set replaces it.
func (a *array) far() []byte {
	a.t.Helper()
	v, err := a.store.Volume("far")
	must.Succeed(a.t, err)
	p := make([]byte, v.Size())
	must.Succeed(a.t, v.ReadAt(a.t.Context(), p, 0))
	return p
}

func (a *array) set(p []byte) {
	a.t.Helper()
	v, err := a.store.Volume("far")
	must.Succeed(a.t, err)
	must.Succeed(a.t, v.WriteAt(a.t.Context(), p, 0))
}

// arrayLogin writes the secrets to files, and returns the login with them.
func arrayLogin(t *testing.T, dir string) *conf.Login {
	t.Helper()
	user := func(name, secret string) conf.User {
		path := filepath.Join(dir, name+".secret")
		must.Succeed(t, os.WriteFile(path, []byte(secret+"\n"), 0o600))
		return conf.User{Name: name, Secret: conf.FileSecret(path)}
	}
	mutual := user("array", "abcd0123456789")
	return &conf.Login{User: user("odx", "0123456789abcd"), Mutual: &mutual}
}

// A LUN moves to the LUN of another target while initiators write and verify, and stays the disk
// that it was: identity, reservations, tokens. Then this server is a proxy, also over a stop of
// either side.
func TestMigrate_Foreign(t *testing.T) {
	a := newArray(t, 16, "")
	s := serveFile(t, migratedDisk)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	before := identityOf(t, s.Service)
	reserver := session(t, s.Service, "iqn.2026-11.example:reserver")
	defer reserver.Close()
	register(t, reserver, 0x1234)
	writers := startWriters(t, s.Service, seed)
	_, err := s.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "a", To: a.url(), Login: arrayLogin(t, t.TempDir())})
	must.Succeed(t, err)
	m := awaitMigration(t, s.Service, "a")
	if m.State != admin.MigrationMoved || m.Cut > migrate.Bound || m.Cut <= 0 || m.To != a.url() {
		t.Fatalf("%+v", m)
	}
	if _, err := s.admin.WriteToken(t.Context(), admin.TokenWrite{Token: writers.onReference, Volume: "a"}); err == nil {
		t.Error("a token that refers to the data in place is good after the move")
	}
	for range 2 { // the other target goes away, and comes back
		writers.await(t, 20)
		a.stop()
		a.start()
	}
	writers.await(t, 20)
	writers.stop(t)
	t.Logf("%d rounds, commands were held for %s, %d commands", m.Rounds, m.Cut, writers.list[0].count.Load())
	if after := identityOf(t, s.Service); after != before {
		t.Errorf("the identity was %s, and is %s", before, after)
	}
	if keys := registered(t, reserver); keys != 0x1234 {
		t.Errorf("registered key %x", keys)
	}
	if got := a.far()[13<<20 : 14<<20]; !bytes.Equal(got, writers.pinned) {
		t.Error("what was written by token is not at the other target")
	}
	_, err = s.migrations.FinishMigration(t.Context(), "a", false)
	must.Succeed(t, err)
	if _, err := s.store.Volume("a"); !errors.Is(err, backstore.ErrNotFound) {
		t.Errorf("the source after the end of the migration: %v", err)
	}
	text, err := os.ReadFile(s.file)
	must.Succeed(t, err)
	for _, want := range []string{"# the disks\n", "# the first", fmt.Sprintf("identity: %q", before), a.url(), "mutual: {name: array,"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the configuration has no %q:\n%s", want, text)
		}
	}
	must.Succeed(t, s.Stop(t.Context()))
	cfg, err := conf.Load(s.file)
	must.Succeed(t, err)
	again := startWith(t, cfg, logs.Discard())
	if after := identityOf(t, again); after != before {
		t.Errorf("the identity was %s, and is %s after a start", before, after)
	}
	if got := read(t, login(t, again, 0), 0, 16<<20); !bytes.Equal(got, a.far()) {
		t.Error("the LUN has other data than the other target")
	}
}

// smallDisk is a configuration with one LUN of 2 MiB.
const smallDisk = `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: a, size: 2MiB}
`

// Whatever step a process ends at, the next one serves the LUN with all that was written, from
// one side, and the migration comes to its end.
func TestMigrate_Foreign_Killed(t *testing.T) {
	const size = 2 << 20
	a := newArray(t, 2, "")
	a.set(random(7, size))
	s := serveFile(t, smallDisk)
	s.cutBound = time.Minute
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	d := login(t, s.Service, 0)
	model := make([]byte, size)
	for range 50 {
		scribble(t, d, rng, model)
	}
	var steps []string
	var holding heldCommands
	credentials := foreign.Login{
		Initiator: client.Credentials{User: "odx", Password: "0123456789abcd"}, Target: client.Credentials{User: "array", Password: "abcd0123456789"},
	}
	s.reached = func(step string) {
		held := holding.at(step)
		if slices.Contains(steps, step) { // the end of a session can make it be done again
			return
		}
		steps = append(steps, step)
		if !held {
			scribble(t, d, rng, model)
		}
		if len(steps)%sample.Size(6, 2, 1) != 0 {
			return
		}
		had, here := a.far(), s.foreign.open[a.url()].disk
		here.SetLogin(foreign.Login{}) // it is the same initiator port as the next process
		if state := killedAt(t, s, step, model, a.url()); state != "" && state != admin.MigrationMoved {
			t.Errorf("killed at %q: %s", step, state)
		}
		a.set(had)
		here.SetLogin(credentials)
	}
	_, err := s.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "a", To: a.url(), Overwrite: true, Login: arrayLogin(t, t.TempDir())})
	must.Succeed(t, err)
	if m := awaitMigration(t, s.Service, "a"); m.State != admin.MigrationMoved {
		t.Errorf("%+v", m)
	}
	s.reached = nil
	for _, want := range []string{"migration: point taken", "migration: difference copied", "migration: last difference copied", "file replaced", "migration: moved"} {
		if !slices.Contains(steps, want) {
			t.Errorf("step %q was not reached, only %q", want, steps)
		}
	}
	if got := read(t, d, 0, size); !bytes.Equal(got, model) || !bytes.Equal(a.far(), model) {
		t.Error("the LUN has other data than was written")
	}
	if left := snapshotsOf(t, s.Service); left != 0 {
		t.Errorf("%d snapshots are left", left)
	}
}

// What cannot be the destination is refused, and changes nothing; one that is, is used by
// nothing else until an abort, after which another LUN may be there.
func TestMigrate_Foreign_Refused(t *testing.T) {
	full := newArray(t, 16, "")
	full.set(append(make([]byte, 8<<20), random(3, 8<<20)...))
	large, protected := newArray(t, 32, ""), newArray(t, 16, ", read_only: true")
	reserved := newArray(t, 16, "")
	holder, err := client.Dial(t.Context(), client.Options{InitiatorName: "iqn.2026-11.example:holder", URL: client.URL{
		Address: reserved.address, Target: "iqn.2026-11.example.other:disks", LUN: 3, Login: client.Credentials{User: "odx", Password: "0123456789abcd"},
	}})
	must.Succeed(t, err)
	defer holder.Close()
	attentions(t, holder)
	register(t, holder, 7)
	list := make([]byte, 24)
	list[7] = 7
	must.Succeed(t, run(t, holder, []byte{0x5F, 1, 3, 0, 0, 0, 0, 0, 24, 0}, list)) // exclusive access
	s := serveFile(t, migratedDisk)
	right := arrayLogin(t, t.TempDir())
	wrong := *right
	wrong.Mutual = &conf.User{Name: "other", Secret: right.Mutual.Secret}
	own := strings.ToLower(s.LUNs()[0].URLs[0])
	for name, tt := range map[string]struct {
		r    admin.MigrationRequest
		want error
		text string
	}{
		"has data":      {admin.MigrationRequest{To: full.url(), Login: right}, backstore.ErrExists, "has data, at byte "},
		"another size":  {admin.MigrationRequest{To: large.url(), Login: right, Overwrite: true}, blockdev.ErrInvalid, "the destination has 32MiB"},
		"protected":     {admin.MigrationRequest{To: protected.url(), Login: right, Overwrite: true}, blockdev.ErrReadOnly, protected.url()},
		"reserved":      {admin.MigrationRequest{To: reserved.url(), Login: right, Overwrite: true}, admin.ErrInUse, "another initiator has reserved it"},
		"of the server": {admin.MigrationRequest{To: own, Overwrite: true}, blockdev.ErrInvalid, "is a LUN of this server, volume a"},
		"no login":      {admin.MigrationRequest{To: full.url(), Overwrite: true}, nil, "authentication failed"},
		"not proved":    {admin.MigrationRequest{To: full.url(), Login: &wrong, Overwrite: true}, nil, "mutual CHAP"},
		"no secret":     {admin.MigrationRequest{To: full.url(), Login: &conf.Login{User: conf.User{Name: "odx", Secret: conf.FileSecret("/none")}}}, nil, "no such file"},
	} {
		tt.r.Volume = "a"
		before := s.describe()
		_, err := s.migrations.StartMigration(t.Context(), tt.r)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, want %v and %q", name, err, tt.want, tt.text)
		}
		if after := s.describe(); after != before || len(s.foreign.open) != 0 {
			t.Errorf("%s: has changed\n%s to\n%s", name, before, after)
		}
	}
	must.Succeed(t, login(t, s.Service, 0).WriteAt(t.Context(), random(1, 8<<20), 0))
	_, err = s.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "a", To: full.url(), Overwrite: true, Login: right, Rate: 1 << 20})
	must.Succeed(t, err)
	s.refuses(migratedDisk+"      - {lun: 1, backing: \""+full.url()+"\", login: {name: odx, secret: 0123456789abcd}}\n", "destination of the migration of volume a")
	m, err := s.migrations.AbortMigration(t.Context(), "a")
	must.Succeed(t, err)
	if g, err := s.foreign.known(full.url()); m.State != admin.MigrationAborted || len(s.foreign.open) != 0 || err != nil || g.ID != "" {
		t.Errorf("%+v; %d LUNs are open, and %+v is known of one (%v)", m, len(s.foreign.open), g, err)
	}
	if got := read(t, login(t, s.Service, 0), 0, 8<<20); !bytes.Equal(got, random(1, 8<<20)) {
		t.Error("an abort has changed the source")
	}
}
