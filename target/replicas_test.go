package target

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"odx/audit"
	"odx/conf"
	client "odx/initiator"
	"odx/internal/kit/must"
	"odx/replica/pair"
)

// site is a server of a test that others can reach.
type site struct {
	*Service
	t     *testing.T
	name  string
	text  string // of the configuration, without peers
	path  string
	http  *httptest.Server
	peers string
}

func newSite(t *testing.T, name, luns string) *site {
	t.Helper()
	s := &site{t: t, name: name, path: filepath.Join(t.TempDir(), "odx.yaml")}
	s.text = "data_dir: data\nportals: [\"127.0.0.1:0\"]\ntargets:\n  - name: iqn.2026-11.example.odx:disks\n    luns:\n" + luns
	must.Succeed(t, os.WriteFile(s.path, []byte(s.text), 0o600))
	cfg, err := conf.Load(s.path)
	must.Succeed(t, err)
	s.Service = start(t, cfg)
	mux := http.NewServeMux()
	mux.Handle("POST "+pair.Path, s.Replicas().PeerHandler())
	mux.Handle("/", s.Keeper().Handler())
	s.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(w, r.WithContext(audit.With(r.Context(), audit.Secret("other", ""))))
	}))
	t.Cleanup(s.http.Close)
	return s
}

// know makes another server the peer of this one.
func (s *site) know(o *site) {
	s.t.Helper()
	s.peers = fmt.Sprintf("peers:\n  - {name: other, store: %x, addresses: [%q], secret_env: %s}\n", o.store.ID(), o.http.URL, "ODX_TEST_SECRET")
	s.put("")
}

// put replaces the LUNs of the configuration by more of them.
func (s *site) put(luns string) {
	s.t.Helper()
	s.text += luns
	_, err := s.PutConfig(s.t.Context(), []byte(s.text+s.peers), "")
	must.Succeed(s.t, err)
}

// unit returns the identity of the logical unit on a volume, and whether it is read-only.
func (s *site) unit(volume string) (id [16]byte, readOnly, served bool) {
	u := s.state.Load().units["volume "+volume]
	if u == nil {
		return id, false, false
	}
	return u.lu.ID(), u.snapshot, true
}

// TestService_ReplicaHash: with hash in the entry, what the server of a replica has in another
// volume does not cross; the rate and the figures count the fingerprints.
func TestService_ReplicaHash(t *testing.T) {
	t.Setenv("ODX_TEST_SECRET", "not looked at by this test")
	ctx := context.Background()
	a := newSite(t, "a", "      - {lun: 0, volume: web, size: 1MiB}\n")
	b := newSite(t, "b", "      - {lun: 0, volume: own, size: 1MiB}\n")
	a.know(b)
	b.know(a)
	data := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // never fails
	for _, to := range []struct {
		s      *site
		volume string
	}{{a, "web"}, {b, "own"}} {
		v, err := to.s.store.Volume(to.volume)
		must.Succeed(t, err, v.WriteAt(ctx, data, 0))
	}
	b.put("replicas:\n  - {name: copy, peer: other, source: web, every: 366d, pause: true, hash: true}\n")
	must.Succeed(t, b.Replicas().Start(ctx, pair.StartRequest{Peer: "other", Source: "web", Name: "copy"}))
	at, err := b.Replicas().Round(ctx, "copy", b.Replicas().Planned("copy"))
	if err != nil || at.Fetched != 1<<20 || at.Crossed == 0 || at.Crossed > 1<<20*3/100 {
		t.Errorf("%+v, %v", at.Progress, err)
	}
}

// TestService_Replicas: the LUN on a replica is read-only and another disk, until a failover
// makes it the disk that the source was; the source is not served in the meantime.
func TestService_Replicas(t *testing.T) {
	t.Setenv("ODX_TEST_SECRET", "not looked at by this test")
	ctx := context.Background()
	a := newSite(t, "a", "      - {lun: 0, volume: web, size: 1MiB}\n")
	b := newSite(t, "b", "      - {lun: 0, volume: own, size: 1MiB}\n")
	a.know(b)
	b.know(a)
	v, err := a.store.Volume("web")
	must.Succeed(t, err)
	data := bytes.Repeat([]byte("replica "), 512)
	must.Succeed(t, v.WriteAt(ctx, data, 4096))
	disk, _, _ := a.unit("web")
	must.Succeed(t, b.Replicas().Start(ctx, pair.StartRequest{Peer: "other", Source: "web", Name: "copy"}))
	_, err = b.Replicas().Round(ctx, "copy", pair.RoundOptions{})
	must.Succeed(t, err)
	b.put("      - {lun: 1, volume: copy}\n")
	if id, readOnly, served := b.unit("copy"); !served || !readOnly || id == disk {
		t.Errorf("LUN on a replica: served %v, read-only %v, the disk of the source %v", served, readOnly, id == disk)
	}
	_, err = b.Replicas().Failover(ctx, "copy", false, pair.RoundOptions{})
	must.Succeed(t, err)
	if id, readOnly, served := b.unit("copy"); !served || readOnly || id != disk {
		t.Errorf("LUN after the failover: served %v, read-only %v, the disk of the source %v", served, readOnly, id == disk)
	}
	if id, readOnly, served := a.unit("web"); served && (!readOnly || id == disk) {
		t.Errorf("LUN on the former source: read-only %v, the same disk %v", readOnly, id == disk)
	}
	got := make([]byte, len(data))
	n, err := b.store.Volume("copy")
	must.Succeed(t, err)
	must.Succeed(t, n.ReadAt(ctx, got, 4096), n.WriteAt(ctx, data, 8192))
	if !bytes.Equal(got, data) {
		t.Error("the replica has other data")
	}
	_, err = a.Replicas().Failback(ctx, "copy", pair.FailbackOptions{})
	must.Succeed(t, err)
	if id, readOnly, served := a.unit("web"); !served || readOnly || id != disk {
		t.Errorf("LUN after the failback: served %v, read-only %v, the same disk %v", served, readOnly, id == disk)
	}
	must.Succeed(t, v.ReadAt(ctx, got, 8192))
	if !bytes.Equal(got, data) {
		t.Error("what was written after the failover is not here")
	}
}

// TestService_Replicas_Reservations: persistent reservations come along with a failover that says so,
// and back, where the target port is the same; without a word, or with another tag, they do not.
func TestService_Replicas_Reservations(t *testing.T) {
	t.Setenv("ODX_TEST_SECRET", "not looked at by this test")
	ctx := context.Background()
	a := newSite(t, "a", "      - {lun: 0, volume: web, size: 1MiB}\n")
	b := newSite(t, "b", "      - {lun: 0, volume: own, size: 1MiB}\n")
	a.know(b)
	b.know(a)
	must.Succeed(t, b.Replicas().Start(ctx, pair.StartRequest{Peer: "other", Source: "web", Name: "copy"}))
	_, err := b.Replicas().Round(ctx, "copy", pair.RoundOptions{})
	must.Succeed(t, err)
	b.put("      - {lun: 1, volume: copy}\n")
	at := func(s *site, lun uint16) *client.Session {
		t.Helper()
		for _, l := range s.LUNs() {
			if l.Number == lun {
				c := dial(t, l.URLs[0], "iqn.2026-11.example:host")
				attentions(t, c)
				return c
			}
		}
		t.Fatalf("no LUN %d", lun)
		return nil
	}
	keys := func(s *site, lun uint16, want ...uint64) {
		t.Helper()
		c, p := at(s, lun), make([]byte, 64)
		must.Succeed(t, c.Do(ctx, &client.Command{CDB: []byte{0x5E, 0, 0, 0, 0, 0, 0, 0, 64, 0}, In: p}), c.Close())
		var got []uint64
		for i := range binary.BigEndian.Uint32(p[4:]) / 8 {
			got = append(got, binary.BigEndian.Uint64(p[8+8*i:]))
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("LUN %d of %s has keys %x registered, not %x", lun, s.name, got, want)
		}
	}
	take := pair.RoundOptions{Reservations: true}
	register := func(c *client.Session, key uint64, aptpl byte) {
		t.Helper()
		list := make([]byte, 24)
		binary.BigEndian.PutUint64(list[8:], key)
		list[20] = aptpl
		must.Succeed(t, run(t, c, []byte{0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0}, list))
	}
	failover := func(force bool, o pair.RoundOptions, dropped int) {
		t.Helper()
		a, err := b.Replicas().Failover(ctx, "copy", force, o)
		must.Succeed(t, err)
		if o.Reservations && (a.Dropped != dropped || (a.Age > 0) != force) || !o.Reservations && a != nil {
			t.Errorf("%+v came along, want %d registrations dropped", a, dropped)
		}
	}
	failback := func(o pair.RoundOptions) {
		t.Helper()
		_, err := a.Replicas().Failback(ctx, "copy", pair.FailbackOptions{RoundOptions: o})
		must.Succeed(t, err)
	}
	c := at(a, 0)
	register(c, 0x1234, 0)
	must.Succeed(t, setSWP(t, c, true), c.Close())
	failover(false, take, 0)
	keys(b, 1, 0x1234)
	c = at(b, 1)
	if !softwareWriteProtected(t, c) {
		t.Error("the current mode page has not come along")
	}
	register(c, 0x5678, 1)
	must.Succeed(t, setSWP(t, c, false), c.Close())
	failback(take)
	keys(a, 0, 0x1234, 0x5678)

	// Without a word, the LUN is as after a loss of power of its server.
	c = at(a, 0)
	register(c, 0x9abc, 0)
	must.Succeed(t, c.Close())
	failover(false, pair.RoundOptions{}, 0)
	keys(b, 1, 0x1234, 0x5678)
	failback(pair.RoundOptions{})
	keys(a, 0) // APTPL of the last registration counts

	// By force: what the last round has brought. The LUN is on another target there.
	c = at(a, 0)
	register(c, 0xdef0, 0)
	must.Succeed(t, c.Close())
	_, err = b.Replicas().Round(ctx, "copy", pair.RoundOptions{})
	must.Succeed(t, err)
	c = at(a, 0)
	register(c, 0xffff, 0)
	must.Succeed(t, c.Close())
	failover(true, take, 0)
	keys(b, 1, 0xdef0)
	failback(take)
	keys(a, 0, 0xdef0)
	b.text = strings.Replace(b.text, "iqn.2026-11.example.odx:disks", "iqn.2026-11.example.odx:other", 1)
	b.put("")
	failover(false, take, 1)
	keys(b, 1)
}

// setSWP sets the bit SWP of the current control mode page.
func setSWP(t *testing.T, c *client.Session, on bool) error {
	t.Helper()
	page := controlPage(t, c)
	page[4] &^= 1 << 3
	if on {
		page[4] |= 1 << 3
	}
	page[0] &= 0x3f
	list := append(make([]byte, 4), page...)
	return run(t, c, []byte{0x15, 0x10, 0, 0, byte(len(list)), 0}, list)
}

func softwareWriteProtected(t *testing.T, c *client.Session) bool {
	t.Helper()
	return controlPage(t, c)[4]&(1<<3) != 0
}

// controlPage returns the current control mode page.
func controlPage(t *testing.T, c *client.Session) []byte {
	t.Helper()
	p := make([]byte, 4+12)
	must.Succeed(t, c.Do(t.Context(), &client.Command{CDB: []byte{0x1A, 8, 0x0A, 0, byte(len(p)), 0}, In: p}))
	return p[4:]
}

// TestService_Replicas_Unplanned: a source whose replica was made the source without it is
// not served any more as soon as it hears of that, and the service goes on and restarts.
func TestService_Replicas_Unplanned(t *testing.T) {
	t.Setenv("ODX_TEST_SECRET", "not looked at by this test")
	ctx := context.Background()
	a := newSite(t, "a", "      - {lun: 0, volume: web, size: 1MiB}\n")
	b := newSite(t, "b", "      - {lun: 0, volume: own, size: 1MiB}\n")
	a.know(b)
	b.know(a)
	must.Succeed(t, b.Replicas().Start(ctx, pair.StartRequest{Peer: "other", Source: "web", Name: "copy"}))
	_, err := b.Replicas().Round(ctx, "copy", pair.RoundOptions{})
	must.Succeed(t, err)
	v, err := a.store.Volume("web")
	must.Succeed(t, err)
	must.Succeed(t, v.WriteAt(ctx, make([]byte, 4096), 0))
	_, err = b.Replicas().Failover(ctx, "copy", true, pair.RoundOptions{}) // tells the source, which answers
	must.Succeed(t, err)
	if _, _, served := a.unit("web"); served {
		t.Error("the former source is served")
	}
	must.Succeed(t, a.Stop(ctx))
	cfg, err := conf.Load(a.path)
	must.Succeed(t, err)
	again := start(t, cfg)
	if again.state.Load().units["volume web"] != nil {
		t.Error("the former source is served after a restart")
	}
}
