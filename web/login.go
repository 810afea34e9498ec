package web

import (
	"crypto/subtle"
	"net/http"
	"strings"

	"odx/api"
	"odx/audit"
)

// refreshHeader is in the requests of the script, which are not made by hand.
const refreshHeader = "Odx-Refresh"

// cookieName returns the name of the cookie of a session. Over TLS a browser keeps others
// from setting it.
func cookieName(r *http.Request) string {
	if api.Encrypted(r) {
		return "__Host-odx"
	}
	return "odx"
}

// setCookie sets the cookie of a session; an empty value removes it.
func setCookie(w http.ResponseWriter, r *http.Request, value string) {
	c := &http.Cookie{Name: cookieName(r), Value: value, Path: "/", HttpOnly: true, Secure: api.Encrypted(r), SameSite: http.SameSiteStrictMode}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// cookieOf returns the cookie of a request; "" without one.
func cookieOf(r *http.Request) string {
	c, err := r.Cookie(cookieName(r))
	if err != nil {
		return ""
	}
	return c.Value
}

// userOf returns who sends a request.
func (p *page) userOf(r *http.Request) (*user, bool) {
	cookie := cookieOf(r)
	if cookie == "" {
		return nil, false
	}
	return p.sessions.find(cookie, r.Header.Get(refreshHeader) == "", p.Guard.Confirm)
}

// handler handles a request of a user.
type handler func(w http.ResponseWriter, r *http.Request, u *user)

// asUser passes on the requests of users. The others get to the login.
func (p *page) asUser(next handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		u, ok := p.userOf(r)
		if !ok {
			w.Header().Set("Connection", "close")
			http.Redirect(w, r, api.PagePath+"login", http.StatusSeeOther)
			return
		}
		if r.Method == http.MethodPost && !p.isOwn(r, u) {
			p.fail(w, http.StatusForbidden, "The form is not of this session; go back, reload the page and try again.", u)
			return
		}
		select {
		case p.running <- struct{}{}:
			defer func() { <-p.running }()
		case <-r.Context().Done():
			p.fail(w, http.StatusServiceUnavailable, "The server is busy with other requests of the page; try again.", u)
			return
		}
		next(w, r.WithContext(audit.With(r.Context(), u.Actor(r))), u)
	}
}

// isOwn reports whether a form is one that the user's session was given.
func (p *page) isOwn(r *http.Request, u *user) bool {
	return subtle.ConstantTimeCompare([]byte(r.PostFormValue("forms")), []byte(u.Forms)) == 1
}

func (p *page) showLogin(w http.ResponseWriter, _ *http.Request) {
	p.show(w, http.StatusOK, "login", frame{Title: "Log in"})
}

// login begins a session for who knows a secret.
func (p *page) login(w http.ResponseWriter, r *http.Request) {
	secret := strings.TrimSpace(r.PostFormValue("secret"))
	who, err := p.Guard.Identify(r, secret)
	if err != nil {
		if p.refused.Allow() {
			p.Log.WithError(err).WithField("address", r.RemoteAddr).Warn("login to the page refused")
		}
		status, why := api.StatusOf(err), "This is no secret of the API."
		if status == http.StatusTooManyRequests {
			why = "There were too many wrong secrets from this address; try again in a second."
		}
		p.show(w, status, "login", frame{Title: "Log in", Data: why})
		return
	}
	p.Log.WithField("by", who.Actor(r).String()).Info("login to the page")
	if old := cookieOf(r); old != "" {
		p.sessions.end(old)
	}
	setCookie(w, r, p.sessions.begin(who))
	http.Redirect(w, r, api.PagePath, http.StatusSeeOther)
}

// logout ends a session.
func (p *page) logout(w http.ResponseWriter, r *http.Request, _ *user) {
	p.sessions.end(cookieOf(r))
	setCookie(w, r, "")
	http.Redirect(w, r, api.PagePath+"login", http.StatusSeeOther)
}
