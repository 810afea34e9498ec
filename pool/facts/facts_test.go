package facts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"odx/backstore/vfs/rados"
	"odx/internal/kit/must"
)

func twin() *rados.Twin {
	start := time.Now()
	return rados.NewTwin(func() time.Duration { return time.Since(start) })
}

// Facts that nodes change at once have each change.
func TestStore_Update(t *testing.T) {
	pool := twin()
	const nodes, changes = 3, 20
	var making sync.WaitGroup
	for i := range nodes {
		s := New(pool.Client())
		making.Go(func() {
			if _, err := s.Exist(); err != nil {
				t.Error(err)
			}
			if f, err := s.Make(6); err != nil || f.Shards() != 6 {
				t.Errorf("make: %v", err)
			}
			for n := range changes {
				if _, err := s.Update(t.Context(), func(f *Facts) error {
					f.Nodes[fmt.Sprintf("n%d", i)] = Node{Generation: uint64(n)}
					f.Configuration.Generation++
					f.Owners[i] = Owner{Node: "a", Epoch: uint64(n), Store: fmt.Sprint(i)}
					if n == changes-1 {
						delete(f.Owners, i)
						f.Moves[i], f.Drains["a"] = Move{To: "b"}, Drain{}
					}
					return nil
				}); err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	making.Wait()
	s := New(pool.Client())
	f, err := s.Load()
	must.Succeed(t, err)
	if there, err := s.Exist(); err != nil || !there {
		t.Errorf("there are facts: %t, %v", there, err)
	}
	if f.Configuration.Generation != nodes*changes || len(f.Nodes) != nodes || len(f.Owners) != 0 || len(f.Moves) != nodes || len(f.Drains) != 1 || f.Nodes["n2"].Generation != changes-1 {
		t.Errorf("facts %+v", f)
	}
	failed := errors.New("no")
	if _, err := s.Update(t.Context(), func(f *Facts) error { f.Owners[0] = Owner{}; return failed }); !errors.Is(err, failed) {
		t.Errorf("a change that fails: %v", err)
	}
	if _, err := s.Update(t.Context(), func(f *Facts) error { f.Owners[6] = Owner{}; return nil }); err == nil {
		t.Error("an owner of a shard that is not there")
	}
	same, err := s.Update(t.Context(), func(*Facts) error { return nil })
	if err != nil || same.change != f.change {
		t.Errorf("no change makes change %d, %v", same.change, err)
	}
}

// All shards have the keys of the pool, which no other pool has.
func TestFacts_Key(t *testing.T) {
	var keys [][]byte
	for range 2 {
		pool := twin()
		for range 2 {
			f, err := New(pool.Client()).Make(1)
			must.Succeed(t, err)
			for _, purpose := range []string{"a", "b"} {
				key, err := f.Key(purpose)
				must.Succeed(t, err)
				keys = append(keys, key)
			}
		}
	}
	for i, a := range keys {
		for k, b := range keys {
			if same := i/4 == k/4 && i%2 == k%2; bytes.Equal(a, b) != same || len(a) != 32 {
				t.Errorf("keys %d and %d: %x, %x", i, k, a, b)
			}
		}
	}
}

// A node is there until it leaves, or for a while after its last word.
func TestStore_Present(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := twin()
		s, other := New(pool.Client()), New(pool.Client())
		is := func(want bool) {
			t.Helper()
			there, err := other.Present([]string{"a", "b"})
			if err != nil || there["a"] != want || there["b"] {
				t.Errorf("there are %v, %v; a is to be there: %t", there, err, want)
			}
		}
		is(false)
		p, err := s.Enter("a")
		must.Succeed(t, err)
		is(true)
		if _, err := other.Enter("a"); !errors.Is(err, ErrPresent) {
			t.Errorf("a second one of the name: %v", err)
		}
		for range 10 {
			time.Sleep(PresenceLease * 3 / 4)
			must.Succeed(t, p.Renew())
			is(true)
		}
		time.Sleep(PresenceLease)
		is(false)
		must.Succeed(t, p.Renew())
		is(true)
		must.Succeed(t, p.Leave())
		is(false)
		next, err := other.Enter("a")
		must.Succeed(t, err)
		if err := p.Renew(); !errors.Is(err, rados.ErrBusy) {
			t.Errorf("renewed while another one is there: %v", err)
		}
		must.Succeed(t, next.Leave())
	})
}

// Rows that are damaged, unknown or of another version are errors.
func TestDecode_Problems(t *testing.T) {
	f := &Facts{pool: poolRow{version, 2, make([]byte, secretBytes)}, Nodes: map[string]Node{"a": {}}}
	for _, c := range []struct{ key, text, want string }{
		{"pool", "", "of 0 bytes"},
		{"pool", `{"version":2,"shards":1,"secret":""}`, "another version"},
		{"pool", `{"version":1,"shards":0,"secret":""}`, "0 shards"},
		{"pool", `{"version":1,"shards":65,"secret":""}`, "65 shards"},
		{"owner/0", `{"node":1}`, "row \"owner/0\""},
		{"owner/0", `{"new":1}`, "unknown field"},
		{"owner/0", `{}{}`, "more than one value"},
		{"owner/2", `{}`, "unknown row"},
		{"owner/01", `{}`, "unknown row"},
		{"owner/-1", `{}`, "unknown row"},
		{"node/", `{}`, "unknown row"},
		{"node/a b", `{}`, "unknown row"},
		{"new", `{}`, "unknown row"},
		{"configuration", strings.Repeat(" ", maxRow+1), "65537 bytes"},
	} {
		rows, err := f.encode()
		must.Succeed(t, err)
		rows[c.key] = []byte(c.text)
		if _, err := decode(rows, 1); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v, want %s", c.key, c.text, err, c.want)
		}
	}
}

// FuzzDecode decodes any rows; what it accepts is the same once it was encoded.
func FuzzDecode(f *testing.F) {
	some := &Facts{
		pool: poolRow{version, 6, make([]byte, secretBytes)}, Configuration: Configuration{3, map[string]string{"targets": "0011"}, "a", time.Unix(1, 0).UTC()},
		Nodes: map[string]Node{"a": {3, time.Unix(2, 0).UTC()}}, Owners: map[int]Owner{5: {"a", 7, "00", time.Unix(3, 0).UTC(), "no LUN"}},
		Moves: map[int]Move{0: {"b", time.Unix(4, 0).UTC()}}, Drains: map[string]Drain{"b": {time.Unix(5, 0).UTC()}},
	}
	rows, err := some.encode()
	must.Succeed(f, err)
	text, err := json.Marshal(rows)
	must.Succeed(f, err)
	f.Add(text)
	f.Add([]byte(`{"pool":"e30="}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var rows map[string][]byte
		if json.Unmarshal(text, &rows) != nil {
			return
		}
		got, err := decode(rows, 1)
		if err != nil {
			return
		}
		again, err := got.encode()
		must.Succeed(t, err)
		same, err := decode(again, 1)
		must.Succeed(t, err)
		if !reflect.DeepEqual(normal(t, got), normal(t, same)) {
			t.Errorf("%+v becomes %+v", got, same)
		}
	})
}

// normal returns facts as rows, which leaves out what time zones and nil maps differ in.
func normal(t *testing.T, f *Facts) map[string][]byte {
	rows, err := f.encode()
	must.Succeed(t, err)
	return rows
}
