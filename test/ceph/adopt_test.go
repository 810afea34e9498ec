//go:build rados

package ceph_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"odx/backstore"
	"odx/internal/kit/must"
	"odx/internal/kit/tokenclient"
)

var adopted = flag.Int("tokens", 3, "how many tokens of 256 MiB TestServers_Adopt writes to another store")

const (
	adoptBytes   = 256 << 20
	adoptSectors = adoptBytes / 512
	// written bounds what is written to the pool for a token, as a part of what it stands for.
	written = 0.02
)

// prepared makes the store of a namespace with a key that others have, and returns its ID.
func prepared(t *testing.T, namespace string, key [32]byte) string {
	t.Helper()
	o := reach(t)
	o.Namespace = namespace
	pool, options, err := claim(o)
	must.Succeed(t, err)
	options.FingerprintKey = &key
	s, err := backstore.Open(t.Context(), options)
	must.Succeed(t, err)
	id := s.ID()
	must.Succeed(t, s.Close(), pool.Close())
	return fmt.Sprintf("%x", id)
}

// shard is a server of a store of its own in the pool.
type shard struct {
	*node
	namespace, store, api string
}

// newShards returns servers of stores with one key, which are peers of each other.
func newShards(t *testing.T, names ...string) (list []*shard) {
	t.Helper()
	key := [32]byte{1, 2, 3}
	for _, name := range names {
		s := &shard{node: newNode(t, name), namespace: t.Name() + "-" + name}
		s.store = prepared(t, s.namespace, key)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must.Succeed(t, err)
		s.api = l.Addr().String()
		must.Succeed(t, l.Close())
		list = append(list, s)
	}
	for _, s := range list {
		s.configure(list)
	}
	return list
}

// configure writes the configuration of a server.
func (s *shard) configure(all []*shard) {
	s.t.Helper()
	secret := func(name, text string) string {
		path := filepath.Join(s.dir, name+".secret")
		must.Succeed(s.t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	var peers, secrets []any
	for _, o := range all {
		if o != s {
			peers = append(peers, map[string]any{
				"name": o.name, "store": o.store, "addresses": []string{"http://" + o.api}, "secret_file": secret("to-"+o.name, "server "+s.name+" asks server "+o.name),
			})
			secrets = append(secrets, map[string]any{"name": o.name, "role": "peer", "secret_file": secret("from-"+o.name, "server "+o.name+" asks server "+s.name)})
		}
	}
	text, err := json.Marshal(map[string]any{ // which is YAML
		"data_dir": "rados:" + cluster.Pool() + "/" + s.namespace,
		"ceph":     map[string]any{"conf": cluster.Conf(), "user": cluster.User(), "keyring": cluster.Keyring(), "run_dir": "run"},
		"portals":  []string{s.portal},
		"targets":  []any{map[string]any{"name": target, "luns": []any{map[string]any{"lun": 0, "volume": "v", "size": "1GiB"}}}},
		"api":      map[string]any{"listen": s.api, "secret_file": secret("admin", "the administrator of a server"), "secrets": secrets},
		"peers":    peers,
	})
	must.Succeed(s.t, err)
	must.Succeed(s.t, os.WriteFile(s.config(), text, 0o600))
}

// space is what odx store info says.
type space struct {
	Adopted  int64 `json:"adopted_bytes"`
	Lent     int64 `json:"lent_bytes"`
	Physical int64 `json:"physical_bytes"`
	Live     int64 `json:"live_bytes"`
}

func (s *shard) space() (sp space) {
	s.t.Helper()
	out, err := s.run("store", "info", "--json")
	if jsonErr := json.Unmarshal([]byte(out), &sp); err != nil || jsonErr != nil {
		s.t.Fatalf("store info of %s: %v, %v: %s", s.name, err, jsonErr, out)
	}
	return sp
}

// sound proves the store, and that others hold what it needs.
func (s *shard) sound() {
	s.t.Helper()
	if out, err := s.run("store", "check"); err != nil || !strings.Contains(out, "is sound") {
		s.t.Errorf("check of %s: %v: %s", s.name, err, out)
	}
}

// written returns how many bytes clients have written to the pool, by the counters of the OSDs.
func poolWritten(t *testing.T) (total int64) {
	t.Helper()
	for i := range 2 {
		out, err := exec.Command("ceph", "--admin-daemon", filepath.Join(filepath.Dir(cluster.Conf()), fmt.Sprintf("osd.%d.asok", i)), "perf", "dump", "osd").Output()
		var counters struct {
			OSD struct {
				Written int64 `json:"op_in_bytes"`
			} `json:"osd"`
		}
		if jsonErr := json.Unmarshal(out, &counters); err != nil || jsonErr != nil || counters.OSD.Written == 0 {
			t.Fatalf("counters of osd.%d: %v, %v: %.200s", i, err, jsonErr, out)
		}
		total += counters.OSD.Written
	}
	return total
}

// content is n bytes that only seed gives.
func content(seed uint64, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 7}).Read(p)
	return p
}

// TestServers_Adopt writes tokens of 256 MiB of one store to another one in the same pool: no data
// moves, as the counters of the OSDs say, the bytes are there without the first server, and later
// they are brought home.
func TestServers_Adopt(t *testing.T) {
	both := newShards(t, "a", "b")
	a, b := both[0], both[1]
	for _, s := range both {
		s.start()
		s.await(serves)
	}
	from, to := dial(t, a.node), dial(t, b.node)
	awaitPeer(t, b)
	var took []time.Duration
	var moved []int64 // bytes written to the pool
	var want []byte
	for round := range *adopted {
		to.unmap(t) // what was adopted before is never moved
		want = content(uint64(round+1), adoptBytes)
		answer, err := from.session.Write(bytes.NewReader(want), 0, adoptSectors, tokenclient.WriteOptions{})
		good(t, answer, err)
		token, err := from.session.Token(tokenclient.Range{Blocks: adoptSectors})
		must.Succeed(t, err)
		before, began := poolWritten(t), time.Now()
		spent := spend(t, to, token)
		took = append(took, time.Since(began))
		n := poolWritten(t) - before
		moved = append(moved, n)
		t.Logf("token %d: %v in %d commands, %d bytes written to the pool, %.2f %%", round, took[round].Round(time.Millisecond), spent, n, 100*float64(n)/adoptBytes)
		same(t, to, want)
	}
	slices.Sort(took)
	slices.Sort(moved)
	t.Logf("256 MiB to another store: p50 %v, longest %v of %d; written to the pool: p50 %.2f %%, at most %.2f %%",
		took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), len(took),
		100*float64(moved[len(moved)/2])/adoptBytes, 100*float64(moved[len(moved)-1])/adoptBytes)
	// A checkpoint of either store that falls into the time of one writes metadata once more, and
	// cleaning of the first one what is left alive in segments of before.
	if float64(moved[len(moved)/2]) > written*adoptBytes {
		t.Errorf("%d bytes were written to the pool for a token of %d", moved[len(moved)/2], adoptBytes)
	}
	if sp := b.space(); sp.Adopted != adoptBytes || sp.Physical > adoptBytes/16 {
		t.Errorf("space of the taker: %+v", sp)
	}
	if sp := a.space(); sp.Lent < adoptBytes {
		t.Errorf("space of the maker: %+v", sp)
	}
	b.sound()

	a.kill()
	same(t, to, want)
	a.start()
	a.await(serves)
	a.sound()
	b.kill()
	b.start()
	b.await(serves)
	to = dial(t, b.node)
	same(t, to, want)

	home := time.Now()
	for end := home.Add(5 * time.Minute); ; {
		if b.space().Adopted == 0 && a.space().Lent == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("not brought home: %+v, %+v", b.space(), a.space())
		}
		time.Sleep(time.Second) // each look is a command
	}
	t.Logf("brought home, and let go, %v after the start of the server", time.Since(home).Round(time.Second))
	same(t, to, want)
	a.sound()
	b.sound()
}

// unmap unmaps what tokens are written to.
func (c *client) unmap(t *testing.T) {
	t.Helper()
	out := make([]byte, 8+16)
	binary.BigEndian.PutUint16(out, uint16(len(out)-2))
	binary.BigEndian.PutUint16(out[2:], 16)
	binary.BigEndian.PutUint32(out[16:], adoptSectors)
	c.command(t, []byte{0x42, 8: byte(len(out)), 9: 0}, out, 0)
}

// spend writes a token to the LUN, in as many commands as that takes: a busy machine does it in
// several, and may do nothing in the time of one.
func spend(t *testing.T, c *client, token []byte) (commands int) {
	t.Helper()
	for done := uint64(0); done < adoptSectors; commands++ {
		a, err := c.session.WriteUsingToken(token, tokenclient.WriteTokenOptions{Offset: done}, tokenclient.Range{LBA: done, Blocks: uint32(adoptSectors - done)})
		must.Succeed(t, err)
		const busy = 0x08
		switch {
		case a.Good():
			return commands + 1
		case a.Status == busy && commands < 100:
		case a.Sense.ASC == 0x0d && a.Sense.ASCQ == 0x04: // COPY TARGET DEVICE DATA UNDERRUN
			done += a.Sense.Information
		default:
			t.Fatalf("write using token: %v", a)
		}
	}
	return commands
}

// awaitPeer waits until the others answer a server.
func awaitPeer(t *testing.T, s *shard) {
	t.Helper()
	for end := time.Now().Add(takeOverMax); ; {
		out, err := s.run("peer", "list", "--json")
		if err == nil && strings.Contains(out, `"up": true`) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("peers of %s: %v: %s", s.name, err, out)
		}
	}
}

func good(t *testing.T, a tokenclient.Answer, err error) {
	t.Helper()
	if err == nil && !a.Good() {
		err = errors.New(a.String())
	}
	must.Succeed(t, err)
}

// same compares what a client reads.
func same(t *testing.T, c *client, want []byte) {
	t.Helper()
	var got bytes.Buffer
	got.Grow(len(want))
	answer, err := c.session.Read(&got, 0, uint64(len(want)/512))
	good(t, answer, err)
	if !bytes.Equal(got.Bytes(), want) {
		t.Fatal("other data than that of the token")
	}
}
