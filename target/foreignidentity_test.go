package target

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"odx/admin"
	"odx/blockdev"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// elsewhere returns the URL of an array's LUN by another address.
func (a *array) elsewhere() string { return strings.Replace(a.url(), "127.0.0.1", "localhost", 1) }

// foreignLUN returns the line of a configuration for the LUN of an array.
func foreignLUN(number int, url string) string {
	return fmt.Sprintf("      - {lun: %d, backing: %q, login: {name: odx, secret: 0123456789abcd, mutual: {name: array, secret: abcd0123456789}}}\n", number, url)
}

// A LUN that this server uses by one address is no LUN by another one, nor the destination of a
// migration; the destination of a migration is no other LUN or destination.
func TestForeign_OtherAddress(t *testing.T) {
	used, free := newArray(t, 16, ""), newArray(t, 16, "")
	text := strings.Replace(smallDisk, "2MiB", "16MiB", 1) + "      - {lun: 2, volume: b, size: 16MiB}\n" + foreignLUN(1, used.url())
	s, right := serveFile(t, text), arrayLogin(t, t.TempDir())
	start := func(volume, to string) error {
		_, err := s.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: volume, To: to, Overwrite: true, Login: right, Rate: 1})
		return err
	}
	open := len(s.foreign.open)
	s.refuses(text+foreignLUN(3, used.elsewhere()), "LUN 3: "+used.elsewhere()+" is "+used.url()+" by another address")
	s.write(text)
	if err := start("a", used.elsewhere()); !errors.Is(err, admin.ErrInUse) || !strings.Contains(err.Error(), "as "+used.url()) {
		t.Errorf("a migration to a LUN of the configuration by another address: %v", err)
	}
	if g, err := s.foreign.known(used.elsewhere()); err != nil || g.ID != "" || len(s.foreign.open) != open {
		t.Errorf("%+v is known of what was refused (%v), and %d LUNs are open", g, err, len(s.foreign.open))
	}
	must.Succeed(t, login(t, s.Service, 0).WriteAt(t.Context(), random(1, 8<<20), 0)) // at a byte a second it does not end
	must.Succeed(t, start("a", free.url()))
	if err := start("b", free.elsewhere()); !errors.Is(err, admin.ErrInUse) || !strings.Contains(err.Error(), "as "+free.url()) {
		t.Errorf("a second migration to the LUN: %v", err)
	}
	s.refuses(text+foreignLUN(3, free.elsewhere()), "is "+free.url()+" by another address")
	s.write(text)
	_, err := s.migrations.AbortMigration(t.Context(), "a")
	must.Succeed(t, err)
	s.reload(text + foreignLUN(3, free.elsewhere()))
	if err := start("a", free.url()); !errors.Is(err, admin.ErrInUse) {
		t.Errorf("a migration to what was added by another address: %v", err)
	}
}

// The address of a LUN changes by two reloads, or while the server is stopped; of two in one
// configuration, the one that was served before stays.
func TestForeign_OtherAddress_Changed(t *testing.T) {
	a := newArray(t, 16, "")
	s := serveFile(t, smallDisk+foreignLUN(1, a.url()))
	s.refuses(smallDisk+foreignLUN(1, a.elsewhere()), "by another address")
	s.reload(smallDisk)
	s.reload(smallDisk + foreignLUN(1, a.elsewhere()))
	must.Succeed(t, s.Stop(t.Context()))
	for _, tt := range []struct {
		luns   string
		served int
		not    string
	}{
		{foreignLUN(1, a.url()), 1, ""},
		{foreignLUN(1, a.elsewhere()) + foreignLUN(2, a.url()), 2, a.elsewhere()},
	} {
		again, err := Start(t.Context(), parse(t, filepath.Dir(s.file), smallDisk+tt.luns), logs.Discard())
		must.Succeed(t, err)
		must.Succeed(t, login(t, again, tt.served).WriteAt(t.Context(), random(1, 4096), 0))
		for _, l := range again.LUNs() {
			if left := l.Problem != ""; left != (l.Medium == tt.not) || left && !strings.Contains(l.Problem, "by another address") {
				t.Errorf("LUN %d, %s: %q", l.Number, l.Medium, l.Problem)
			}
		}
		must.Succeed(t, again.Stop(t.Context()))
	}
}

// A LUN of this server is no LUN of another target, by whatever address.
func TestForeign_Own(t *testing.T) {
	s := serveFile(t, smallDisk)
	_, port, _ := strings.Cut(s.Portals()[0], ":")
	for _, host := range []string{"127.0.0.1", "localhost"} {
		own := "iscsi://" + host + ":" + port + "/iqn.2026-11.example.odx:disks/0"
		s.refuses(smallDisk+fmt.Sprintf("      - {lun: 1, backing: %q}\n", own), "has the identity of a LUN of this server, volume a")
		s.write(smallDisk)
		_, err := s.migrations.StartMigration(t.Context(), admin.MigrationRequest{Volume: "a", To: own, Overwrite: true})
		if !errors.Is(err, blockdev.ErrInvalid) || !strings.Contains(err.Error(), "volume a") {
			t.Errorf("a migration to the LUN itself: %v", err)
		}
	}
}

// Identities tell LUNs of different targets apart only if no two in the world have one.
func TestForeign_Tells(t *testing.T) {
	const a, b, other = "iscsi://a:3260/iqn.2026-11.example:x/1", "iscsi://b:3260/iqn.2026-11.example:x/1", "iscsi://a:3260/iqn.2026-11.example:y/1"
	for id, want := range map[string]bool{
		"naa.6001405aaaaaaaaa": true, "naa.500a098012345678": true, "naa.2111001405123456": true, "eui.0014051234567890": true,
		"naa.3001405aaaaaaaaa": false, "naa.": false, "naa.6": false, "": false, `t10."IET     00010001"`: false,
		"naa.60000000000000000e00000000010001": false, "eui.0000000000000001": false, "naa.2111000000123456": false,
	} {
		if got := tells(id, a, other); got != want {
			t.Errorf("%q: %t", id, got)
		}
		if !tells(id, a, b) || tells(id, a, "iscsi://b:3260/iqn.2026-11.example:x/2") != want {
			t.Errorf("%q does not tell the LUNs of one target apart", id)
		}
	}
}
