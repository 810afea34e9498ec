package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"odx/admin"
	"odx/audit"
	"odx/backstore"
	"odx/conf"
	client "odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/replica/pair"
)

// departing is a server of a test that a LUN moves from or to: its API has the same address
// for the process that follows.
type departing struct {
	*Service
	t    *testing.T
	dir  string
	http *httptest.Server
	// handler is nil while no process runs.
	handler atomic.Pointer[http.ServeMux]
}

const departingConfig = `# the disks
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
%s
  - name: iqn.2026-11.example.odx:others
    luns:
      - {lun: 0, volume: own, size: 1MiB}
`

const departingSize = 4 << 20

// newDeparting returns a server that does not run yet, of a directory with its configuration.
func newDeparting(t *testing.T, dir, text string) *departing {
	t.Helper()
	s := &departing{t: t, dir: dir}
	s.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux := s.handler.Load()
		if mux == nil {
			panic(http.ErrAbortHandler)
		}
		mux.ServeHTTP(w, r.WithContext(audit.With(r.Context(), audit.Secret("other", ""))))
	}))
	t.Cleanup(s.http.Close)
	must.Succeed(t, os.WriteFile(s.file(), []byte(text), 0o600))
	return s
}

func (s *departing) file() string { return filepath.Join(s.dir, "odx.yaml") }

// run starts the process.
func (s *departing) run() {
	s.t.Helper()
	cfg, err := conf.Load(s.file())
	must.Succeed(s.t, err)
	s.Service, err = Start(s.t.Context(), cfg, logs.Discard())
	must.Succeed(s.t, err)
	mux := http.NewServeMux()
	mux.Handle("POST "+pair.Path, s.Replicas().PeerHandler())
	mux.Handle("POST "+pair.MovePath, s.Replicas().MoveHandler())
	mux.Handle("/", s.Keeper().Handler())
	s.handler.Store(mux)
}

// end ends it.
func (s *departing) end() {
	s.handler.Store(nil)
	stop(s.t, s.Service)
}

// know makes another server the peer of this one.
func (s *departing) know(o *departing) {
	s.t.Helper()
	text, err := os.ReadFile(s.file())
	must.Succeed(s.t, err)
	peers := fmt.Sprintf("peers:\n  - {name: other, store: %x, addresses: [%q], secret_env: ODX_TEST_SECRET}\n", o.store.ID(), o.http.URL)
	_, err = s.PutConfig(s.t.Context(), append(text, peers...), "")
	must.Succeed(s.t, err)
}

// departure starts two servers, of which the first has a LUN.
func departure(t *testing.T, lun string) (a, b *departing) {
	t.Helper()
	t.Setenv("ODX_TEST_SECRET", "not looked at by this test")
	a = newDeparting(t, t.TempDir(), fmt.Sprintf(departingConfig, "    luns:\n      - {lun: 0, volume: web, size: 4MiB"+lun+"}"))
	b = newDeparting(t, t.TempDir(), fmt.Sprintf(departingConfig, "    redirect: {to: \"192.0.2.1:3260\"}"))
	a.run()
	b.run()
	t.Cleanup(func() { a.end(); b.end() })
	a.know(b)
	b.know(a)
	return a, b
}

// relogging is an initiator that logs in again where its session ends, as hosts do.
type relogging struct {
	t      *testing.T
	url    client.URL
	d      *client.Disk
	logins int
}

func (r *relogging) open() {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		d, err := client.Open(r.t.Context(), client.Options{InitiatorName: "iqn.2026-11.example:host", ISID: [6]byte{0x80, 0, 0, 0, 0, 1}, URL: r.url})
		if err == nil {
			r.d = d
			r.logins++
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("login: %v", err)
		}
	}
}

// do repeats a command for which the session was lost.
func (r *relogging) do(what string, f func(d *client.Disk) error) {
	r.t.Helper()
	for {
		err := f(r.d)
		var sense *client.SenseError
		switch {
		case err == nil:
			return
		case errors.As(err, &sense):
			r.t.Fatalf("%s: %v", what, err)
		}
		r.d.Close()
		r.open()
	}
}

// A LUN moves to another server while an initiator writes, which is redirected there: it logs
// in once more, and finds its data, its registration and the identity of the disk. A token of
// the source is good at the destination. What is left at the source goes with the end.
func TestMigrate_Remote(t *testing.T) {
	a, b := departure(t, "")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	before := unitAt(t, a.Service, "web").SerialNumber()
	host := &relogging{t: t, url: client.URL{Address: a.Portals()[0], Target: "iqn.2026-11.example.odx:disks"}}
	host.open()
	defer func() { host.d.Close() }()
	reserver := dial(t, a.LUNs()[0].URLs[0], "iqn.2026-11.example:reserver")
	attentions(t, reserver)
	register(t, reserver, 0x1234)
	must.Succeed(t, reserver.Close())
	model := random(seed, departingSize)
	must.Succeed(t, host.d.WriteAt(t.Context(), model, 0))
	token, _, err := host.d.PopulateToken(t.Context(), 0, 1<<20)
	must.Succeed(t, err)
	pinned := bytes.Clone(model[:1<<20])

	stop, writing := make(chan struct{}), sync.WaitGroup{}
	writing.Go(func() {
		rng := rand.New(rand.NewPCG(seed, 1))
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			block, off := make([]byte, 4096), int64(rng.IntN(departingSize/4096))*4096
			fillBlock(block, n)
			host.do("write", func(d *client.Disk) error { return d.WriteAt(t.Context(), block, off) })
			copy(model[off:], block)
		}
	})
	portal := b.Portals()[0]
	_, err = a.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "web", To: "other:web2", Portal: portal})
	must.Succeed(t, err)
	m := awaitMigration(t, a.Service, "web")
	close(stop)
	writing.Wait()
	if m.RoundBytes != 0 || m.RoundCopied != 0 || m.CopiedBytes == 0 {
		t.Errorf("bytes of a round that has ended count twice: %+v", m)
	}
	if m.State != admin.MigrationMoved || m.Cut <= 0 || m.To != "other:web2" || m.Peer != "other" {
		t.Fatalf("%+v", m)
	}
	t.Logf("moved after %d rounds; the cut took %v, and the initiator has logged in %d times", m.Rounds, m.Cut, host.logins)
	if host.logins > 2 {
		t.Errorf("the initiator has logged in %d times, want twice", host.logins)
	}
	var got []byte
	host.do("read", func(d *client.Disk) error {
		got = make([]byte, departingSize)
		return d.ReadAt(t.Context(), got, 0)
	})
	if !bytes.Equal(got, model) {
		t.Error("the LUN has other data than was written")
	}
	if after := unitAt(t, b.Service, "web2").SerialNumber(); after != before {
		t.Errorf("the identity was %s, and is %s", before, after)
	}
	again, err := client.Dial(t.Context(), client.Options{InitiatorName: "iqn.2026-11.example:reserver", URL: client.URL{Address: a.Portals()[0], Target: "iqn.2026-11.example.odx:disks"}})
	must.Succeed(t, err)
	if keys := registered(t, again); keys != 0x1234 {
		t.Errorf("registered key %x", keys)
	}
	must.Succeed(t, again.Close())
	host.do("token", func(d *client.Disk) error {
		n, err := d.WriteUsingToken(t.Context(), token, 0, 2<<20, 1<<20)
		if err == nil && n != 1<<20 {
			err = fmt.Errorf("%d bytes copied", n)
		}
		return err
	})
	host.do("read", func(d *client.Disk) error { return d.ReadAt(t.Context(), got[:1<<20], 2<<20) })
	if !bytes.Equal(got[:1<<20], pinned) {
		t.Error("the token stands for other data")
	}
	if _, err := a.migrations.AbortMigration(t.Context(), "web"); !errors.Is(err, admin.ErrMigrated) {
		t.Errorf("abort after the move: %v", err)
	}
	_, err = a.migrations.FinishMigration(t.Context(), "web", false)
	must.Succeed(t, err)
	listed, err := a.admin.Tokens(t.Context())
	must.Succeed(t, err)
	for _, known := range listed {
		must.Succeed(t, a.admin.DeleteToken(t.Context(), known.ID))
	}
	nothingLeft(t, a, b)
	if _, err := a.store.Volume("web"); !errors.Is(err, backstore.ErrNotFound) {
		t.Errorf("the source is left: %v", err)
	}
	text, err := os.ReadFile(a.file())
	must.Succeed(t, err)
	if !strings.Contains(string(text), `redirect: {to: "`+portal+`"}`) || strings.Contains(string(text), "volume: web") {
		t.Errorf("the configuration of the source is\n%s", text)
	}
	if text, err = os.ReadFile(b.file()); err != nil || strings.Contains(string(text), "redirect") || !strings.Contains(string(text), "volume: web2") {
		t.Errorf("the configuration of the destination is\n%s", text)
	}
	// The LUN is at the destination for good.
	b.end()
	b.run()
	if after := unitAt(t, b.Service, "web2").SerialNumber(); after != before {
		t.Errorf("after a start the identity is %s", after)
	}
}

// unitAt returns the logical unit on a volume.
func unitAt(t *testing.T, s *Service, volume string) interface{ SerialNumber() string } {
	t.Helper()
	lu := s.state.Load().unit("volume " + volume)
	if lu == nil {
		t.Fatalf("volume %s is not served", volume)
	}
	return lu
}

// nothingLeft requires that no server keeps anything for a migration.
func nothingLeft(t *testing.T, servers ...*departing) {
	t.Helper()
	for i, s := range servers {
		list, err := s.Replicas().List(t.Context())
		must.Succeed(t, err)
		if left := snapshotsOf(t, s.Service); len(list) != 0 || left != 0 {
			t.Errorf("server %d: %d pairs and %d snapshots are left", i, len(list), left)
		}
	}
}

// An abort, and a destination that refuses, leave the source as it is. A destination that has
// no target of that name is refused at once.
func TestMigrate_Remote_Stays(t *testing.T) {
	a, b := departure(t, "")
	d := login(t, a.Service, 0)
	data := random(1, departingSize)
	must.Succeed(t, d.WriteAt(t.Context(), data, 0))
	for _, r := range []admin.MigrationRequest{
		{Volume: "own", To: "other:x"}, {Volume: "web", To: "none:x"}, {Volume: "web", To: ":x"}, {Volume: "web", To: "other:own"}, {Volume: "web", To: "other:a/b"},
		{Volume: "web", To: "other:x", Portal: "here"}, {Volume: "web", To: "other:x", Overwrite: true}, {Volume: "web", To: "x", Portal: "192.0.2.1:3260"},
	} {
		if _, err := a.migrations.StartMigration(t.Context(), r); err == nil {
			t.Errorf("%+v is begun", r)
		}
	}
	nothingLeft(t, a, b)
	_, err := a.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "web", To: "other:x", Portal: "here"})
	if err == nil || !strings.Contains(err.Error(), `portal "here" is not an address and port`) {
		t.Errorf("a portal that is none: %v", err)
	}
	_, err = a.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "web", To: "other:x", Rate: 1 << 20})
	must.Succeed(t, err)
	m, err := a.migrations.AbortMigration(t.Context(), "web")
	must.Succeed(t, err)
	if m.State != admin.MigrationAborted {
		t.Errorf("%+v", m)
	}
	nothingLeft(t, a, b)
	if _, err := b.store.Volume("x"); !errors.Is(err, backstore.ErrNotFound) {
		t.Errorf("the destination is left: %v", err)
	}
	must.Succeed(t, d.WriteAt(t.Context(), data[4096:8192], 0))
	copy(data, data[4096:8192])

	// In the cut, the destination finds that something else has the number of the LUN.
	var once sync.Once
	a.reached = func(step string) {
		if step == "migration: last difference copied" {
			once.Do(func() {
				_, err := b.EditConfig(context.Background(), conf.AddLUN{Target: "iqn.2026-11.example.odx:disks", LUN: conf.LUN{Number: 0, Volume: "own", BlockSize: 512}})
				must.Succeed(t, err)
			})
		}
	}
	_, err = a.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "web", To: "other:x"})
	must.Succeed(t, err)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); ; <-tick.C {
		if m := migrationOf(t, a.Service, "web"); m.Cuts > 0 && strings.Contains(m.Problem, "exists") && m.State == admin.MigrationCopying {
			break
		} else if time.Now().After(end) {
			t.Fatalf("%+v", m)
		}
	}
	must.Succeed(t, d.WriteAt(t.Context(), data[4096:8192], 8192))
	copy(data[8192:], data[4096:8192])
	if got := read(t, d, 0, departingSize); !bytes.Equal(got, data) {
		t.Error("the LUN has other data than was written")
	}
	_, err = a.migrations.AbortMigration(t.Context(), "web")
	must.Succeed(t, err)
	nothingLeft(t, a, b)
}

// Whatever step of the source both processes end at, the next ones come to an end: the LUN is
// served by one of both, with all that was acknowledged.
func TestMigrate_Remote_Killed(t *testing.T) {
	a, b := departure(t, "")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	a.cutBound = time.Minute
	d := login(t, a.Service, 0)
	model := random(seed, departingSize)
	must.Succeed(t, d.WriteAt(t.Context(), model, 0))
	seen, held := map[string]bool{}, false
	a.reached = func(step string) {
		held = held || step == "migration: commands held"
		if !held {
			off, p := int64(rng.IntN(departingSize/4096))*4096, random(rng.Uint64(), 4096)
			must.Succeed(t, d.WriteAt(t.Context(), p, off))
			copy(model[off:], p)
		}
		if strings.HasPrefix(step, "migration: ") && !seen[step] {
			seen[step] = true
			killedApart(t, a, b, step, model)
		}
	}
	_, err := a.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "web", To: "other:web2"})
	must.Succeed(t, err)
	m := awaitMigration(t, a.Service, "web")
	a.reached = nil
	if m.State != admin.MigrationMoved {
		t.Errorf("%+v", m)
	}
	for _, want := range []string{"round of the destination", "commands held", "source frozen", "last difference copied", "given up", "moved"} {
		if !seen["migration: "+want] {
			t.Errorf("step %q was not reached", want)
		}
	}
	if err := d.ReadAt(t.Context(), make([]byte, 4096), 0); !senseIs(err, 2, 0x040C) {
		t.Errorf("a read of the source after the move: %v, want 2/04/0C", err)
	}
}

func senseIs(err error, key byte, asc uint16) bool {
	var s *client.SenseError
	return errors.As(err, &s) && byte(s.Key) == key && uint16(s.ASC) == asc
}

// killedApart starts two servers of what the stores and configurations are now, in any order.
func killedApart(t *testing.T, a, b *departing, step string, model []byte) {
	t.Helper()
	var next [2]*departing
	for i, s := range []*departing{a, b} {
		dir := t.TempDir()
		text, err := os.ReadFile(s.file())
		must.Succeed(t, err)
		must.Succeed(t, os.CopyFS(filepath.Join(dir, "data"), withoutSockets{os.DirFS(s.state.Load().cfg.DataDir)}))
		next[i] = newDeparting(t, dir, string(text))
	}
	for i, s := range next {
		text, err := os.ReadFile(s.file())
		must.Succeed(t, err)
		was := [2]*departing{a, b}[1-i]
		must.Succeed(t, os.WriteFile(s.file(), bytes.ReplaceAll(text, []byte(was.http.URL), []byte(next[1-i].http.URL)), 0o600))
	}
	first := rand.IntN(2)
	next[first].run()
	next[1-first].run()
	defer func() { next[0].end(); next[1].end() }()
	m := awaitMigration(t, next[0].Service, "web")
	if m.State != admin.MigrationMoved {
		t.Errorf("killed at %q: %+v", step, m)
	}
	dst, err := client.Open(t.Context(), client.Options{InitiatorName: "iqn.2026-11.example:host", URL: client.URL{Address: next[1].Portals()[0], Target: "iqn.2026-11.example.odx:disks"}})
	must.Succeed(t, err)
	defer dst.Close()
	if got := read(t, dst, 0, len(model)); !bytes.Equal(got, model) {
		t.Errorf("killed at %q: the LUN has other data than was written", step)
	}
	src := session(t, next[0].Service, "iqn.2026-11.example:host")
	defer src.Close()
	if err := run(t, src, []byte{0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0}, make([]byte, 512)); !senseIs(err, 2, 0x040C) {
		t.Errorf("killed at %q: a write to the source: %v, want 2/04/0C", step, err)
	}
}

// What the configuration says of the LUN that initiators find in its commands goes along.
func TestMigrate_Remote_Settings(t *testing.T) {
	a, b := departure(t, ", block_size: 4096, read_only: true")
	_, err := a.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "web", To: "other:web2"})
	must.Succeed(t, err)
	if m := awaitMigration(t, a.Service, "web"); m.State != admin.MigrationMoved {
		t.Fatalf("%+v", m)
	}
	for _, to := range []string{"other:web", "other:web3"} {
		if _, err := b.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "web2", To: to}); err == nil || !strings.Contains(err.Error(), "finish that migration first: odx volume migrate finish web") {
			t.Errorf("back to %s before the end: %v", to, err)
		}
	}
	lu := b.state.Load().unit("volume web2")
	if lu == nil || lu.LogicalBlockLength() != 4096 || !lu.ReadOnly() {
		t.Fatalf("the LUN at the destination: %+v", lu)
	}
	// It has moved for the next process of the source, too.
	a.end()
	a.run()
	src := session(t, a.Service, "iqn.2026-11.example:host")
	defer src.Close()
	if err := run(t, src, []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}, nil); !senseIs(err, 2, 0x040C) {
		t.Errorf("a read of the source after a start: %v, want 2/04/0C", err)
	}
}

// While the destination does not answer after the LUN was given up, commands wait; an abort is
// refused, since it is not known who serves, and lets them end so that hosts repeat them. The
// migration goes on as soon as the destination answers.
func TestMigrate_Remote_CutOff(t *testing.T) {
	a, b := departure(t, "")
	d := login(t, a.Service, 0)
	data := random(1, departingSize)
	must.Succeed(t, d.WriteAt(t.Context(), data, 0))
	cut, answers := make(chan struct{}), b.handler.Load()
	a.reached = func(step string) {
		if step == "migration: given up" {
			b.handler.Store(nil)
			close(cut)
		}
	}
	_, err := a.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "web", To: "other:web2"})
	must.Succeed(t, err)
	<-cut
	waiting := make(chan error, 1)
	go func() { waiting <- d.WriteAt(t.Context(), data[:4096], 0) }()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for migrationOf(t, a.Service, "web").State != admin.MigrationHandingOver {
		<-tick.C
	}
	if _, err := a.migrations.AbortMigration(t.Context(), "web"); !errors.Is(err, admin.ErrHandingOver) {
		t.Errorf("abort: %v", err)
	}
	if err := <-waiting; !senseIs(err, 2, 0x040A) {
		t.Errorf("a command that was held ends with %v, want 2/04/0A", err)
	}
	if b.state.Load().unit("volume web2") != nil {
		t.Error("the destination serves without having been asked")
	}
	b.handler.Store(answers)
	if m := awaitMigration(t, a.Service, "web"); m.State != admin.MigrationMoved {
		t.Fatalf("%+v", m)
	}
	moved := login(t, b.Service, 0)
	if got := read(t, moved, 0, departingSize); !bytes.Equal(got, data) {
		t.Error("the LUN has other data than was written")
	}
}

// A write that comes in a cut that is given up, because it does not end in time or is refused,
// goes on as if there had been none.
func TestMigrate_GivenUp(t *testing.T) {
	for _, to := range []string{"web2", "other:web2"} {
		t.Run(to, func(t *testing.T) {
			a, _ := departure(t, "")
			d := login(t, a.Service, 0)
			data := random(1, departingSize)
			must.Succeed(t, d.WriteAt(t.Context(), data, 0))
			const bound = 50 * time.Millisecond
			usual := a.cutBound
			a.cutBound = bound
			written := make(chan error, 1)
			var once sync.Once
			a.reached = func(step string) {
				if step != "migration: source frozen" {
					return
				}
				once.Do(func() {
					go func() { written <- d.WriteAt(context.Background(), data[4096:8192], 0) }()
					<-time.After(2 * bound) // the fault: what is slow
					a.cutBound = usual
				})
			}
			_, err := a.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "web", To: to})
			must.Succeed(t, err)
			if err := <-written; err != nil {
				t.Errorf("a write in a cut that was given up: %v", err)
			}
			if m := awaitMigration(t, a.Service, "web"); m.State != admin.MigrationMoved || m.Cuts < 2 {
				t.Errorf("%+v", m)
			}
		})
	}
}
