//go:build e2e

package page

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"odx/internal/kit"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

const (
	secret = "a secret that administers"
	// hostile is the name of an initiator that would act in a page which does not escape it.
	hostile = "iqn.2026-11.example.odx:<img/src=x/onerror=alert(1)>"
)

// TestPage has a browser log in, look at every view, and act in every way, while initiators
// read, write and copy.
func TestPage(t *testing.T) {
	harness.RequireODX(t)
	secretFile := filepath.Join(t.TempDir(), "secret")
	harness.Must(t, os.WriteFile(secretFile, []byte(secret), 0o600))
	listen, err := kit.FreePortal()
	harness.Must(t, err)
	target := harness.ServeWith(t, kit.Settings{File: map[string]any{
		"api": map[string]any{"listen": listen, "secrets": []any{map[string]string{"name": "alice", "role": "administer", "secret_file": secretFile}}},
	}}, kit.LUN{Size: 64 << 20}, kit.LUN{Size: 64 << 20})
	odx := func(args ...string) {
		t.Helper()
		binary, err := kit.Binary()
		harness.Must(t, err)
		harness.Run(t.Context(), t, binary, append(args, "--config", target.ConfigFile())...)
	}
	odx("vhd", "create", "base.vhdx", "16MiB")
	odx("vhd", "snapshot", "base.vhdx", "child.vhdx")
	dst := initiators(t, target)

	b := open(t, "http://"+listen)
	login(b)
	overview(b)
	b.has("LUNs", b.visit("/ui/luns"), kit.IQN+"/0", "volume vol0", kit.IQN+"/1", "Map a volume to a target")
	b.has("sessions", b.visit("/ui/sessions"), hostile, "127.0.0.1", "End…")
	b.has("volumes", b.visit("/ui/volumes"), "vol0", "vol1", "base.vhdx", "child.vhdx", "differencing disk")
	b.has("tokens", b.visit("/ui/tokens"), "Revoke…", "vol0", "1.0 MiB")
	b.has("copies", b.visit("/ui/copies"), "WRITE USING TOKEN", "offloaded", "Refused: 1", hostile)
	b.has("changes", b.visit("/ui/changes"), "vhd", "base.vhdx")

	volumes(b)
	b.visit("/ui/luns")
	b.has("LUNs", b.act("map", [][2]string{{"target", kit.IQN}, {"lun", "7"}, {"volume", "twin"}}, "LUN 7 of target "+kit.IQN), kit.IQN+"/7", "volume twin")
	b.visit("/ui/tokens")
	b.follow("revoke", "a.act")
	b.has("tokens", b.confirm("revoke", "token "), "No live tokens")
	b.visit("/ui/sessions")
	b.follow("end", "a.act")
	b.confirm("end", "session ")
	b.has("changes", b.visit("/ui/changes"), "volume create", "volume snapshot", "volume clone", "volume resize", "volume revert", "token revoke", "session", "luns[7]", "secret alice from 127.0.0.1")
	live(b, dst)
	appearance(b)

	b.follow("log out", "#logout")
	b.has("after the logout", b.text(), "Secret of the API")
	b.do("overview", chromedp.Navigate(b.url+"/ui/"))
	b.has("without a session", b.text(), "Secret of the API")
	b.check()
}

// initiators logs in under a hostile name and under another one, which it returns, writes,
// copies by a token that stays, and has a copy refused.
func initiators(t *testing.T, target *kit.Target) *tokenclient.Session {
	t.Helper()
	client := harness.Client(t)
	src, err := client.Open(target.URL(0), tokenclient.OpenOptions{Initiator: hostile})
	harness.Must(t, err)
	dst, err := client.Open(target.URL(1), tokenclient.OpenOptions{Initiator: "iqn.2026-11.example.odx:host"})
	harness.Must(t, err)
	data := bytes.Repeat([]byte("some data of a disk "), 1<<20/20+1)[:1<<20]
	blocks := uint64(len(data) / src.BlockLength)
	a, err := src.Write(bytes.NewReader(data), 0, blocks, tokenclient.WriteOptions{})
	good(t, a, err)
	_, err = src.OffloadTo(dst, 0, 0, blocks)
	harness.Must(t, err)
	a, err = src.WriteUsingToken(make([]byte, tokenclient.TokenLength), tokenclient.WriteTokenOptions{}, tokenclient.Range{LBA: 0, Blocks: 8})
	harness.Must(t, err)
	if a.Good() {
		t.Fatal("a token of zeros was taken")
	}
	return dst
}

func good(t *testing.T, a tokenclient.Answer, err error) {
	t.Helper()
	harness.Must(t, err)
	if !a.Good() {
		t.Fatalf("answer %+v", a)
	}
}

// login tries a wrong secret, and then logs in by keyboard alone.
func login(b *browser) {
	b.t.Helper()
	b.do("login", chromedp.Navigate(b.url+"/"))
	b.usable("login")
	b.do("a wrong secret", chromedp.SendKeys("#secret", "a secret that is not configured"))
	b.follow("a wrong secret", "#login")
	b.has("login", b.text(), "This is no secret of the API.")
	b.do("by keyboard", chromedp.KeyEvent(secret+"\r"), chromedp.WaitVisible("nav")) // the field has the focus
}

func overview(b *browser) {
	b.t.Helper()
	b.has("overview", b.visit("/ui/"), "ok", "Deduplication", "Reclaimable", "alice (administer)", kit.IQN+"/0", "volume vol1")
	focused := `document.activeElement.innerText`
	b.do("keyboard", chromedp.KeyEvent("\t"))
	if first := result(b, "focus", chromedp.Evaluate[string](focused)); first != "Skip to the content" {
		b.t.Errorf("the first stop of the keyboard is %q", first)
	}
}

// volumes acts in every way on volumes.
func volumes(b *browser) {
	b.t.Helper()
	b.visit("/ui/volumes")
	b.act("create", [][2]string{{"name", "new"}, {"size", "1MiB"}}, "volume new")
	b.act("snapshot", [][2]string{{"volume", "new"}, {"name", "before"}}, "volume before")
	b.act("clone", [][2]string{{"volume", "new"}, {"name", "twin"}}, "volume twin")
	b.has("volumes", b.act("grow", [][2]string{{"volume", "new"}, {"size", "2MiB"}}, "volume new"), "2.0 MiB")
	text := b.act("revert", [][2]string{{"snapshot", "before"}}, "volume new to before")
	b.has("volumes", text, "snapshot", "clone")
	if strings.Contains(text, "2.0 MiB") {
		b.t.Errorf("new was not reverted:\n%s", text)
	}
	// What fails says why, and leaves the form to go back to.
	for _, f := range [][2]string{{"name", "new"}, {"size", "1MiB"}} {
		b.do("create", chromedp.SetValue("#create-"+f[0], f[1]))
	}
	b.follow("create", "#create-form button")
	b.follow("confirm", "#confirm")
	b.has("a second volume of the name", b.text(), "Not done: ", "exists")
	b.follow("back", "#back")
}

// live waits for what an initiator does, without a new page.
func live(b *browser, dst *tokenclient.Session) {
	b.t.Helper()
	b.visit("/ui/luns")
	_, err := dst.Read(io.Discard, 0, 64) // gets the unit attention of the LUN that was mapped
	harness.Must(b.t, err)
	a, err := dst.Read(io.Discard, 0, 64)
	good(b.t, a, err)
	began := time.Now()
	row := fmt.Sprintf(`[...document.querySelectorAll("tbody tr")].find(r => r.innerText.includes(%q)).cells[5].innerText.startsWith("–")`, kit.IQN+"/1")
	_ = result(b, "live", chromedp.Poll[bool]("!"+row+` && document.body.dataset.refreshed !== undefined`))
	b.t.Logf("live after %v", time.Since(began))
	_ = result(b, "no server", chromedp.Evaluate[bool](`(() => { window.fetch = () => Promise.reject(new Error("away")); return true; })()`))
	_ = result(b, "no server", chromedp.Poll[bool](`document.querySelector("#stale").innerText.startsWith("Not updated since ")`))
	b.do("pause", chromedp.Click("#pause"))
	if pressed := result(b, "pause", chromedp.Evaluate[string](`document.querySelector("#pause").getAttribute("aria-pressed")`)); pressed != "true" {
		b.t.Errorf("pause: aria-pressed=%s", pressed)
	}
}

// appearance looks at the page in light and dark, on a desk and on a phone.
func appearance(b *browser) {
	b.t.Helper()
	seen := map[string]string{}
	b.do("desk", chromedp.EmulateViewport(1200, 860))
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		b.visit("/ui/")
		seen[b.background()] = scheme
		b.picture("overview-" + scheme)
		b.visit("/ui/volumes")
		b.picture("volumes-" + scheme)
	}
	if len(seen) != 2 {
		b.t.Errorf("light and dark have the same background: %v", seen)
	}
	b.do("phone", chromedp.EmulateViewport(390, 844))
	for _, path := range []string{"/ui/", "/ui/luns", "/ui/sessions", "/ui/volumes", "/ui/tokens", "/ui/copies", "/ui/changes"} {
		b.visit(path)
	}
	b.picture("changes-phone")
	b.visit("/ui/")
	b.picture("overview-phone")
}
