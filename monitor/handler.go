package monitor

import (
	"fmt"
	"net/http"
	"strings"
)

// Live returns the handler of /livez: 200 as long as the process makes progress, otherwise
// 503. A failing store leaves it alive.
func Live(p *Progress) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if stuck := p.Stuck(); stuck > 0 {
			answer(w, http.StatusServiceUnavailable, fmt.Sprintf("no progress for %v\n", stuck))
			return
		}
		answer(w, http.StatusOK, "ok\n")
	})
}

// Ready returns the handler of /readyz: 200 while portals are bound and the store is open
// and not failing, otherwise 503. The answer lists all conditions; those of a server that is
// only degraded leave it ready.
func Ready(s *Sampler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		status, err := s.Status()
		if err != nil {
			answer(w, http.StatusServiceUnavailable, err.Error()+"\n")
			return
		}
		var b strings.Builder
		fmt.Fprintln(&b, status.Health())
		for _, c := range status.Conditions() {
			fmt.Fprintf(&b, "%s: %s: %s\n", c.Severity, c.Name, c.Summary)
		}
		code := http.StatusOK
		if status.Unready() != "" {
			code = http.StatusServiceUnavailable
		}
		answer(w, code, b.String())
	})
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text))
}
