package web

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"odx/api"
)

// refuses returns why a request is refused before anything of it is looked at; "" if it is
// not.
//
// A site whose name resolves to this server's address (DNS rebinding) is the same origin as
// the page to a browser, so names count only where no other host can have them: localhost,
// and those that the certificate has. An address is no name.
func (p *page) refuses(r *http.Request) string {
	if !api.Encrypted(r) && !onLoopback(r) {
		return "The page is served over TLS, or on the loopback, because it takes a secret: configure api.certificate, or use a tunnel."
	}
	host := hostOf(r.Host)
	if _, err := netip.ParseAddr(host); err == nil || strings.EqualFold(host, "localhost") || p.Guard.Certifies(host) {
		return ""
	}
	return "The page is not known by this name: use the address of the server, or a name that its certificate has."
}

// hostOf returns a host without its port and the brackets of IPv6.
func hostOf(given string) string {
	if host, _, err := net.SplitHostPort(given); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(given, "["), "]")
}

// onLoopback reports whether a request came to an address of the loopback.
func onLoopback(r *http.Request) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local == nil {
		return false
	}
	at, err := netip.ParseAddrPort(local.String())
	return err == nil && at.Addr().Unmap().IsLoopback()
}
