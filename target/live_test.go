package target

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"odx/admin"
	"odx/audit"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	client "odx/initiator"
	"odx/internal/kit/must"
)

// TestService_EditConfig: an edit becomes the file, with its comments, and is applied; a file
// that has changed in the meantime counts as it is.
func TestService_EditConfig(t *testing.T) {
	s := serveFile(t, one("# a comment\n      - {lun: 5, volume: five, size: 1MiB}"))
	r, err := s.EditConfig(t.Context(), conf.AddLUN{Target: "iqn.2026-11.example.odx:disks", LUN: conf.LUN{Number: 7, Volume: "new", Size: 1 << 20, BlockSize: 512}})
	must.Succeed(t, err)
	if len(r.Came) != 1 || len(r.Changes) == 0 {
		t.Errorf("reloaded %+v", r)
	}
	text, err := os.ReadFile(s.file)
	must.Succeed(t, err)
	if !strings.Contains(string(text), "# a comment") || !strings.Contains(string(text), "new") {
		t.Errorf("the file is\n%s", text)
	}
	login(t, s.Service, 7)
	if changes, err := s.CompareConfig(t.Context(), text); err != nil || len(changes) != 0 {
		t.Errorf("compared with the file: %v, %v", changes, err)
	}
	if shown, err := s.Config(t.Context()); err != nil || !strings.Contains(string(shown), "volume: new") {
		t.Errorf("configuration %s, %v", shown, err)
	}
	// In a directory that may not be written to, nothing changes.
	if os.Geteuid() == 0 {
		t.Log("root may write to every directory: ErrReadOnly is tested in package conf")
		return
	}
	must.Succeed(t, os.Chmod(filepath.Dir(s.file), 0o500))
	defer os.Chmod(filepath.Dir(s.file), 0o700)
	before := s.describe()
	_, err = s.EditConfig(t.Context(), conf.AddLUN{Target: "iqn.2026-11.example.odx:disks", LUN: conf.LUN{Number: 8, Volume: "eight", Size: 1 << 20, BlockSize: 512}})
	if !errors.Is(err, conf.ErrReadOnly) || s.describe() != before {
		t.Errorf("in a read-only directory: %v", err)
	}
}

// TestService_Reload_Ends: a service that stops or hands over refuses a reload, and does not
// lose one that waits.
func TestService_Reload_Ends(t *testing.T) {
	s := serveFile(t, one())
	release, err := s.HoldConfiguration(t.Context())
	must.Succeed(t, err)
	s.write(one("{lun: 7, volume: a, size: 1MiB}"))
	result := make(chan error, 1)
	go func() {
		_, err := s.Reload(t.Context())
		result <- err
	}()
	select {
	case err := <-result:
		t.Errorf("a reload while the configuration is held: %v", err)
	default:
	}
	release()
	must.Succeed(t, <-result)
	if n := len(s.LUNs()); n != 2 {
		t.Errorf("%d LUNs after the reload that waited", n)
	}
	_, err = s.HoldConfiguration(t.Context())
	must.Succeed(t, err)
	go func() {
		_, err := s.Reload(t.Context())
		result <- err
	}()
	s.changes.end()
	if err := <-result; !errors.Is(err, admin.ErrChanging) {
		t.Errorf("a reload of a service that ends: %v", err)
	}
	<-s.changes.slot
}

// TestService_Reload_Settings: settings apply to what is served already.
func TestService_Reload_Settings(t *testing.T) {
	s := serveFile(t, one())
	c := session(t, s.Service, "iqn.2026-11.example:host")
	defer c.Close()
	s.reload(strings.Replace(one(), "volume: src", "volume: src, read_only: true, dedup: false", 1) +
		"store: {soft_threshold: 50, clean_io_mib_per_s: 5, scrub_every: never}\ntokens: {max: 7, access: initiator}\n")
	if got := attentions(t, c); !slices.Contains(got, 0x2A01) {
		t.Errorf("unit attentions %04x", got)
	}
	if !s.LUNs()[0].ReadOnly || s.space.threshold.Load() != s.space.total/2 || s.tokens.Limits().Tokens != 7 {
		t.Errorf("LUN %+v, threshold %d of %d, %d tokens", s.LUNs()[0], s.space.threshold.Load(), s.space.total, s.tokens.Limits().Tokens)
	}
	s.reload(one())
	if s.LUNs()[0].ReadOnly || s.tokens.Limits().Tokens != 100_000 {
		t.Errorf("LUN %+v, %d tokens", s.LUNs()[0], s.tokens.Limits().Tokens)
	}
}

// TestService_Reload_Restart: after each reload a start with the file gives the same.
func TestService_Reload_Restart(t *testing.T) {
	s := serveFile(t, one())
	for _, text := range []string{one("{lun: 7, volume: a, size: 1MiB}"), one() + second, head + "targets:\n" + second} {
		s.reload(text)
		live := s.describe()
		stop(t, s.Service)
		cfg, err := conf.Load(s.file)
		must.Succeed(t, err)
		s.Service = start(t, cfg)
		if again := s.describe(); withoutPorts(again) != withoutPorts(live) {
			t.Errorf("after a restart\n%s\nwant\n%s", again, live)
		}
	}
}

// withoutPorts leaves out the addresses of portals with port 0.
func withoutPorts(text string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return strings.HasPrefix(l, "portals ") }), "\n")
}

// TestService_Reload_Sessions: with 1,000 sessions a reload that concerns each of them takes
// less than a second, and no lock that commands or logins wait for is held for more than a
// millisecond. The slowest of a few decides about neither: other work of the machine counts in
// both.
func TestService_Reload_Sessions(t *testing.T) {
	const sessions, rounds = 1000, 5
	s := serveFile(t, one())
	all := make([]*client.Session, sessions)
	url := s.LUNs()[0].URLs[0]
	var logins errgroup.Group
	logins.SetLimit(16)
	for i := range all {
		logins.Go(func() (err error) {
			all[i], err = tryDial(t, url, fmt.Sprintf("iqn.2026-11.example:host%d", i))
			return err
		})
	}
	must.Succeed(t, logins.Wait())
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	for _, c := range all {
		attentions(t, c)
	}
	var took, locked []time.Duration
	for range rounds {
		for _, luns := range [][]string{{"{lun: 7, volume: new, size: 1MiB}"}, nil} {
			r := s.reload(one(luns...))
			took, locked = append(took, r.Took), append(locked, r.LockedFor)
			if r.LogoutsRequested != 0 {
				t.Fatalf("%d sessions were asked to log out", r.LogoutsRequested)
			}
		}
		for _, c := range all[:50] {
			if got := attentions(t, c); !slices.Equal(got, []uint16{0x3F0E}) {
				t.Fatalf("unit attentions %04x", got)
			}
		}
	}
	slices.Sort(took)
	slices.Sort(locked)
	t.Logf("median %v, longest %v; locks: median %v, longest %v", took[rounds], took[2*rounds-1], locked[rounds], locked[2*rounds-1])
	// The shortest, which other work on the machine does not change: what is bounded is how
	// much a reload does, not how often it is interrupted.
	if !raceDetector && (took[0] > time.Second || locked[0] > time.Millisecond) {
		t.Errorf("a reload takes %v, and holds a lock for %v", took[0], locked[0])
	}
}

// TestService_Reload_Limits: a limit applies to a LUN in use, and goes again.
func TestService_Reload_Limits(t *testing.T) {
	s := serveFile(t, one())
	d := login(t, s.Service, 0)
	reads := func() time.Duration {
		begin := time.Now()
		for range 20 {
			must.Succeed(t, d.ReadAt(t.Context(), make([]byte, 512), 0))
		}
		return time.Since(begin)
	}
	for _, text := range []string{
		strings.Replace(one(), "size: 64MiB", "size: 64MiB, qos: {iops: 20, iops_burst: 1}", 1),
		one() + "qos: {initiators: [{initiators: [\"iqn.2026-11.example:*\"], iops: 20, iops_burst: 1}]}\n",
		one() + "qos: {luns: [{target: \"iqn.2026-11.example.odx:disks\", lun: 0, initiators: [\"*\"], iops: 20, iops_burst: 1}]}\n",
	} {
		s.reload(text)
		if took := reads(); took < 800*time.Millisecond {
			t.Errorf("20 reads took %v at 20 a second:\n%s", took, text)
		}
		s.reload(one())
		if took := reads(); took > 800*time.Millisecond {
			t.Errorf("20 reads took %v without a limit", took)
		}
	}
	stats, err := s.LUNStats(t.Context())
	must.Succeed(t, err)
	if len(stats) != 1 || stats[0].Total.Read.Commands < 120 || stats[0].Total.Read.Bytes < 120*512 || len(stats[0].Initiators) != 1 {
		t.Errorf("counters %+v", stats)
	}
	sessions, err := s.Sessions(t.Context())
	must.Succeed(t, err)
	if len(sessions) != 1 || sessions[0].Portal != s.Portals()[0] || sessions[0].Negotiated["MaxBurstLength"] == "" || sessions[0].Total.Commands == 0 {
		t.Errorf("sessions %+v", sessions)
	}
	if err := s.EndSession(t.Context(), sessions[0].TSIH+1); !errors.Is(err, admin.ErrNoSession) {
		t.Errorf("end of a session that is not there: %v", err)
	}
	must.Succeed(t, s.EndSession(t.Context(), sessions[0].TSIH))
	waitFor(t, "the session ends", func() bool { return len(s.server.Sessions()) == 0 })
}

// TestService_Reload_Audit: each key that a reload changes is a line of the audit file, with who
// asked for it, and so are changes by initiators. A secret is in none.
func TestService_Reload_Audit(t *testing.T) {
	withFile := "audit: {file: audit.log}\n"
	s := serveFile(t, one()+withFile)
	actor := audit.With(t.Context(), audit.Signal("SIGHUP"))
	s.write(one("{lun: 7, volume: new, size: 1MiB}") +
		"    authentication: {required: false, users: [{name: u, secret: \"a-secret-of-u\", initiators: [\"iqn.2026-11.example:u\"]}]}\n" + withFile)
	_, err := s.Reload(actor)
	must.Succeed(t, err)
	s.write("data_dir: [")
	if _, err := s.Reload(actor); err == nil {
		t.Error("a file with a mistake is applied")
	}
	c := session(t, s.Service, "iqn.2026-11.example:host")
	defer c.Close()
	// PERSISTENT RESERVE OUT: REGISTER, then CLEAR.
	parameters := make([]byte, 24)
	copy(parameters[8:], "registrd")
	must.Succeed(t, run(t, c, []byte{0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0}, parameters))
	copy(parameters, "registrd")
	must.Succeed(t, run(t, c, []byte{0x5F, 3, 0, 0, 0, 0, 0, 0, 24, 0}, parameters)) // CLEAR
	s.audit.Sync(t.Context())
	text, err := os.ReadFile(filepath.Join(filepath.Dir(s.file), "audit.log"))
	must.Succeed(t, err)
	for _, want := range []string{
		`targets[iqn.2026-11.example.odx:disks].luns[7]`, "SIGHUP", "odx:disks].authentication", `"what":"reload"`, `"error":`,
		"iqn.2026-11.example:host", "volume src",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("nothing of %s in\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "a-secret-of-u") {
		t.Errorf("a secret in\n%s", text)
	}
}

// TestService_Revert: a LUN that an initiator is logged in to is reverted by force alone; the
// initiator learns that the medium and its capacity are others.
func TestService_Revert(t *testing.T) {
	s := serveFile(t, head+"targets:\n  - name: iqn.2026-11.example.odx:disks\n    luns: [{lun: 0, volume: src}]\n"+
		"  - {name: iqn.2026-11.example.odx:other, luns: [{lun: 0, volume: other, size: 1MiB}]}\n")
	ctx := t.Context()
	must.Succeed(t, createVolume(s, "src", 1<<20))
	_, err := s.Reload(ctx)
	must.Succeed(t, err)
	d := login(t, s.Service, 0)
	must.Succeed(t, d.WriteAt(ctx, random(1, 4096), 0))
	_, err = s.admin.SnapshotVolume(ctx, "src", "before")
	must.Succeed(t, err)
	must.Succeed(t, d.WriteAt(ctx, random(2, 4096), 0))
	_, err = s.admin.ResizeVolume(ctx, "src", 2<<20)
	must.Succeed(t, err)
	c := session(t, s.Service, "iqn.2026-11.example:other")
	defer c.Close()
	if _, err := s.admin.RevertVolume(ctx, admin.RevertRequest{Snapshot: "before"}); !errors.Is(err, admin.ErrLoggedIn) {
		t.Errorf("with initiators logged in: %v", err)
	}
	v, err := s.admin.RevertVolume(ctx, admin.RevertRequest{Snapshot: "before", Force: true})
	if err != nil || v.SizeBytes != 1<<20 || v.Name != "src" {
		t.Errorf("reverted %+v, %v", v, err)
	}
	if got := attentions(t, c); !slices.Contains(got, 0x2A09) || !slices.Contains(got, 0x2800) {
		t.Errorf("unit attentions %04x", got)
	}
	if got := read(t, login(t, s.Service, 0), 0, 4096); string(got) != string(random(1, 4096)) {
		t.Error("the LUN has other data than the snapshot")
	}
	for name, c := range map[string]struct {
		request admin.RevertRequest
		want    error
	}{
		"no such snapshot":    {admin.RevertRequest{Snapshot: "none", Force: true}, backstore.ErrNotFound},
		"to itself":           {admin.RevertRequest{Snapshot: "src", Volume: "src", Force: true}, blockdev.ErrInvalid},
		"of nothing":          {admin.RevertRequest{Snapshot: "src", Force: true}, blockdev.ErrInvalid},
		"below its size":      {admin.RevertRequest{Snapshot: "small", Volume: "other", Force: true}, blockdev.ErrInvalid},
		"a snapshot reverted": {admin.RevertRequest{Snapshot: "src", Volume: "before", Force: true}, backstore.ErrReadOnly},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "below its size" {
				must.Succeed(t, createVolume(s, "small", 4096))
			}
			if _, err := s.admin.RevertVolume(ctx, c.request); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	// Copy rules are by name.
	text, err := os.ReadFile(s.file)
	must.Succeed(t, err)
	s.reload(string(text) + "copy: {rules: [{from: [\"be*\"], allow: false}]}\n")
	if _, err := s.admin.RenameVolume(ctx, "before", "yesterday"); !errors.Is(err, admin.ErrInUse) {
		t.Errorf("renamed to what the rule does not concern: %v", err)
	}
	_, err = s.admin.RenameVolume(ctx, "before", "belated")
	must.Succeed(t, err)
	_, err = s.admin.RenameVolume(ctx, "belated", "before")
	must.Succeed(t, err)
	s.reload(string(text))
	// Names are those of the configuration.
	if _, err := s.admin.RenameVolume(ctx, "src", "another"); !errors.Is(err, admin.ErrInUse) {
		t.Errorf("rename of a LUN: %v", err)
	}
	if v, err := s.admin.RenameVolume(ctx, "before", "yesterday"); err != nil || v.Name != "yesterday" {
		t.Errorf("renamed %+v, %v", v, err)
	}
}
