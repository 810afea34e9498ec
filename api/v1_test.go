package api

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	"odx/internal/kit/fields"
	"odx/internal/kit/must"
	"odx/tokens"
)

// sure is the inverse of a conversion that fails for what no server sends.
func sure[W, T any](t *testing.T, convert func(W) (T, error)) func(W) T {
	return func(w W) T {
		result, err := convert(w)
		if err != nil {
			t.Error(err)
		}
		return result
	}
}

// TestConversions takes everything that an Administrator takes or returns, with
// something in each field and with nothing, to JSON and back: no field is forgotten.
func TestConversions(t *testing.T) {
	t.Run("Volume", there(VolumeV1, volumeOf))
	t.Run("File", there(FileV1, fileOf))
	t.Run("FileStart", there(fileStartV1, func(r v1.StartFile) admin.FileStart { return fileStartOf(r, "") }))
	t.Run("FileFinish", there(fileFinishV1, func(r v1.FinishFile) admin.FileFinish { return fileFinishOf(r, "") }))
	t.Run("Disk", there(DiskV1, diskOf))
	t.Run("DiskCheck", there(DiskCheckV1, diskCheckOf))
	t.Run("DiskRequest", there(diskRequestV1, diskRequestOf))
	t.Run("DiskProgress", there(diskProgressV1, diskProgressOf))
	t.Run("DiskResult", there(DiskResultV1, diskResultOf))
	t.Run("TokenRequest", there(tokenRequestV1, tokenRequestOf))
	t.Run("TokenInfo", there(TokenInfoV1, sure(t, tokenInfoOf)))
	t.Run("MadeToken", there(MadeTokenV1, sure(t, madeTokenOf)))
	t.Run("TokenWrite", there(tokenWriteV1, tokenWriteOf))
	t.Run("TokenWritten", there(TokenWrittenV1, tokenWrittenOf))
	t.Run("TokenVerified", there(TokenVerifiedV1, tokenVerifiedOf))
	t.Run("CopyStats", there(CopyStatsV1, sure(t, copyStatsOf)))
	t.Run("Status", there(StatusV1, statusOf))
	t.Run("Store", there(StoreV1, storeOf))
	t.Run("CheckResult", there(CheckResultV1, checkResultOf))
	t.Run("CleanResult", there(CleanResultV1, cleanResultOf))
	t.Run("ScrubRequest", there(scrubRequestV1, scrubRequestOf))
	t.Run("ScrubProgress", there(scrubProgressV1, scrubProgressOf))
	t.Run("Reloaded", there(ReloadedV1, reloadedOf))
	t.Run("LUNStats", there(LUNStatsV1, lunStatsOf))
	t.Run("Problem", there(problemV1, problemOf))
	t.Run("Access", there(accessV1, sure(t, accessOf)))
	t.Run("LUN", there(lunV1, lunOf))
	t.Run("Migration", there(MigrationV1, migrationOf))
	t.Run("MigrationRequest", there(migrationRequestV1, sure(t, migrationRequestOf)))
	t.Run("ScrubResult", there(ScrubResultV1, scrubResultOf))
	t.Run("Partial", there(PartialV1, partialOf))
}

// there takes a value to W, to JSON, and back.
func there[T, W any](to func(T) W, from func(W) T) func(t *testing.T) {
	return func(t *testing.T) {
		var v T
		for _, what := range []string{"nothing", "something"} {
			text, err := json.Marshal(to(v))
			if err != nil {
				t.Fatal(err)
			}
			var w W
			if err := json.Unmarshal(text, &w); err != nil {
				t.Fatal(err)
			}
			if back := from(w); !reflect.DeepEqual(back, v) {
				t.Errorf("%s comes back as\n%+v, was\n%+v\n%s", what, back, v, text)
			}
			fields.Fill(&v)
			hide(reflect.ValueOf(&v).Elem())
		}
	}
}

// hide empties what is not in the JSON: the name in the path of a request, and damage
// that StoreInfo has itself.
func hide(v reflect.Value) {
	switch v := v.Addr().Interface().(type) {
	case *admin.FileStart:
		v.Name = ""
	case *admin.FileFinish:
		v.Name = ""
	case *admin.MigrationRequest:
		if v.Login != nil { // a secret has one source, and neither has what only a configuration has
			v.Login = &conf.Login{User: conf.User{Name: "odx", Secret: conf.FileSecret("/s")}, Mutual: &conf.User{Name: "array", Secret: conf.EnvSecret("S")}}
		}
	case *conf.LUN:
		v.Key = ""                 // of the file
		v.ISCSI, v.Login = "", nil // TestConversions_ForeignLUN has them
	case *conf.Access:
		v.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	case *admin.StoreInfo:
		v.Stats.Damage, v.Stats.MoreDamage = nil, 0
	}
}

// TestConversions_ForeignLUN takes a LUN of another target to the JSON of a request and back; that
// of a response has no secret.
func TestConversions_ForeignLUN(t *testing.T) {
	want := conf.LUN{
		Number: 3, ISCSI: "iscsi://192.0.2.1:3260/iqn.2026-11.com.example:a/0", BlockSize: 512,
		Login: &conf.Login{
			User:   conf.User{Name: "odx", Secret: conf.FileSecret("/etc/odx.secret")},
			Mutual: &conf.User{Name: "array", Secret: conf.InlineSecret("a secret of it")},
		},
	}
	if got, err := newLUN(newLUNV1(want)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v comes back as %+v, %v", want, got, err)
	}
	shown, err := json.Marshal(lunV1(want))
	must.Succeed(t, err)
	if text := string(shown); !strings.Contains(text, `"login":{"name":"odx","mutual":{"name":"array"}}`) {
		t.Errorf("a response has %s", text)
	}
	for name, login := range map[string]*v1.Login{
		"no name":   {LoginUser: v1.LoginUser{SecretSource: v1.SecretSource{SecretFile: "f"}}},
		"no secret": {LoginUser: v1.LoginUser{Name: "odx"}},
		"two":       {LoginUser: v1.LoginUser{Name: "odx", SecretSource: v1.SecretSource{SecretFile: "f", SecretEnv: "E"}}},
		"no secret of the target": {
			LoginUser: v1.LoginUser{Name: "odx", SecretSource: v1.SecretSource{SecretFile: "f"}}, Mutual: &v1.LoginUser{Name: "array"},
		},
	} {
		if _, err := loginOf(login); !errors.Is(err, blockdev.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestConversions_OneWay holds the conversions that no client reverses.
func TestConversions_OneWay(t *testing.T) {
	if has, told := reflect.TypeFor[backstore.Repaired]().NumField(), reflect.TypeFor[v1.Repaired]().NumField(); has != told {
		t.Errorf("the JSON of a repair has %d of its %d fields", told, has)
	}
	var repaired backstore.Repaired
	fields.Fill(&repaired)
	for name, tt := range map[string]struct {
		json any
		want string
	}{
		"causes": {tokenStatsV1(tokens.Stats{CancelledFor: map[tokens.Cause]uint64{tokens.OutOfSpace: 2, tokens.DataGone: 3}}).CancelledFor,
			`{"data gone":3,"out of space":2}`},
		"no scrub":    {lastScrubV1(backstore.LastScrub{}).Version, `0`},
		"first scrub": {lastScrubV1(backstore.LastScrub{Since: time.Unix(1, 0)}).Version, `1`},
		"upgrade":     {UpgradedV1(backstore.Upgraded{From: 2, To: 3, Rows: 4}), `{"from":2,"to":3,"rows":4}`},
		"repair": {RepairedV1(repaired), `{"volumes":1,"snapshots":1,"records":1,"lost_bytes":1,"data_read":true,"lost":[{"what":"text","offset":1,"length":1,"reason":"text"}],"more_lost":1,` +
			`"unused":[{"first_lsn":1,"last_lsn":1,"records":1,"change":{"kind":"text","what":"text","offset":1,"length":1,"detail":"text"}}],"more_unused":1}`},
		"record of the journal": {
			DumpItemV1(backstore.DumpItem{Part: "journal", Key: "7", Value: map[string]any{"kind": "write", "changes": []backstore.Change{{Kind: "write", What: "volume v", Length: 4096}}}}),
			`{"part":"journal","key":"7","value":{"changes":[{"kind":"write","what":"volume v","length":4096}],"kind":"write"}}`,
		},
		"damaged row": {DumpItemV1(backstore.DumpItem{Part: "nodes", Key: "n1", Error: "torn"}), `{"part":"nodes","key":"n1","error":"torn"}`},
	} {
		t.Run(name, func(t *testing.T) {
			if text, err := json.Marshal(tt.json); err != nil || string(text) != tt.want {
				t.Errorf("%s, %v\nwant %s", text, err, tt.want)
			}
		})
	}
}

// TestConversions_Unknown: what a server of another version says of tokens and is not
// known here is an error, not something else.
func TestConversions_Unknown(t *testing.T) {
	if _, err := copyStatsOf(v1.CopyStats{Tokens: v1.TokenStats{CancelledFor: map[string]uint64{"boredom": 1}}}); err == nil {
		t.Error("a cause that is not known was taken")
	}
	if _, err := tokenInfosOf([]v1.TokenInfo{{ID: "7"}}); err == nil {
		t.Error("an identifier of one digit was taken")
	}
}
