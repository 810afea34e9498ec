package pair

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	v1 "odx/api/v1"
	"odx/internal/kit/must"
	"odx/peer"
)

// TestWire: requests, answers and refusals are the same on the other side of the wire.
func TestWire(t *testing.T) {
	q := Request{Op: opTake, Pair: newID(), From: newID(), Name: "n", Object: "o", Epoch: 7, Point: newID(), Known: newID(), Resume: newID(), Full: true, Units: true}
	if got, err := requestOf(requestV1(q)); err != nil || got != q {
		t.Errorf("request %+v, %v; want %+v", got, err, q)
	}
	a := Answer{Role: Former, Epoch: 3, Identity: newID(), Object: "o", Common: newID(), Point: newID(), Age: 5 * time.Second, Final: true, Units: []UnitRecord{{Key: "k", Era: true, Value: []byte("v")}}}
	if got, err := answerOf(answerV1(a)); err != nil || !reflect.DeepEqual(got, a) {
		t.Errorf("answer %+v, %v; want %+v", got, err, a)
	}
	for _, k := range kinds {
		if err := refusalOf("p", refusalV1(k.cause)); !errors.Is(err, k.cause) {
			t.Errorf("%v becomes %v", k.cause, err)
		}
	}
	list := v1.ReplicaAnswer{Sources: []v1.ReplicaSource{{Object: "o", Pairs: []string{newID().String(), newID().String()}}}}
	if got, err := offeredOf(list.Sources); err != nil || len(got) != 1 || got[0].Object != "o" || len(got[0].Pairs) != 2 || got[0].Pairs[1].String() != list.Sources[0].Pairs[1] {
		t.Errorf("offered %+v, %v", got, err)
	}
	list.Sources[0].Pairs[1] = "xy"
	if _, err := offeredOf(list.Sources); !errors.Is(err, peer.ErrProtocol) {
		t.Errorf("a pair that is no ID: %v", err)
	}
	if _, err := offeredOf(make([]v1.ReplicaSource, maxOffered+1)); !errors.Is(err, peer.ErrProtocol) {
		t.Errorf("too many: %v", err)
	}
	if a, err := answerOf(v1.ReplicaAnswer{AgeMS: 1 << 62}); err != nil || a.Age > maxAge {
		t.Errorf("an age that cannot be: %v, %v", a.Age, err)
	}
}

// TestManager_PeerHandler_Bad: what makes no sense is refused, and changes nothing.
func TestManager_PeerHandler_Bad(t *testing.T) {
	w := newWorld(t, 5, "a")
	a := w.servers[0]
	if _, err := a.store.CreateVolume(context.Background(), "web", 1<<20); err != nil {
		t.Fatal(err)
	}
	id := newID().String()
	for _, body := range []string{
		"", "{", "{}", `{"op":"take"}`, `{"op":"take","pair":"xy"}`, `{"op":"take","pair":"` + id + `"}`, `{"op":"lead","pair":"` + id + `","epoch":9}`,
		`{"op":"begin","pair":"` + id + `","object":".hidden","name":"n"}`, `{"op":"begin","pair":"` + id + `","object":"none","name":"n"}`,
		`{"op":"begin","pair":"` + id + `","object":"web","name":"../n"}`, `{"op":"begin","pair":"` + id + `","object":"web","name":"n","more":1}`,
		`{"op":"begin","name":"` + strings.Repeat("x", maxRequest) + `"}`,
	} {
		rec := httptest.NewRecorder()
		a.m.PeerHandler().ServeHTTP(rec, httptest.NewRequest("POST", Path, strings.NewReader(body)))
		var answer v1.ReplicaAnswer
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || answer.Refused == "" || answer.Message == "" {
			t.Errorf("%.60s: %s, %v", body, rec.Body, err)
		}
	}
	if all, err := a.m.records(); err != nil || len(all) != 0 {
		t.Errorf("%d records, %v", len(all), err)
	}
}

// FuzzRecord decodes records: what is accepted is stored as something that reads the same.
func FuzzRecord(f *testing.F) {
	r := &record{ID: newID(), Name: "n", Role: Replica, Epoch: 2, Object: "o", Common: &point{ID: newID(), Snapshot: 5}, Work: &work{Point: newID(), Name: ".w"}}
	first, err := r.stored()
	must.Succeed(f, err)
	f.Add(first.Value)
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := decodeRecord((&record{ID: ID{1}}).key(), value)
		if err != nil {
			if !errors.Is(err, errRecord) && !errors.Is(err, errNewer) {
				t.Fatalf("%v has no kind", err)
			}
			return
		}
		stored, err := r.stored()
		must.Succeed(t, err)
		again, err := decodeRecord(stored.Key, stored.Value)
		if err != nil {
			t.Fatalf("%s: %v", stored.Value, err)
		}
		if more, err := again.stored(); err != nil || !bytes.Equal(more.Value, stored.Value) {
			t.Fatalf("%s\n%s, %v", stored.Value, more.Value, err)
		}
	})
}

// FuzzRequest gives a server requests of a peer that lies.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"op":"begin","pair":"00000000000000000000000000000001","from":"00000000000000000000000000000002","name":"n","object":"web","epoch":1}`))
	f.Add([]byte(`{"op":"list","object":"w"}`))
	f.Add([]byte(`{"op":"end","pair":"000000000000000000000000000000010203"}`)) // an ID that is too long
	w := newWorld(f, 6, "a")
	a := w.servers[0]
	if _, err := a.store.CreateVolume(context.Background(), "web", 1<<20); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		w.t = t
		rec := httptest.NewRecorder()
		a.m.PeerHandler().ServeHTTP(rec, httptest.NewRequest("POST", Path, bytes.NewReader(body)))
		if !json.Valid(rec.Body.Bytes()) {
			t.Fatalf("%s", rec.Body)
		}
		if have, named := a.pins(); have != named {
			t.Fatalf("%d snapshots, %d in records", have, named)
		}
	})
}

// TestManager_MoveHandler_Bad: what makes no sense is refused, and changes nothing.
func TestManager_MoveHandler_Bad(t *testing.T) {
	w := newWorld(t, 7, "a", "b")
	a, from := w.servers[0], ID(w.servers[1].id).String()
	if _, err := a.store.CreateVolume(context.Background(), "web", 1<<20); err != nil {
		t.Fatal(err)
	}
	id := newID().String()
	offer := func(more string) string {
		return `{"op":"offer","pair":"` + id + `","from":"` + from + `","epoch":1,"name":"n","volume":"v",` + more + `}`
	}
	const luns = `"luns":[{"target":"iqn","lun":0,"block_length":512}]`
	for _, body := range []string{
		"", "{", "{}", `{"op":"take"}`, `{"op":"take","pair":"xy"}`, `{"op":"take","pair":"` + id + `","from":"` + from + `"}`, `{"op":"offer","pair":"` + id + `","from":"` + id + `"}`,
		offer(`"to":"web","identity":"` + id + `",` + luns), offer(`"to":"x","identity":"",` + luns), offer(`"to":"x","identity":"zz",` + luns),
		offer(`"to":"x","identity":"` + id + `"`), offer(`"to":"x","identity":"` + id + `","more":1,` + luns),
		strings.Replace(offer(`"to":"x","identity":"`+id+`",`+luns), `"epoch":1`, `"epoch":0`, 1),
		`{"op":"offer","name":"` + strings.Repeat("x", maxMove) + `"}`,
	} {
		rec := httptest.NewRecorder()
		a.m.MoveHandler().ServeHTTP(rec, httptest.NewRequest("POST", MovePath, strings.NewReader(body)))
		var answer v1.PeerMoveAnswer
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || answer.Refused == "" || answer.Message == "" {
			t.Errorf("%.90s: %s, %v", body, rec.Body, err)
		}
	}
	if all, err := a.m.records(); err != nil || len(all) != 0 {
		t.Errorf("%d records, %v", len(all), err)
	}
}

// FuzzMove gives a server requests about migrations of a peer that lies.
func FuzzMove(f *testing.F) {
	w := newWorld(f, 8, "a", "b")
	a, from := w.servers[0], ID(w.servers[1].id).String()
	for _, op := range []string{"offer", "round", "take", "keep", "end"} {
		f.Add([]byte(`{"op":"` + op + `","pair":"00000000000000000000000000000001","from":"` + from + `","name":"n","volume":"v","to":"x","identity":"00000000000000000000000000000002","luns":[{"target":"iqn","lun":0,"block_length":512}],"epoch":1,"turn":1,"point":"00000000000000000000000000000003","units":[{"key":"k","value":"a2VwdA=="}]}`))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		w.t = t
		rec := httptest.NewRecorder()
		a.m.MoveHandler().ServeHTTP(rec, httptest.NewRequest("POST", MovePath, bytes.NewReader(body)))
		if !json.Valid(rec.Body.Bytes()) {
			t.Fatalf("%s", rec.Body)
		}
		if have, named := a.pins(); have != named {
			t.Fatalf("%d snapshots, %d in records", have, named)
		}
		all, err := a.m.records()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if r.Role != Replica {
				t.Fatalf("a peer that lies has made this side %s", r.Role)
			}
		}
	})
}
