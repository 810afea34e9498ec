package web

import (
	"context"
	"errors"
	"net/http"

	"odx/admin"
	"odx/api"
)

// view is an entry of the menu.
type view struct {
	path, title string
	// name is that of its template.
	name string
	// read returns what it shows.
	read func(ctx context.Context, p *page, u *user) (any, error)
}

// Path and Title are for templates.
func (v view) Path() string  { return v.path }
func (v view) Title() string { return v.title }

// views are all of them, in the order of the menu.
func views() []view {
	return []view{
		{api.PagePath + "{$}", "Overview", "overview", readOverview},
		{api.PagePath + "luns", "LUNs", "luns", readLUNs},
		{api.PagePath + "sessions", "Sessions", "sessions", readSessions},
		{api.PagePath + "volumes", "Volumes", "volumes", readVolumes},
		{api.PagePath + "tokens", "Tokens", "tokens", readTokens},
		{api.PagePath + "copies", "Copies", "copies", readCopies},
		{api.PagePath + "changes", "Changes", "changes", readChanges},
	}
}

// view returns the handler of a view.
func (p *page) view(v view) handler {
	return func(w http.ResponseWriter, r *http.Request, u *user) {
		data, err := v.read(r.Context(), p, u)
		if err != nil {
			p.fail(w, api.StatusOf(err), sentence(err), u)
			return
		}
		f := frame{Title: v.title, Path: v.path, User: u, Data: data}
		if r.Header.Get(refreshHeader) == "" {
			f.Said = p.sessions.said(cookieOf(r))
		}
		p.show(w, http.StatusOK, v.name, f)
	}
}

// sentence says what an error means to who looks at the page.
func sentence(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "It took too long; odx store info and odx volume list have no such limit."
	}
	return err.Error()
}

// overview is what the first view shows.
type overview struct {
	Status     admin.Status
	Health     admin.Health
	Conditions []admin.Condition
	Store      admin.StoreInfo
	// Uncounted is why Store is empty; "" if it is not.
	Uncounted string
	LUNs      []lunRow
}

// UsedShare is the part of the store that is not free, in percent.
func (o overview) UsedShare() float64 {
	all := o.Status.Vitals.UsedBytes + o.Status.Vitals.FreeBytes
	if all <= 0 {
		return 0
	}
	return 100 * float64(o.Status.Vitals.UsedBytes) / float64(all)
}

func readOverview(ctx context.Context, p *page, _ *user) (any, error) {
	status, err := p.Administrator.Status(ctx)
	if err != nil {
		return nil, err
	}
	o := overview{Status: status, Health: status.Health(), Conditions: status.Conditions()}
	if o.Store, err = p.measured.store.get(ctx); err != nil {
		o.Uncounted = sentence(err)
	}
	stats, err := p.Live.LUNStats(ctx)
	if err != nil {
		return nil, err
	}
	o.LUNs = lunRows(&status, stats)
	return o, nil
}

// changes is what the last view shows.
type changes struct{ Lines []line }

func readChanges(_ context.Context, p *page, _ *user) (any, error) {
	var c changes
	for _, l := range p.Audit.Recent() {
		c.Lines = append(c.Lines, line{l})
	}
	return c, nil
}
