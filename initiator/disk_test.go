package initiator_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"odx/conf"
	"odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/target"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const targetName = "iqn.2026-11.example.odx:disks"

// startDisks starts a target with two LUNs, the second with blocks of 4096 bytes,
// which are kept in dir.
func startDisks(ctx context.Context, dir string) (*target.Service, error) {
	cfg, err := conf.Parse("odx.yaml", fmt.Appendf(nil, `data_dir: %s
portals: ["127.0.0.1:0"]
targets:
  - name: %s
    luns:
      - {lun: 0, volume: src, size: 64MiB}
      - {lun: 300, volume: dst, size: 64MiB, block_size: 4096}
`, dir, targetName))
	if err != nil {
		return nil, err
	}
	return target.Start(ctx, cfg, logs.Discard())
}

// serve calls startDisks, and returns the URL of a LUN.
func serve(t *testing.T) func(lun uint16) initiator.URL {
	t.Helper()
	s, err := startDisks(t.Context(), t.TempDir())
	must.Succeed(t, err)
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return func(lun uint16) initiator.URL {
		return initiator.URL{Address: s.Portals()[0], Target: targetName, LUN: lun}
	}
}

func open(t *testing.T, u initiator.URL) *initiator.Disk {
	t.Helper()
	d, err := initiator.Open(t.Context(), initiator.Options{URL: u})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestDisk(t *testing.T) {
	url := serve(t)
	for _, tt := range []struct {
		lun         uint16
		blockLength int
	}{{0, 512}, {300, 4096}} {
		d := open(t, url(tt.lun))
		if d.BlockLength != tt.blockLength || d.Size() != 64<<20 || !d.ThirdPartyCopy {
			t.Errorf("LUN %d: %+v", tt.lun, d)
		}
		// Longer than a first burst, a burst and a command.
		want := make([]byte, 3<<20+4096)
		rand.Read(want)
		got := make([]byte, len(want))
		if err := d.WriteAt(t.Context(), want, 8192); err != nil {
			t.Fatal(err)
		}
		if err := d.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if err := d.ReadAt(t.Context(), got, 8192); err != nil || !bytes.Equal(got, want) {
			t.Errorf("LUN %d: read back: %v, equal %v", tt.lun, err, bytes.Equal(got, want))
		}
		if err := d.Zero(t.Context(), 8192, 1<<20); err != nil {
			t.Error(err)
		}
		clear(want[:1<<20])
		if err := d.ReadAt(t.Context(), got, 8192); err != nil || !bytes.Equal(got, want) {
			t.Errorf("LUN %d: after zeros: %v, equal %v", tt.lun, err, bytes.Equal(got, want))
		}
	}
}

func TestCommandsSideBySide(t *testing.T) {
	d := open(t, serve(t)(0))
	var wg sync.WaitGroup
	for i := range int64(300) { // more than the CmdSN window
		wg.Go(func() {
			want := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 4096)
			got := make([]byte, len(want))
			off := i * int64(len(want))
			if err := d.WriteAt(t.Context(), want, off); err != nil {
				t.Error(err)
			}
			if err := d.ReadAt(t.Context(), got, off); err != nil || !bytes.Equal(got, want) {
				t.Errorf("range %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func TestTokenCopy(t *testing.T) {
	url := serve(t)
	src, dst := open(t, url(0)), open(t, url(300))
	limits, ok := src.TokenLimits()
	if !ok || limits.MaxRanges == 0 || limits.OptimalTransferCount == 0 {
		t.Fatalf("limits %+v, %v", limits, ok)
	}
	want := make([]byte, 1<<20)
	rand.Read(want)
	if err := src.WriteAt(t.Context(), want, 4096); err != nil {
		t.Fatal(err)
	}
	token, length, err := src.PopulateToken(t.Context(), 4096, int64(len(want)))
	if err != nil || length != int64(len(want)) {
		t.Fatalf("token for %d bytes: %v", length, err)
	}
	if err := src.WriteAt(t.Context(), make([]byte, len(want)), 4096); err != nil {
		t.Fatal(err)
	}
	if n, err := dst.WriteUsingToken(t.Context(), token, 8192, 16384, length-8192); err != nil || n != length-8192 {
		t.Fatalf("%d bytes: %v", n, err)
	}
	got := make([]byte, length-8192)
	if err := dst.ReadAt(t.Context(), got, 16384); err != nil || !bytes.Equal(got, want[8192:]) {
		t.Errorf("copy: %v, equal %v", err, bytes.Equal(got, want[8192:]))
	}
	// More than is left of the token: what there is.
	if n, err := dst.WriteUsingToken(t.Context(), token, length-4096, 0, 8192); err != nil || n != 4096 {
		t.Errorf("beyond the end: %d bytes, %v", n, err)
	}
	token[300] ^= 1
	var sense *initiator.SenseError
	if _, err := dst.WriteUsingToken(t.Context(), token, 0, 0, 4096); !errors.As(err, &sense) || sense.Key != initiator.KeyIllegalRequest || sense.ASC>>8 != 0x23 {
		t.Errorf("damaged token: %v", err)
	}
}

func TestErrors(t *testing.T) {
	url := serve(t)
	for name, tt := range map[string]struct {
		change func(*initiator.URL)
		words  string
	}{
		"no such target": {func(u *initiator.URL) { u.Target += "2" }, "the target does not exist there (status 0203h)"},
		"no such LUN":    {func(u *initiator.URL) { u.LUN = 7 }, "there is no disk at this LUN"},
		"no portal":      {func(u *initiator.URL) { u.Address = "127.0.0.1:1" }, "connection refused"},
	} {
		u := url(0)
		tt.change(&u)
		if _, err := initiator.Open(t.Context(), initiator.Options{URL: u}); err == nil || !strings.Contains(err.Error(), tt.words) || !strings.Contains(err.Error(), u.String()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	d := open(t, url(0))
	for name, err := range map[string]error{
		"beyond the end":  d.ReadAt(t.Context(), make([]byte, 1024), d.Size()-512),
		"part of a block": d.WriteAt(t.Context(), make([]byte, 100), 0),
		"negative":        d.Zero(t.Context(), -512, 512),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.ReadAt(ctx, make([]byte, 512), 0); err == nil {
		t.Error("no error after the context has ended")
	}
}

func TestParseURL(t *testing.T) {
	for text, want := range map[string]initiator.URL{
		"iscsi://host/iqn.a:b/1":       {Address: "host:3260", Target: "iqn.a:b", LUN: 1},
		"iscsi://host:99/iqn.a/16383":  {Address: "host:99", Target: "iqn.a", LUN: 16383},
		"iscsi://[::1]/iqn.a/0":        {Address: "[::1]:3260", Target: "iqn.a"},
		"iscsi://[::1]:5/iqn.a/0":      {Address: "[::1]:5", Target: "iqn.a"},
		"iscsi://me%se%25c@h/iqn.a/0":  {Address: "h:3260", Target: "iqn.a", Login: initiator.Credentials{User: "me", Password: "se%25c"}},
		"iscsi://u@h/t/0?target_user=": {Address: "h:3260", Target: "t", Login: initiator.Credentials{User: "u"}},
		"iscsi://u%p@h/t/0?target_user=a&target_password=b": {Address: "h:3260", Target: "t",
			Login: initiator.Credentials{User: "u", Password: "p"}, TargetLogin: initiator.Credentials{User: "a", Password: "b"}},
	} {
		if got, err := initiator.ParseURL(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "http://host/t/0", "iscsi://", "iscsi://host", "iscsi://host/t", "iscsi://host//0",
		"iscsi://host/t/", "iscsi://host/t/-1", "iscsi://host/t/16384", "iscsi://u%hidden@host/t/x", "iscsi://h/t/0?%zz=hidden"} {
		_, err := initiator.ParseURL(text)
		if err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
