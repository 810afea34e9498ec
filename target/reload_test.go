package target

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"odx/admin"
	"odx/conf"
	client "odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// reloaded is a service whose configuration file changes.
type reloaded struct {
	*Service
	t    *testing.T
	file string
	log  *logs.Text
	last admin.Reloaded // of try
}

// serveFile starts a service of a configuration file with that text.
func serveFile(t *testing.T, text string) *reloaded {
	t.Helper()
	l := &reloaded{t: t, file: filepath.Join(t.TempDir(), "odx.yaml"), log: new(logs.Text)}
	l.write(text)
	cfg, err := conf.Load(l.file)
	must.Succeed(t, err)
	l.Service = startWith(t, cfg, l.log.Entry())
	return l
}

// write makes text the file.
func (l *reloaded) write(text string) {
	l.t.Helper()
	must.Succeed(l.t, os.WriteFile(l.file, []byte(text), 0o600))
}

// reload makes text the file and applies it.
func (l *reloaded) reload(text string) admin.Reloaded {
	l.t.Helper()
	l.write(text)
	r, err := l.Reload(l.t.Context())
	if err != nil {
		l.t.Fatalf("reload: %v", err)
	}
	return r
}

// refuses makes text the file, which must not be applied, for a reason with words.
func (l *reloaded) refuses(text string, words ...string) error {
	l.t.Helper()
	before := l.describe()
	l.write(text)
	_, err := l.Reload(l.t.Context())
	if err == nil {
		l.t.Fatalf("applied; want an error with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			l.t.Errorf("error %v, want one with %q", err, w)
		}
	}
	if after := l.describe(); after != before {
		l.t.Errorf("a refused reload has changed\n%s to\n%s", before, after)
	}
	return err
}

// describe returns what the service has, and what is in its store.
func (l *reloaded) describe() string {
	var b strings.Builder
	for _, lun := range l.LUNs() {
		lun.URLs = nil
		fmt.Fprintf(&b, "%+v\n", lun)
	}
	fmt.Fprintln(&b, "portals", l.Portals(), l.MissingPortals())
	for _, v := range append(l.store.Volumes(), l.store.Files()...) {
		fmt.Fprintln(&b, v, v.Size())
	}
	st := l.state.Load()
	for name, device := range st.devices {
		fmt.Fprintln(&b, name, device.LUNs())
	}
	text, err := st.cfg.Effective()
	must.Succeed(l.t, err)
	b.Write(text)
	return strings.Join(slices.Sorted(strings.SplitSeq(b.String(), "\n")), "\n")
}

const head = "data_dir: data\nportals: [\"127.0.0.1:0\"]\n"

// one is a target with LUN 0, and more LUNs.
func one(luns ...string) string {
	return head + "targets:\n  - name: iqn.2026-11.example.odx:disks\n    luns:\n      - {lun: 0, volume: src, size: 64MiB}\n" + lines(luns)
}

func lines(luns []string) (text string) {
	for _, l := range luns {
		text += "      - " + l + "\n"
	}
	return text
}

const second = "  - name: iqn.2026-11.example.odx:second\n    luns:\n      - {lun: 0, volume: other, size: 1MiB}\n"

// TestService_Reload_LUNs: a LUN comes and goes while a session of the same target goes on,
// which learns of it once.
func TestService_Reload_LUNs(t *testing.T) {
	s := serveFile(t, one())
	c := session(t, s.Service, "iqn.2026-11.example:host")
	defer c.Close()
	r := s.reload(one("{lun: 7, volume: new, size: 1MiB}"))
	want := admin.LUNName{Target: "iqn.2026-11.example.odx:disks", Number: 7, Medium: "volume new"}
	if !slices.Equal(r.Came, []admin.LUNName{want}) || len(r.Left) != 0 || r.LogoutsRequested != 0 {
		t.Errorf("reloaded %+v", r)
	}
	if got := attentions(t, c); !slices.Equal(got, []uint16{0x3F0E}) {
		t.Errorf("unit attentions %04x after a LUN came", got)
	}
	seventh := login(t, s.Service, 7)
	must.Succeed(t, seventh.WriteAt(t.Context(), random(1, 8192), 0))
	if got := attentions(t, c); len(got) != 0 {
		t.Errorf("unit attentions %04x after another session", got)
	}

	r = s.reload(one())
	if !slices.Equal(r.Left, []admin.LUNName{want}) || len(r.Came) != 0 || r.Aborted != 0 {
		t.Errorf("reloaded %+v", r)
	}
	if got := attentions(t, c); !slices.Equal(got, []uint16{0x3F0E}) {
		t.Errorf("unit attentions %04x after a LUN left", got)
	}
	if err := seventh.ReadAt(t.Context(), make([]byte, 4096), 0); err == nil {
		t.Error("a LUN that has left is read")
	}
	// The data stays, and comes back with the LUN.
	s.reload(one("{lun: 7, volume: new}"))
	back := login(t, s.Service, 7)
	if got := read(t, back, 0, 8192); string(got) != string(random(1, 8192)) {
		t.Error("the LUN came back with other data")
	}
	if names := scratchVolumes(s); len(names) != 0 {
		t.Errorf("volumes %v are left", names)
	}
}

func scratchVolumes(s *reloaded) (names []string) {
	for _, v := range s.store.Volumes() {
		if admin.IsScratchVolume(v.Name()) {
			names = append(names, v.Name())
		}
	}
	return names
}

// TestService_Reload_Replaced: a LUN that becomes another volume is announced at that LUN and
// at the others.
func TestService_Reload_Replaced(t *testing.T) {
	s := serveFile(t, one("{lun: 7, volume: a, size: 1MiB}"))
	zero, seven := dial(t, s.LUNs()[0].URLs[0], "iqn.2026-11.example:zero"), dial(t, s.LUNs()[1].URLs[0], "iqn.2026-11.example:seven")
	defer zero.Close()
	defer seven.Close()
	attentions(t, zero)
	attentions(t, seven)
	s.reload(one("{lun: 7, volume: b, size: 1MiB}"))
	if got := attentions(t, zero); !slices.Equal(got, []uint16{0x3F0E}) {
		t.Errorf("unit attentions %04x at LUN 0", got)
	}
	if got := attentions(t, seven); !slices.Contains(got, 0x3F03) {
		t.Errorf("unit attentions %04x at the LUN that is another volume", got)
	}
}

// TestService_Reload_Targets: targets and portals come and go; the sessions of one that goes
// end, the others stay.
func TestService_Reload_Targets(t *testing.T) {
	s := serveFile(t, one()+second)
	stays := session(t, s.Service, "iqn.2026-11.example:host")
	defer stays.Close()
	goes := dial(t, s.LUNs()[1].URLs[0], "iqn.2026-11.example:host")
	defer goes.Close()
	attentions(t, goes)
	port := freePort(t)
	r := s.reload(strings.Replace(one(), `"127.0.0.1:0"`, fmt.Sprintf(`"127.0.0.1:0", "127.0.0.1:%d"`, port), 1))
	if !slices.Equal(r.TargetsLeft, []string{"iqn.2026-11.example.odx:second"}) || r.LogoutsRequested != 1 {
		t.Errorf("reloaded %+v", r)
	}
	if got := attentions(t, stays); len(got) != 0 {
		t.Errorf("unit attentions %04x at a target that stays", got)
	}
	waitFor(t, "the session of the target that left ends", func() bool { return len(s.server.Sessions()) == 1 })
	if _, err := tryDial(t, fmt.Sprintf("iscsi://127.0.0.1:%d/iqn.2026-11.example.odx:second/0", port), "iqn.2026-11.example:host"); err == nil {
		t.Error("a login to a target that left succeeds")
	}
	c := dial(t, fmt.Sprintf("iscsi://127.0.0.1:%d/iqn.2026-11.example.odx:disks/0", port), "iqn.2026-11.example:other")
	attentions(t, c)
	r = s.reload(one() + second)
	if !slices.Equal(r.TargetsCame, []string{"iqn.2026-11.example.odx:second"}) || r.LogoutsRequested != 1 {
		t.Errorf("reloaded %+v", r)
	}
	c.Close()
	if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
		conn.Close()
		t.Error("a portal that left answers")
	}
	again := dial(t, s.LUNs()[1].URLs[0], "iqn.2026-11.example:host")
	defer again.Close()
	attentions(t, again)
}

// TestService_Reload_SharedLUN: a volume that is a LUN of two targets is served on when one of
// them goes, and has the ports of the other one only.
func TestService_Reload_SharedLUN(t *testing.T) {
	shared := "  - name: iqn.2026-11.example.odx:second\n    luns:\n      - {lun: 5, volume: src, size: 64MiB}\n"
	s := serveFile(t, one()+shared)
	c := session(t, s.Service, "iqn.2026-11.example:host")
	defer c.Close()
	both := len(portGroups(t, c))
	r := s.reload(one())
	if len(r.Left) != 1 || r.Aborted != 0 {
		t.Errorf("reloaded %+v", r)
	}
	attentions(t, c)
	if now := len(portGroups(t, c)); now >= both {
		t.Errorf("%d bytes of port groups, %d with the other target", now, both)
	}
	s.reload(one() + shared)
	attentions(t, c)
	if now := len(portGroups(t, c)); now != both {
		t.Errorf("%d bytes of port groups after the target came back, want %d", now, both)
	}
}

// TestService_Reload_Refused: a configuration that cannot be applied as it is changes
// nothing.
func TestService_Reload_Refused(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	defer taken.Close()
	s := serveFile(t, one("{lun: 7, volume: a, size: 1MiB}"))
	must.Succeed(t, createVolume(s, "free", 1<<20))
	var problems conf.Problems
	var problem conf.Problem
	var restart *admin.NeedsRestartError
	for name, c := range map[string]struct {
		text  string
		words string
		as    any
	}{
		"a mistake":                 {one("{lun: 0, volume: b}"), ":7: targets[0].luns[1].lun: duplicate LUN 0", &problems},
		"no YAML":                   {"data_dir: [", "invalid YAML", &problems},
		"a portal":                  {strings.Replace(one("{lun: 8, volume: b, size: 1MiB}"), `"127.0.0.1:0"`, fmt.Sprintf(`"127.0.0.1:0", %q`, taken.Addr()), 1), "in use by another program", &problems},
		"another data_dir":          {strings.Replace(one(), "data_dir: data", "data_dir: other", 1), "data_dir", &restart},
		"another block size":        {one("{lun: 7, volume: a, size: 1MiB, block_size: 4096}"), "block_size", &restart},
		"... at another LUN":        {one("{lun: 9, volume: a, size: 1MiB, block_size: 4096}"), "remove the LUN with one reload", &restart},
		"a volume that is missing":  {one("{lun: 8, volume: b, size: 1MiB}", "{lun: 9, volume: c}"), "volume c does not exist", &problem},
		"a volume that is smaller":  {one("{lun: 8, volume: b, size: 1MiB}", "{lun: 9, volume: free, size: 2MiB}"), "has 1MiB, not 2MiB", &problem},
		"a size that is larger now": {one("{lun: 7, volume: a, size: 2MiB}"), "has 1MiB, not 2MiB", &problem},
		"a plain file":              {one("{lun: 8, volume: b, size: 1MiB}", "{lun: 9, backing: \"file:none.img\"}"), "does not exist", &problem},
		"a secret": {one("{lun: 8, volume: b, size: 1MiB}") + "    authentication: {users: [{name: u, secret_file: none.secret}]}\n",
			"none.secret", &problems},
		"a view over a LUN": {one("{lun: 8, view: v}") + "views:\n  - {name: v, cache: {of: a}}\n", "a is used by LUN 7", &problem},
		"a view of nothing": {one("{lun: 8, volume: b, size: 1MiB}", "{lun: 9, view: v}") + "views:\n  - {name: v, verify: {of: none}}\n", "none does not exist", &problem},
		"a redirect to itself": {one() + "  - name: iqn.2026-11.example.odx:moved\n    redirect: {to: \"" + s.Portals()[0] + "\"}\n",
			"is a portal of this server", &problems},
		"too much memory": {one("{lun: 8, view: v}") + "views:\n  - {name: v, cache: {of: free, memory: 2GiB}}\nmemory: 4GiB\n", "memory", &restart},
		"a cache":         {one("{lun: 8, view: v}") + "views:\n  - {name: v, cache: {of: free, memory: 700MiB}}\n", "restart odx serve", &problem},
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			if err := s.refuses(c.text, c.words); !errors.As(err, c.as) {
				t.Errorf("a %T: %v", err, err)
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(s.file), "none.img")); err == nil {
				t.Error("a plain file is left")
			}
			text, err := os.ReadFile(s.file)
			must.Succeed(t, err)
			s.write(one("{lun: 7, volume: a, size: 1MiB}"))
			if _, err := s.PutConfig(t.Context(), text, ""); err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("as text: %v", err)
			}
			if now, err := os.ReadFile(s.file); err != nil || string(now) != one("{lun: 7, volume: a, size: 1MiB}") {
				t.Errorf("the file became %s", now)
			}
		})
	}
	s.t = t
	s.reload(one("{lun: 7, volume: a, size: 1MiB}", "{lun: 8, volume: b, size: 1MiB}"))
}

func createVolume(s *reloaded, name string, size int64) error {
	_, err := s.store.CreateVolume(s.t.Context(), name, size)
	return err
}

// TestService_Reload_Repaired: a LUN that was left out is served when what it lacked is
// there, and is no obstacle to a reload until then.
func TestService_Reload_Repaired(t *testing.T) {
	text := one("{lun: 7, volume: missing}")
	s := serveFile(t, text)
	if got := problems(s.Service); len(got) != 1 {
		t.Fatalf("left out: %q", got)
	}
	s.reload(text + second)
	if got := problems(s.Service); len(got) != 1 {
		t.Errorf("left out after a reload: %q", got)
	}
	must.Succeed(t, createVolume(s, "missing", 1<<20))
	r := s.reload(text + second)
	if got := problems(s.Service); len(got) != 0 || len(r.Came) != 1 {
		t.Errorf("left out: %q, reloaded %+v", got, r)
	}
}

// TestService_Reload_Views: views come and go with what is below them; what only they need
// goes too.
func TestService_Reload_Views(t *testing.T) {
	s := serveFile(t, one())
	views := "views:\n" +
		"  - {name: m, mirror: {legs: [m0, \"backing:m1.img\"]}, size: 4MiB}\n" +
		"  - {name: v, verify: {of: m}}\n" +
		"  - {name: o, origin: {of: \"file:d.vhdx\"}, size: 8MiB}\n" +
		"  - {name: before, snapshot: {of: o}}\n"
	luns := []string{"{lun: 1, view: v}", "{lun: 2, view: o}", "{lun: 3, view: before, read_only: true}"}
	s.reload(one(luns...) + views)
	d := login(t, s.Service, 1)
	must.Succeed(t, d.WriteAt(t.Context(), random(3, 4096), 4096))
	if user := s.users.of("d.vhdx"); user != "view o" {
		t.Errorf("the file is used by %q", user)
	}
	if err := s.admin.DeleteVolume(t.Context(), "m0"); !errors.Is(err, admin.ErrInUse) {
		t.Errorf("deletion of a leg: %v", err)
	}
	// The snapshot leaves; the origin below it stays as it is.
	open := s.state.Load().views.devices["o"]
	s.reload(one(luns[:2]...) + strings.ReplaceAll(views, "  - {name: before, snapshot: {of: o}}\n", ""))
	if s.state.Load().views.devices["o"] != open {
		t.Error("a view that stays was opened again")
	}
	if got := read(t, login(t, s.Service, 1), 4096, 4096); string(got) != string(random(3, 4096)) {
		t.Error("a view that stays has other data")
	}
	s.reload(one())
	if user := s.users.of("d.vhdx"); user != "" {
		t.Errorf("the file is still used by %q", user)
	}
	var hidden []string
	for _, v := range s.store.Volumes() {
		if strings.HasPrefix(v.Name(), ".view-") {
			hidden = append(hidden, v.Name())
		}
	}
	if len(hidden) != 0 || len(s.state.Load().views.closers) != 0 {
		t.Errorf("%v and %d views are left", hidden, len(s.state.Load().views.closers))
	}
	// With the same legs the mirror has its data.
	s.reload(one(luns[0]) + views[:strings.Index(views, "  - {name: o")])
	if got := read(t, login(t, s.Service, 1), 4096, 4096); string(got) != string(random(3, 4096)) {
		t.Error("the mirror came back with other data")
	}
	must.Succeed(t, s.admin.DeleteFile(t.Context(), "d.vhdx"))
}

// TestService_Reload_UndoesViews: of views that were opened for a configuration that cannot
// be applied nothing is left.
func TestService_Reload_UndoesViews(t *testing.T) {
	s := serveFile(t, one())
	dir := filepath.Dir(s.file)
	views := "views:\n" +
		"  - {name: m, mirror: {legs: [m0, \"backing:m1.img\"]}, size: 4MiB}\n" +
		"  - {name: v, verify: {of: m}}\n" +
		"  - {name: o, origin: {of: \"file:d.vhdx\"}, size: 8MiB}\n"
	s.refuses(one("{lun: 1, view: v}", "{lun: 2, view: o}", "{lun: 3, volume: none}")+views, "volume none does not exist")
	if _, err := os.Stat(filepath.Join(dir, "m1.img")); err == nil {
		t.Error("a plain file is left")
	}
	if err := s.store.ScanRecords([]byte("view/"), func(key, _ []byte) error { return fmt.Errorf("record %s is left", key) }); err != nil {
		t.Error(err)
	}
	s.reload(one("{lun: 1, view: v}", "{lun: 2, view: o}") + views)
}

// TestService_Reload_Access: who lost a right loses the session or the LUN, and a login
// after the reload sees the new state at once.
func TestService_Reload_Access(t *testing.T) {
	secret := "    authentication: {users: [{name: user, secret: %s, initiators: [\"iqn.2026-11.example:host\"]}]}\n"
	s := serveFile(t, one("{lun: 1, volume: b, size: 1MiB}")+fmt.Sprintf(secret, "first-secret-1"))
	dial := func(secret string) (*client.Session, error) {
		u, err := client.ParseURL(s.LUNs()[0].URLs[0])
		must.Succeed(t, err)
		u.Login = client.Credentials{User: "user", Password: secret}
		return client.Dial(t.Context(), client.Options{InitiatorName: "iqn.2026-11.example:host", URL: u})
	}
	c, err := dial("first-secret-1")
	must.Succeed(t, err)
	defer c.Close()
	attentions(t, c)
	r := s.reload(one("{lun: 1, volume: b, size: 1MiB}") + fmt.Sprintf(secret, "second-secret-2"))
	if len(r.Changes) != 1 || strings.Contains(fmt.Sprint(r.Changes), "second-secret") || r.LogoutsRequested != 0 {
		t.Errorf("reloaded %+v", r)
	}
	if _, err := dial("first-secret-1"); err == nil {
		t.Error("the old secret is accepted after the reload")
	}
	other, err := dial("second-secret-2")
	must.Succeed(t, err)
	other.Close()
	if got := attentions(t, c); len(got) != 0 {
		t.Errorf("unit attentions %04x after a change of a secret", got)
	}
	// A LUN map takes LUN 1 away.
	s.reload(one("{lun: 1, volume: b, size: 1MiB}") + fmt.Sprintf(secret, "second-secret-2") +
		"    access: [{initiators: [\"iqn.2026-11.example:host\"], luns: [{lun: 0}]}]\n")
	if got := attentions(t, c); !slices.Equal(got, []uint16{0x3F0E}) {
		t.Errorf("unit attentions %04x after a change of the LUN map", got)
	}
	// No entry is left for the initiator.
	r = s.reload(one("{lun: 1, volume: b, size: 1MiB}") + fmt.Sprintf(secret, "second-secret-2") +
		"    access: [{initiators: [\"iqn.2026-11.example:another\"]}]\n")
	if r.LogoutsRequested != 1 {
		t.Errorf("reloaded %+v", r)
	}
	waitFor(t, "the session without access ends", func() bool { return len(s.server.Sessions()) == 0 })
	if _, err := dial("second-secret-2"); err == nil {
		t.Error("a login without access succeeds")
	}
}

// TestService_Reload_SecretFile: a secret in a file is read again although the configuration
// is the same, and is a change.
func TestService_Reload_SecretFile(t *testing.T) {
	text := one() + "    authentication: {users: [{name: user, secret_file: user.secret}]}\n"
	dir := t.TempDir()
	must.Succeed(t, os.WriteFile(filepath.Join(dir, "user.secret"), []byte("first-secret-1\n"), 0o600))
	file := filepath.Join(dir, "odx.yaml")
	must.Succeed(t, os.WriteFile(file, []byte(text), 0o600))
	cfg, err := conf.Load(file)
	must.Succeed(t, err)
	s := start(t, cfg)
	if r, err := s.Reload(t.Context()); err != nil || len(r.Changes) != 0 {
		t.Errorf("reloaded %+v, %v", r, err)
	}
	must.Succeed(t, os.WriteFile(filepath.Join(dir, "user.secret"), []byte("second-secret-2\n"), 0o600))
	r, err := s.Reload(t.Context())
	must.Succeed(t, err)
	if len(r.Changes) != 1 || r.Changes[0].Key != "targets[iqn.2026-11.example.odx:disks].authentication.users[user].secret_file" {
		t.Errorf("reloaded %+v", r)
	}
}

// waitFor waits until something is so, for ten seconds at most.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("does not happen: %s", what)
		}
	}
}

// TestService_Reload_KeepsMirrors: a reload that opens a mirror and is refused then leaves what
// is known of its legs.
func TestService_Reload_KeepsMirrors(t *testing.T) {
	mirror := "views:\n  - {name: m, mirror: {legs: [m0, m1]}, size: 1MiB}\n"
	s := serveFile(t, one("{lun: 1, view: m}")+mirror)
	d := login(t, s.Service, 1)
	must.Succeed(t, d.WriteAt(t.Context(), random(1, 4096), 0))
	s.reload(one())
	records := func() (all string) {
		must.Succeed(t, s.store.ScanRecords([]byte("view/m/"), func(key, value []byte) error {
			all += string(key) + string(value)
			return nil
		}))
		return all
	}
	if before := records(); before == "" {
		t.Fatal("there is no record of the mirror")
	}
	s.refuses(one("{lun: 1, view: m}", "{lun: 2, volume: none}")+mirror, "volume none does not exist")
	if !strings.Contains(records(), "in_sync") {
		t.Errorf("the legs in sync are forgotten: %q", records())
	}
	s.reload(one("{lun: 1, view: m}") + mirror)
	if got := read(t, login(t, s.Service, 1), 0, 4096); string(got) != string(random(1, 4096)) {
		t.Error("the mirror has other data")
	}
}

// stalling is a connection to a portal over which a test lets only so many more bytes go.
type stalling struct {
	listener net.Listener
	left     atomic.Int64 // bytes to the portal
}

// stall returns the address of a connection to a portal.
func stall(t *testing.T, portal string) (*stalling, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	p := &stalling{listener: l}
	p.left.Store(1 << 40)
	var copying sync.WaitGroup
	copying.Go(func() {
		from, err := l.Accept()
		if err != nil {
			return
		}
		defer from.Close()
		to, err := net.Dial("tcp", portal)
		if err != nil {
			return
		}
		defer to.Close()
		copying.Go(func() { io.Copy(from, to); from.Close() })
		for b := make([]byte, 4096); ; {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			if p.left.Add(-int64(n)) < 0 {
				continue // they never arrive
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		copying.Wait()
	})
	return p, l.Addr().String()
}

// TestService_Reload_Stuck: a LUN leaves although a command of it does not end, which is
// aborted; another LUN of the same target goes on.
func TestService_Reload_Stuck(t *testing.T) {
	s := serveFile(t, one("{lun: 7, volume: new, size: 16MiB}"))
	s.leaveLimit = 100 * time.Millisecond
	other := session(t, s.Service, "iqn.2026-11.example:other")
	defer other.Close()
	p, address := stall(t, s.Portals()[0])
	d, err := client.Open(t.Context(), client.Options{
		InitiatorName: "iqn.2026-11.example:stuck", URL: client.URL{Address: address, Target: "iqn.2026-11.example.odx:disks", LUN: 7},
	})
	must.Succeed(t, err)
	defer d.Close()
	p.left.Store(64 << 10)
	written := make(chan error, 1)
	go func() { written <- d.WriteAt(t.Context(), make([]byte, 4<<20), 0) }()
	waitFor(t, "the command waits for its data", func() bool {
		for _, i := range s.server.Sessions() {
			if i.InitiatorName == "iqn.2026-11.example:stuck" && i.Commands > 0 {
				return true
			}
		}
		return false
	})
	r := s.reload(one())
	if len(r.Left) != 1 || r.Aborted != 1 || r.Took > 5*time.Second {
		t.Errorf("reloaded %+v", r)
	}
	p.listener.Close()
	if got := attentions(t, other); !slices.Equal(got, []uint16{0x3F0E}) {
		t.Errorf("unit attentions %04x", got)
	}
	// The volume is free: nothing has it open any more.
	must.Succeed(t, s.admin.DeleteVolume(t.Context(), "new"))
	d.Close()
	if err := <-written; err == nil {
		t.Error("the write whose data never came succeeded")
	}
}
