//go:build e2e

package page

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"odx/internal/kit/harness"
)

// limit bounds the whole test, and step each thing that the browser is waited for.
const (
	limit = 2 * time.Minute
	step  = 20 * time.Second
)

// browser is Chromium, with one window.
type browser struct {
	t   *testing.T
	ctx context.Context
	url string

	mu       sync.Mutex
	problems []string // that the browser has reported
}

// open starts Chromium without a screen, until the test ends.
func open(t *testing.T, url string) *browser {
	t.Helper()
	program := harness.Program(t, "chromium", "chromium")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1280, 800),
		// Without it Chromium does not start as root; what it shows is of this test.
		chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true))
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancelAllocator)
	ctx, cancelWindow := chromedp.NewContext(ctx)
	t.Cleanup(cancelWindow)
	b := &browser{t: t, ctx: ctx, url: url}
	harness.Must(t, chromedp.Do(ctx)) // starts it
	harness.Must(t, chromedp.Listen(ctx, b.listen))
	_ = result(b, "log", func(ctx context.Context, target *chromedp.Target) (cdp.Empty, error) {
		return cdp.Call(ctx, target, log.Enable, cdp.Empty{})
	})
	return b
}

// listen notes errors of the script, what the policy has stopped, and dialogs, which only a
// name that was executed can open.
func (b *browser) listen(event any) {
	var problem string
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError && !strings.Contains(e.Entry.Text, "status of 4") {
			problem = e.Entry.Text
		}
	case *runtime.EventExceptionThrown:
		problem = e.ExceptionDetails.Text
	case *cdppage.EventJavascriptDialogOpening:
		problem = "dialog: " + e.Message
	}
	if problem == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = append(b.problems, problem)
}

// check fails the test for what the browser has reported.
func (b *browser) check() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		b.t.Errorf("the browser reports: %s", p)
	}
}

// do runs actions, with a bound.
func (b *browser) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, step)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatalf("%s: %v; the page is\n%s", what, err, b.text())
	}
}

// result runs an action, with a bound, and returns its value.
func result[T any](b *browser, what string, a chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, step)
	defer cancel()
	value, err := chromedp.Run(ctx, a)
	if err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
	return value
}

// text returns what the page shows.
func (b *browser) text() string {
	b.t.Helper()
	return result(b, "text", chromedp.Evaluate[string](`document.body.innerText`))
}

// follow clicks a link or a button that leads to another page, and waits for it.
func (b *browser) follow(what, selector string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, step)
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(selector)); err != nil {
		b.t.Fatalf("%s: %v; the page is\n%s", what, err, b.text())
	}
}

// visit opens a view by its entry in the menu, and returns what it shows.
func (b *browser) visit(path string) string {
	b.t.Helper()
	b.follow("menu: "+path, fmt.Sprintf(`nav a[href="%s"]`, path))
	current := result(b, path, chromedp.Evaluate[string](`document.querySelector("nav a[aria-current=page]").getAttribute("href")`))
	if current != path {
		b.t.Errorf("%s: the current view is %s", path, current)
	}
	b.usable(path)
	return b.text()
}

// usable checks what keyboards, screen readers and phones need: a language, one heading
// of the page, landmarks, a name for each field, button and table, and no need to scroll
// the page sideways.
func (b *browser) usable(path string) {
	b.t.Helper()
	const script = `(() => {
		const wrong = [];
		const need = (ok, what) => { if (!ok) wrong.push(what); };
		need(document.documentElement.lang === "en", "no language");
		need(document.querySelectorAll("h1").length === 1, "not one h1");
		need(document.querySelectorAll("main").length === 1, "not one main");
		need(document.querySelector("body > a").getAttribute("href") === "#main", "no skip link");
		for (const e of document.querySelectorAll("input:not([type=hidden]), select")) need(e.labels.length === 1, "no label: " + e.id);
		for (const e of document.querySelectorAll("button, a")) need((e.getAttribute("aria-label") || e.innerText || e.textContent).trim() !== "", "no name: " + e.outerHTML);
		for (const e of document.querySelectorAll("section")) need(e.getAttribute("aria-label") || document.getElementById(e.getAttribute("aria-labelledby")), "no name: section " + e.id);
		for (const e of document.querySelectorAll("thead th")) need(e.scope === "col", "no scope: " + e.innerText);
		const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
		need(new Set(ids).size === ids.length, "an id twice: " + ids);
		need(document.documentElement.scrollWidth <= innerWidth, "wider than the window: " + document.documentElement.scrollWidth + " > " + innerWidth);
		need(document.cookie === "", "scripts can read the cookie");
		return wrong;
	})()`
	for _, w := range result(b, path, chromedp.Evaluate[[]string](script)) {
		b.t.Errorf("%s: %s", path, w)
	}
}

// has fails the test for what a text does not have.
func (b *browser) has(where, text string, want ...string) {
	b.t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			b.t.Errorf("%s does not show %q:\n%s", where, w, text)
		}
	}
}

// act fills the form of an act, confirms it, and checks what the view says then.
func (b *browser) act(form string, fields [][2]string, subject string) string {
	b.t.Helper()
	for _, f := range fields {
		selector := fmt.Sprintf("#%s-%s", form, f[0])
		b.do(form, chromedp.WaitVisible(selector), chromedp.SetValue(selector, f[1]))
	}
	b.follow(form, fmt.Sprintf("#%s-form button", form))
	asked := b.text()
	for _, f := range fields {
		b.has(form+", asked", asked, f[1])
	}
	return b.confirm(form, subject)
}

// confirm confirms an act.
func (b *browser) confirm(act, subject string) string {
	b.t.Helper()
	b.usable(act + ", asked")
	b.follow(act+", confirmed", "#confirm")
	text := b.text()
	b.has(act, text, "done, "+subject)
	return text
}

// picture saves what the window shows, where ODX_TEST_REPORT says.
func (b *browser) picture(name string) {
	b.t.Helper()
	png := result(b, name, chromedp.CaptureScreenshot())
	if len(png) == 0 {
		b.t.Errorf("%s: an empty picture", name)
	}
	if dir := os.Getenv(harness.ReportEnv); dir != "" {
		harness.Must(b.t, os.WriteFile(filepath.Join(dir, "page-"+name+".png"), png, 0o644))
	}
}

// scheme has the browser prefer light or dark.
func (b *browser) scheme(value string) {
	b.t.Helper()
	_ = result(b, value, func(ctx context.Context, target *chromedp.Target) (cdp.Empty, error) {
		return cdp.Call(ctx, target, emulation.SetEmulatedMedia,
			emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}}})
	})
}

// background returns the colour behind the page.
func (b *browser) background() string {
	b.t.Helper()
	return result(b, "background", chromedp.Evaluate[string](`getComputedStyle(document.body).backgroundColor`))
}
