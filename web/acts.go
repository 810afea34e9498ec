package web

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"odx/admin"
	"odx/api"
	"odx/audit"
	"odx/blockdev"
	"odx/conf"
	"odx/tokens"
)

// auditPatience bounds how long an answer waits for its line in the audit file.
const auditPatience = time.Second

// act is something that a user can do: the form of a view leads to a page that asks whether
// to do it, and the form of that page does it.
type act struct {
	name, title string
	// view is the path to which its user returns.
	view string
	role conf.Role
	// what is audit.Change.What; "" where admin.Live records it.
	what string
	// fields are what it needs.
	fields []field
	// warning says what else it means, "" for nothing.
	warning string
	do      func(ctx context.Context, p *page, v url.Values) (change, error)
}

// field is a field of a form.
type field struct{ name, label string }

// change is what an act has changed, for the audit log: subject is set before it is.
type change struct {
	subject       string
	before, after any
}

var (
	ofVolume = field{"volume", "Volume"}
	newName  = field{"name", "Name"}
	ofSize   = field{"size", "Size"}
)

// acts are all of them.
func acts() []act {
	const volumes, luns = api.PagePath + "volumes", api.PagePath + "luns"
	return []act{
		{"create", "Create a volume", volumes, conf.RoleOperate, "volume create", []field{newName, ofSize}, "", create},
		{"snapshot", "Make a snapshot", volumes, conf.RoleOperate, "volume snapshot", []field{ofVolume, newName}, "", derive(admin.Administrator.SnapshotVolume)},
		{"clone", "Clone a volume", volumes, conf.RoleOperate, "volume clone", []field{ofVolume, newName}, "", derive(admin.Administrator.CloneVolume)},
		{"grow", "Grow a volume", volumes, conf.RoleOperate, "volume resize", []field{ofVolume, ofSize}, "A volume cannot be made smaller again.", grow},
		{"revert", "Revert a volume", volumes, conf.RoleAdminister, "volume revert", []field{{"snapshot", "Snapshot"}},
			"What was written to the volume since then is lost, unless a snapshot has it. It is refused while initiators are logged in to the volume.", revert},
		{"map", "Map a volume to a target", luns, conf.RoleAdminister, "", []field{{"target", "Target"}, {"lun", "LUN"}, ofVolume},
			"The configuration file changes, and initiators that may use the target see the LUN at once.", mapLUN},
		{"revoke", "Revoke a token", api.PagePath + "tokens", conf.RoleOperate, "token revoke", []field{{"token", "Token"}},
			"Copies with the token fail; a client then copies by reading and writing, or reports an error.", revoke},
		{"end", "End a session", api.PagePath + "sessions", conf.RoleOperate, "", []field{{"tsih", "Session"}},
			"The initiator is asked to log out. Most initiators log in again at once.", end},
	}
}

// confirmation is what the page that asks shows.
type confirmation struct {
	Name, Title, Warning, Back string
	Fields                     []filled
	// Problem is why it was not done; "" before it was tried.
	Problem string
}

// filled is a field with what the user gave.
type filled struct{ Name, Label, Value string }

func (a *act) asked(v url.Values, problem string) confirmation {
	c := confirmation{Name: a.name, Title: a.title, Warning: a.warning, Back: a.view, Problem: problem}
	for _, f := range a.fields {
		c.Fields = append(c.Fields, filled{f.name, f.label, v.Get(f.name)})
	}
	return c
}

// confirm returns the handler of the page that asks.
func (p *page) confirm(a act) handler {
	return func(w http.ResponseWriter, r *http.Request, u *user) {
		if !p.may(w, u, &a) {
			return
		}
		p.show(w, http.StatusOK, "confirm", frame{Title: a.title, User: u, Data: a.asked(r.URL.Query(), "")})
	}
}

// may reports whether a user may act so; otherwise it answers.
func (p *page) may(w http.ResponseWriter, u *user, a *act) bool {
	if u.May(a.role) {
		return true
	}
	p.fail(w, http.StatusForbidden, fmt.Sprintf("The secret %s has the role %s; this needs %s.", u.Name, u.Role, a.role), u)
	return false
}

// perform returns the handler of the form that acts.
func (p *page) perform(a act) handler {
	return func(w http.ResponseWriter, r *http.Request, u *user) {
		if !p.may(w, u, &a) {
			return
		}
		// It goes on when the browser disconnects: it may have changed something already.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), patience)
		defer cancel()
		done, err := a.do(ctx, p, r.PostForm)
		p.record(ctx, &a, done, err)
		if err != nil {
			p.show(w, api.StatusOf(err), "confirm", frame{Title: a.title, User: u, Data: a.asked(r.PostForm, sentence(err))})
			return
		}
		p.measured.forget(ctx)
		p.sessions.say(cookieOf(r), a.title+": done, "+done.subject+".")
		http.Redirect(w, r, a.view, http.StatusSeeOther)
	}
}

// record records an act. One that failed before its subject was known has changed nothing.
func (p *page) record(ctx context.Context, a *act, done change, err error) {
	if done.subject == "" {
		return
	}
	if a.what != "" {
		p.Audit.Record(ctx, audit.Change{What: a.what, Subject: done.subject, Before: done.before, After: done.after, Err: err})
	}
	ctx, cancel := context.WithTimeout(ctx, auditPatience)
	defer cancel()
	p.Audit.Sync(ctx)
}

func create(ctx context.Context, p *page, v url.Values) (c change, err error) {
	size, err := sizeOf(v)
	if err != nil {
		return c, err
	}
	c.subject = "volume " + v.Get("name")
	made, err := p.Administrator.CreateVolume(ctx, v.Get("name"), size)
	return c.madeOf(made, err)
}

// derive returns the act that makes a volume of another one.
func derive(make func(a admin.Administrator, ctx context.Context, src, name string) (admin.Volume, error)) func(context.Context, *page, url.Values) (change, error) {
	return func(ctx context.Context, p *page, v url.Values) (c change, err error) {
		c.subject = "volume " + v.Get("name")
		made, err := make(p.Administrator, ctx, v.Get("volume"), v.Get("name"))
		return c.madeOf(made, err)
	}
}

func grow(ctx context.Context, p *page, v url.Values) (c change, err error) {
	size, err := sizeOf(v)
	if err != nil {
		return c, err
	}
	c.subject, c.before = "volume "+v.Get("volume"), p.described(ctx, v.Get("volume"))
	grown, err := p.Administrator.ResizeVolume(ctx, v.Get("volume"), size)
	return c.madeOf(grown, err)
}

func revert(ctx context.Context, p *page, v url.Values) (c change, err error) {
	all, err := p.Administrator.Volumes(ctx)
	if err != nil {
		return c, err
	}
	snapshot := v.Get("snapshot")
	origin := ""
	if i := slices.IndexFunc(all, func(v admin.Volume) bool { return v.Name == snapshot }); i >= 0 {
		origin = all[i].Origin
	}
	c.subject, c.before = fmt.Sprintf("volume %s to %s", origin, snapshot), p.described(ctx, origin)
	reverted, err := p.Administrator.RevertVolume(ctx, admin.RevertRequest{Snapshot: snapshot, Volume: origin})
	return c.madeOf(reverted, err)
}

func mapLUN(ctx context.Context, p *page, v url.Values) (c change, err error) {
	number, err := numberOf(v, "lun")
	if err != nil {
		return c, err
	}
	if err := conf.CheckVolumeName(v.Get("volume")); err != nil {
		return c, fmt.Errorf("%w: %w", blockdev.ErrInvalid, err)
	}
	c.subject = fmt.Sprintf("LUN %d of target %s", number, v.Get("target"))
	lun := conf.LUN{Number: number, Volume: v.Get("volume"), BlockSize: defaultBlock}
	_, err = p.Live.EditConfig(ctx, conf.AddLUN{Target: v.Get("target"), LUN: lun})
	return c, err
}

// defaultBlock is the block size of a LUN, in bytes, that the API has by default, too.
const defaultBlock = 512

func revoke(ctx context.Context, p *page, v url.Values) (c change, err error) {
	id, err := tokens.ParseID(v.Get("token"))
	if err != nil {
		return c, fmt.Errorf("%w: %w", blockdev.ErrInvalid, err)
	}
	c.subject = "token " + id.String()
	if info, err := p.Administrator.Token(ctx, id); err == nil {
		c.before = api.TokenInfoV1(info)
	}
	return c, p.Administrator.DeleteToken(ctx, id)
}

func end(ctx context.Context, p *page, v url.Values) (c change, err error) {
	tsih, err := numberOf(v, "tsih")
	if err != nil {
		return c, err
	}
	c.subject = fmt.Sprintf("session %d", tsih)
	return c, p.Live.EndSession(ctx, tsih)
}

// madeOf adds the volume that an act has made, or changed.
func (c change) madeOf(v admin.Volume, err error) (change, error) {
	if err == nil {
		c.after = api.VolumeV1(v)
	}
	return c, err
}

// described describes a volume as it is; nil if there is none.
func (p *page) described(ctx context.Context, name string) any {
	all, err := p.Administrator.Volumes(ctx)
	if err != nil {
		return nil
	}
	if i := slices.IndexFunc(all, func(v admin.Volume) bool { return v.Name == name }); i >= 0 {
		return api.VolumeV1(all[i])
	}
	return nil
}

func sizeOf(v url.Values) (int64, error) {
	size, err := conf.ParseSize(v.Get("size"))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", blockdev.ErrInvalid, err)
	}
	return size, nil
}

func numberOf(v url.Values, key string) (uint16, error) {
	n, err := strconv.ParseUint(cmp.Or(v.Get(key), "none"), 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%w: %s is %q; use a number from 0 to 65535", blockdev.ErrInvalid, key, v.Get(key))
	}
	return uint16(n), nil
}
