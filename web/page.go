package web

import (
	"bytes"
	"context"
	"embed"
	"html/template"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"odx/admin"
	"odx/api"
	"odx/audit"
)

//go:embed templates/*.html static/*
var files embed.FS

const (
	// maxForm bounds the body of a request, in bytes.
	maxForm = 16 << 10
	// patience bounds how long a request may take, but for the sending of its answer.
	patience = 25 * time.Second
	// sending bounds how long a browser takes to read an answer.
	sending = 30 * time.Second
	// maxRequests bounds the requests of users that run, each of which can list all volumes;
	// others wait.
	maxRequests = 4
)

// Options are what a page shows and changes.
type Options struct {
	Administrator admin.Administrator
	Live          admin.Live
	Audit         *audit.Log
	// Guard knows who may log in.
	Guard *api.Guard
	Log   *logrus.Entry
}

// page is the handler.
type page struct {
	Options
	sessions  sessions
	measured  measured
	forgery   *http.CrossOriginProtection
	refused   *rate.Limiter                 // of lines about wrong secrets
	running   chan struct{}                 // has an entry for each request of a user that runs
	templates map[string]*template.Template // by view
	mux       *http.ServeMux
}

// New returns the handler of everything at api.PagePath, and of "/", which it redirects.
func New(o Options) http.Handler { return newPage(o) }

func newPage(o Options) *page {
	p := &page{
		Options: o, sessions: newSessions(), measured: newMeasured(o.Administrator), forgery: http.NewCrossOriginProtection(),
		refused: rate.NewLimiter(1, 20), running: make(chan struct{}, maxRequests), templates: parseTemplates(),
	}
	p.mux = http.NewServeMux()
	p.mux.Handle("GET /{$}", http.RedirectHandler(api.PagePath, http.StatusSeeOther))
	p.serveStatic("style.css", "script.js", "icon.svg")
	p.mux.HandleFunc("GET /ui/login", p.showLogin)
	p.mux.HandleFunc("POST /ui/login", p.login)
	p.mux.HandleFunc("POST /ui/logout", p.asUser(p.logout))
	for _, v := range views() {
		p.mux.HandleFunc("GET "+v.path, p.asUser(p.view(v)))
	}
	for _, a := range acts() {
		p.mux.HandleFunc("GET /ui/act/"+a.name, p.asUser(p.confirm(a)))
		p.mux.HandleFunc("POST /ui/act/"+a.name, p.asUser(p.perform(a)))
	}
	p.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		p.fail(w, http.StatusNotFound, "There is no such page.", nil)
	})
	return p
}

// ServeHTTP implements http.Handler.
func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	protect(w.Header())
	c := http.NewResponseController(w)
	// An error is one of a connection that is closed already.
	_ = c.SetWriteDeadline(time.Now().Add(patience + sending))
	if why := p.refuses(r); why != "" {
		p.fail(w, http.StatusForbidden, why, nil)
		return
	}
	if err := p.forgery.Check(r); err != nil {
		p.fail(w, http.StatusForbidden, "The request came from another site.", nil)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	p.mux.ServeHTTP(w, r.WithContext(ctx))
}

// protect sets the headers by which a browser keeps other sites, and what hostile names
// could be, away from the page.
func protect(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// serveStatic serves files without a session: the login needs them.
func (p *page) serveStatic(names ...string) {
	for _, name := range names {
		p.mux.HandleFunc("GET /ui/"+name, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, "static/"+name) })
	}
}

// parseTemplates returns the template of each view: its own file within the layout,
// which can have the rows of LUNs. The files are in the binary, so that errors are
// mistakes in them.
func parseTemplates() map[string]*template.Template {
	const layout, rows = "templates/layout.html", "templates/lunrows.html"
	all := map[string]*template.Template{}
	for _, view := range []string{"overview", "luns", "sessions", "volumes", "tokens", "copies", "changes", "login", "confirm", "failure"} {
		t := template.New("layout.html").Funcs(functions())
		all[view] = template.Must(t.ParseFS(files, layout, rows, "templates/"+view+".html"))
	}
	return all
}

// frame is what the layout shows around a view.
type frame struct {
	Title string
	// Path is that of the view, "" outside of the menu.
	Path string
	Menu []view
	// User is nil before a login.
	User *user
	// Said is what the last act did.
	Said string
	// Data is what the view shows.
	Data any
}

// show answers with a view.
func (p *page) show(w http.ResponseWriter, status int, name string, f frame) {
	f.Menu = views()
	var b bytes.Buffer
	if err := p.templates[name].Execute(&b, f); err != nil {
		p.Log.WithError(err).WithField("view", name).Warn("page not shown")
		http.Error(w, "The page cannot be shown; the server's log has the cause.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if f.User == nil {
		w.Header().Set("Connection", "close") // which takes one of the places of others
	}
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // fails only if the browser has disconnected
}

// fail answers with a sentence.
func (p *page) fail(w http.ResponseWriter, status int, why string, u *user) {
	p.show(w, status, "failure", frame{Title: "Not possible", User: u, Data: why})
}
