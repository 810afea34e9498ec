package target

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	client "odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/target/foreign"
)

// foreignTarget is a server whose LUN another one shows.
const foreignTarget = `
data_dir: data
portals: ["%s"]
targets:
  - name: iqn.2026-11.example.other:disks
    luns:
      - {lun: 3, volume: %s, size: 16MiB}
    authentication:
      users:
        - {name: odx, secret: "0123456789abcd"}
`

// proxied is the configuration of a server with one LUN of its own, and one that is there.
const proxied = `
data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: own, size: 16MiB}
      - {lun: 1, backing: "iscsi://%s/iqn.2026-11.example.other:disks/3", login: {name: odx, secret: %q}}
`

// otherServer is a server that stops and starts at one address.
type otherServer struct {
	*Service
	t       *testing.T
	dir     string
	address string
}

func (o *otherServer) start(volume string) {
	o.t.Helper()
	s, err := Start(o.t.Context(), parse(o.t, o.dir, fmt.Sprintf(foreignTarget, o.address, volume)), logs.Discard())
	must.Succeed(o.t, err)
	o.Service, o.address = s, s.Portals()[0]
}

func (o *otherServer) stop() {
	o.t.Helper()
	must.Succeed(o.t, o.Stop(o.t.Context()))
}

// A LUN of another target is served, also over a stop of that and a start of this server without
// it; and a copy by token reaches it. Another LUN at its place is not served, until it is
// configured again.
func TestForeign(t *testing.T) {
	o := &otherServer{t: t, dir: t.TempDir(), address: "127.0.0.1:0"}
	o.start("far")
	defer func() { o.stop() }()
	dir := t.TempDir()
	text := fmt.Sprintf(proxied, o.address, "0123456789abcd")
	log := new(logs.Text)
	begin := func() *Service {
		t.Helper()
		s, err := Start(t.Context(), parse(t, dir, text), log.Entry())
		must.Succeed(t, err)
		return s
	}
	s := begin()
	defer func() { must.Succeed(t, s.Stop(t.Context())) }()

	d, data := login(t, s, 1), random(1, 1<<20)
	if !d.Thin || d.Size() != 16<<20 {
		t.Errorf("%d bytes, thin: %t", d.Size(), d.Thin)
	}
	must.Succeed(t, d.WriteAt(t.Context(), data, 1<<20))
	far, err := o.store.Volume("far")
	must.Succeed(t, err)
	got := make([]byte, len(data))
	must.Succeed(t, far.ReadAt(t.Context(), got, 1<<20))
	if !bytes.Equal(got, data) {
		t.Error("what was written is not at the other server")
	}
	token, _, err := d.PopulateToken(t.Context(), 1<<20, 1<<20)
	must.Succeed(t, err)
	if n, err := d.WriteUsingToken(t.Context(), token, 0, 2<<20, 1<<20); err != nil || n != 1<<20 {
		t.Errorf("copy by token: %d bytes, %v", n, err)
	}
	if !bytes.Equal(read(t, d, 2<<20, 1<<20), data) {
		t.Error("the copy is something else")
	}

	// Without the other server: this one starts with what it knows, and goes on once it is there.
	d.Close()
	o.stop()
	must.Succeed(t, s.Stop(t.Context()))
	s = begin()
	d = login(t, s, 1) // INQUIRY, READ CAPACITY
	o.start("far")
	if !bytes.Equal(read(t, d, 1<<20, 1<<20), data) {
		t.Error("something else is read after the starts")
	}

	// Another LUN at that place.
	o.stop()
	o.start("another")
	d.Close()
	must.Succeed(t, s.Stop(t.Context()))
	s = begin()
	must.Succeed(t, log.Await(t.Context(), "another LUN is there", 1))
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	disk := s.foreign.open[fmt.Sprintf("iscsi://%s/iqn.2026-11.example.other:disks/3", o.address)].disk
	if err := disk.ReadAt(short, make([]byte, 512), 0); err == nil {
		t.Fatal("another LUN is served")
	}
	must.Succeed(t, s.Stop(t.Context()))
	without := text[:strings.Index(text, "      - {lun: 1")]
	s2, err := Start(t.Context(), parse(t, dir, without), logs.Discard())
	must.Succeed(t, err)
	must.Succeed(t, s2.Stop(t.Context()))
	s = begin()
	if got := read(t, login(t, s, 1), 1<<20, 4096); !bytes.Equal(got, make([]byte, 4096)) {
		t.Error("the LUN that is configured again is not the one that is there")
	}
}

// A secret that changes is used by the next session; a LUN that cannot be logged in to is left
// out at the start, and is an error of a reload.
func TestForeign_Login(t *testing.T) {
	o := &otherServer{t: t, dir: t.TempDir(), address: "127.0.0.1:0"}
	o.start("far")
	defer func() { o.stop() }()
	s := serveFile(t, fmt.Sprintf(proxied, o.address, "something else!"))
	if _, err := client.Open(t.Context(), client.Options{InitiatorName: "iqn.2026-11.example:host",
		URL: client.URL{Address: s.Portals()[0], Target: "iqn.2026-11.example.odx:disks", LUN: 1}}); err == nil {
		t.Fatal("a LUN that cannot be logged in to is served")
	}
	s.reload(fmt.Sprintf(proxied, o.address, "0123456789abcd"))
	d := login(t, s.Service, 1)
	must.Succeed(t, d.WriteAt(t.Context(), random(3, 4096), 0))
	s.reload(fmt.Sprintf(strings.Replace(proxied, "lun: 1,", "lun: 1, read_only: true,", 1), o.address, "something else!"))
	o.stop()
	o.start("far")
	must.Succeed(t, s.log.Await(t.Context(), "no session with the LUN of another target", 1))
	must.Succeed(t, s.log.Await(t.Context(), "authentication failed", 2))
}

// A LUN whose target does not answer is waited for by its users alone; each of those has its own
// time and login.
func TestForeign_Opening(t *testing.T) {
	o := &otherServer{t: t, dir: t.TempDir(), address: "127.0.0.1:0"}
	o.start("far")
	defer func() { o.stop() }()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	defer silent.Close()
	const name = "/iqn.2026-11.example.other:disks/3"
	gone, there := "iscsi://"+silent.Addr().String()+name, "iscsi://"+o.address+name
	s := serveFile(t, migratedDisk)
	f, right := s.foreign, foreign.Login{Initiator: client.Credentials{User: "odx", Password: "0123456789abcd"}}

	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := f.acquire(ctx, gone, right, "first")
		first <- err
	}()
	conn, err := silent.Accept() // it logs in
	must.Succeed(t, err)
	defer conn.Close()
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := f.acquire(ended, gone, right, "second"); !errors.Is(err, context.Canceled) {
		t.Errorf("a user without time: %v", err)
	}
	f.setLogin(gone, right)
	must.Succeed(t, f.release(gone, "third"))
	d, err := f.acquire(t.Context(), there, right, "first")
	must.Succeed(t, err)
	again, err := f.acquire(t.Context(), there, right, "second")
	if must.Succeed(t, err); again != d {
		t.Error("a second session with one LUN")
	}
	must.Succeed(t, f.forget(t.Context(), s.Configuration(), nil))
	if g, err := f.known(there); err != nil || g.ID == "" {
		t.Errorf("%+v is known of a LUN that is open, %v", g, err)
	}
	select {
	case err := <-first:
		t.Errorf("the others have waited for the LUN that does not answer: %v", err)
	default:
	}
	cancel()
	if err := <-first; err == nil {
		t.Error("a target that says nothing is logged in to")
	}
	must.Succeed(t, errors.Join(f.release(there, "first"), f.release(there, "second")))
	if len(f.open) != 0 {
		t.Errorf("%d are open", len(f.open))
	}
}

// FuzzDecodeForeign reads anything as a record; what is one is read the same again.
func FuzzDecodeForeign(f *testing.F) {
	whole, err := json.Marshal(foreignRecord{foreignVersion, "iscsi://a:3260/iqn.2026-11.com.example:b/3", "naa.60", 1 << 20, 512})
	must.Succeed(f, err)
	f.Add(whole)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := decodeForeign(value)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		must.Succeed(t, err)
		if got, err := decodeForeign(again); err != nil || got != r {
			t.Errorf("%+v is read as %+v, %v", r, got, err)
		}
	})
}
