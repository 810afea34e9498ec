package web

import (
	"context"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"odx/admin"
	"odx/conf"
)

// withSession is a live server with one session, which can be ended.
type withSession struct {
	admin.Live
	ended []uint16
}

func (l *withSession) Sessions(context.Context) ([]admin.Session, error) {
	return []admin.Session{{Initiator: "iqn.2026-11.example:host", TSIH: 7}}, nil
}

func (l *withSession) EndSession(_ context.Context, tsih uint16) error {
	if tsih != 7 {
		return admin.ErrNoSession
	}
	l.ended = append(l.ended, tsih)
	return nil
}

// TestPage_Acts: each act asks, and then acts, in the name of the secret; what fails says
// why, and changes nothing.
func TestPage_Acts(t *testing.T) {
	var live *withSession
	f := serve(t, func(o *Options) {
		live = &withSession{Live: o.Live}
		o.Live = live
	})
	b := f.as(t, conf.RoleAdminister)
	token, err := f.service.Admin().CreateToken(t.Context(), admin.TokenRequest{Volume: "src", Length: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	volumes := func(want ...string) func(t *testing.T) {
		return func(t *testing.T) {
			if got := f.volumes(t); !slices.Equal(got, want) {
				t.Errorf("volumes %v, want %v", got, want)
			}
		}
	}
	for _, c := range []struct {
		name, act string
		form      url.Values
		status    int
		audit     string // the subject; "" for no line
		check     func(t *testing.T)
	}{
		{"create", "create", url.Values{"name": {"new"}, "size": {"1MiB"}}, 303, "volume new", volumes("new", "src")},
		{"create twice", "create", url.Values{"name": {"new"}, "size": {"1MiB"}}, 409, "volume new", volumes("new", "src")},
		{"create of no size", "create", url.Values{"name": {"more"}, "size": {"10GB"}}, 400, "", volumes("new", "src")},
		{"create of no name", "create", url.Values{"name": {"../x"}, "size": {"1MiB"}}, 400, "volume ../x", volumes("new", "src")},
		{"snapshot", "snapshot", url.Values{"volume": {"new"}, "name": {"before"}}, 303, "volume before", volumes("before", "new", "src")},
		{"clone", "clone", url.Values{"volume": {"new"}, "name": {"twin"}}, 303, "volume twin", volumes("before", "new", "src", "twin")},
		{"clone of none", "clone", url.Values{"volume": {"none"}, "name": {"third"}}, 404, "volume third", volumes("before", "new", "src", "twin")},
		{"grow", "grow", url.Values{"volume": {"new"}, "size": {"2MiB"}}, 303, "volume new", f.sizeIs("new", 2<<20)},
		{"grow smaller", "grow", url.Values{"volume": {"new"}, "size": {"1MiB"}}, 400, "volume new", f.sizeIs("new", 2<<20)},
		{"revert", "revert", url.Values{"snapshot": {"before"}}, 303, "volume new to before", f.sizeIs("new", 1<<20)},
		{"revert to none", "revert", url.Values{"snapshot": {"none"}}, 404, "volume  to none", nil},
		{"map", "map", url.Values{"target": {testTarget}, "lun": {"5"}, "volume": {"twin"}}, 303, "targets[" + testTarget + "].luns[5]", nil},
		{"map twice", "map", url.Values{"target": {testTarget}, "lun": {"5"}, "volume": {"twin"}}, 409, "", nil},
		{"map of no number", "map", url.Values{"target": {testTarget}, "lun": {"65536"}, "volume": {"twin"}}, 400, "", nil},
		{"revoke", "revoke", url.Values{"token": {token.ID.String()}}, 303, "token " + token.ID.String(), nil},
		{"revoke none", "revoke", url.Values{"token": {hex.EncodeToString([]byte("12345678"))}}, 404, "", nil},
		{"revoke no token", "revoke", url.Values{"token": {"x"}}, 400, "", nil},
		{"end", "end", url.Values{"tsih": {"7"}}, 303, "", func(t *testing.T) {
			if !slices.Equal(live.ended, []uint16{7}) {
				t.Errorf("ended %v", live.ended)
			}
		}},
		{"end none", "end", url.Values{"tsih": {"8"}}, 404, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := b.get("/ui/act/" + c.act + "?" + c.form.Encode())
			if asked.status != http.StatusOK || !strings.Contains(asked.body, `id="confirm"`) {
				t.Fatalf("asked: %d", asked.status)
			}
			a := b.act(c.act, c.form)
			if a.status != c.status {
				t.Fatalf("%d, want %d: %s", a.status, c.status, a.body)
			}
			if c.status != http.StatusSeeOther && !strings.Contains(a.body, "Not done: ") {
				t.Errorf("no cause: %s", a.body)
			}
			if c.status == http.StatusSeeOther {
				if after := b.get(a.header.Get("Location")); !strings.Contains(after.body, `class="said"`) {
					t.Error("the view says nothing of the act")
				}
			}
			if c.audit != "" {
				l := f.service.Audit().Recent()[0]
				if !strings.HasPrefix(l.Subject, c.audit) || l.By != "secret my-administer from 127.0.0.1" || (l.Error != "") != (c.status != 303) {
					t.Errorf("audit: %+v", l)
				}
			}
			if c.check != nil {
				c.check(t)
			}
		})
	}
}

func (f *fixture) sizeIs(name string, want int64) func(t *testing.T) {
	return func(t *testing.T) {
		t.Helper()
		all, err := f.service.Admin().Volumes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range all {
			if v.Name == name && v.SizeBytes != want {
				t.Errorf("%s has %d bytes, want %d", name, v.SizeBytes, want)
			}
		}
	}
}

// TestPage_Roles: who may not act is neither asked nor obeyed.
func TestPage_Roles(t *testing.T) {
	f := serve(t, nil)
	least := map[string]conf.Role{
		"create": conf.RoleOperate, "snapshot": conf.RoleOperate, "clone": conf.RoleOperate, "grow": conf.RoleOperate, "revoke": conf.RoleOperate, "end": conf.RoleOperate,
		"revert": conf.RoleAdminister, "map": conf.RoleAdminister,
	}
	rank := []conf.Role{conf.RoleRead, conf.RoleOperate, conf.RoleAdminister}
	for _, r := range rank {
		b := f.as(t, r)
		for _, a := range acts() {
			may := slices.Index(rank, r) >= slices.Index(rank, least[a.name])
			if least[a.name] == "" {
				t.Fatalf("%s: no role is expected", a.name)
			}
			asked, done := b.get("/ui/act/"+a.name), b.act(a.name, url.Values{})
			if (asked.status != http.StatusForbidden) != may || (done.status != http.StatusForbidden) != may {
				t.Errorf("%s as %s: %d and %d", a.name, r, asked.status, done.status)
			}
		}
		forms := strings.Count(b.get("/ui/volumes").body, `action="/ui/act/`) + strings.Count(b.get("/ui/luns").body, `action="/ui/act/`)
		if want := []int{0, 4, 6}[slices.Index(rank, r)]; forms != want {
			t.Errorf("%s sees %d forms, want %d", r, forms, want)
		}
	}
}
