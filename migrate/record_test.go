package migrate

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/internal/kit/fields"
	"odx/replica/pair"
)

// A record is read as it was written; one that this program did not write is refused.
func TestRecord(t *testing.T) {
	var r record
	fields.Fill(&r)
	r.Version, r.ID, r.Identity, r.State, r.ToView = recordVersion, "0123", "00112233445566778899aabbccddeeff", admin.MigrationMoved, ""
	r.ToISCSI, r.Login = "", nil
	r.Began, r.Ended = time.Unix(1, 0).UTC(), time.Unix(2, 0).UTC()
	stored := r.encode()
	got, err := decode(stored.Key, stored.Value)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v, %v; want %+v", got, err, r)
	}
	foreign := r
	fields.Fill(&foreign.Login)
	foreign.ToISCSI, foreign.ToVolume, foreign.ToPeer, foreign.Pair = farURL, "", "", pair.ID{}
	stored = foreign.encode()
	if got, err := decode(stored.Key, stored.Value); err != nil || !reflect.DeepEqual(got, foreign) {
		t.Errorf("%+v, %v; want %+v", got, err, foreign)
	}
	for name, change := range map[string]func(r *record, stored *backstore.Record){
		"no destination":   func(r *record, _ *backstore.Record) { r.ToVolume = "" },
		"a view of a peer": func(r *record, _ *backstore.Record) { r.ToVolume, r.ToView = "", "v" },
		"no pair":          func(r *record, _ *backstore.Record) { r.Pair = pair.ID{} },
		"no peer":          func(r *record, _ *backstore.Record) { r.ToPeer = "" },
		"negative":         func(r *record, _ *backstore.Record) { r.Done = -1 },
		"a login":          func(r *record, _ *backstore.Record) { r.Login = foreign.Login },
		"a LUN and a peer": func(r *record, _ *backstore.Record) { r.ToVolume, r.ToISCSI = "", farURL },
		"no LUN": func(r *record, _ *backstore.Record) {
			*r = foreign
			r.ToISCSI = "iscsi://Array/iqn.2026-11.com.example:array/0"
		},
		"two destinations": func(r *record, _ *backstore.Record) { r.ToView = "v" },
		"state":            func(r *record, _ *backstore.Record) { r.State = "unknown" },
		"identity":         func(r *record, _ *backstore.Record) { r.Identity = "none" },
		"of another":       func(_ *record, stored *backstore.Record) { stored.Key = append(stored.Key, 'x') },
		"torn":             func(_ *record, stored *backstore.Record) { stored.Value = stored.Value[:len(stored.Value)*9/10] },
		"later version": func(_ *record, stored *backstore.Record) {
			stored.Value = bytes.Replace(stored.Value, []byte(`"version":1`), []byte(`"version":2`), 1)
		},
	} {
		bad := r
		change(&bad, &backstore.Record{})
		stored := bad.encode()
		change(new(record), &stored)
		if got, err := decode(stored.Key, stored.Value); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

// FuzzDecode reads anything as a record; what is one is read the same again.
func FuzzDecode(f *testing.F) {
	r := record{Volume: "a", ID: "01", ToVolume: "b", Identity: "00112233445566778899aabbccddeeff", State: admin.MigrationCopying}
	stored := r.encode()
	f.Add(stored.Key, stored.Value)
	f.Add([]byte("migrate/"), []byte("{}"))
	r.ToVolume, r.ToISCSI, r.Login = "", farURL, &loginRecord{userRecord{"odx", "/s", ""}, &userRecord{"array", "", "S"}}
	stored = r.encode()
	f.Add(stored.Key, stored.Value)
	f.Fuzz(func(t *testing.T, key, value []byte) {
		r, err := decode(key, value)
		if err != nil {
			return
		}
		again := r.encode()
		if got, err := decode(again.Key, again.Value); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v is read as %+v, %v", r, got, err)
		}
	})
}
