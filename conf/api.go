package conf

import (
	"net"
	"strconv"
)

// API configures the API over TCP, which is available in addition to the socket in
// the data directory. The zero value disables it.
type API struct {
	// Listen is host and port.
	Listen string
	// Secret is the bearer token of every request (RFC 6750).
	Secret Secret
	// Certificate and PrivateKey are the PEM files of TLS. If empty, TLS is off.
	Certificate, PrivateKey string
}

func (a *fileAPI) fileSecret() fileSecret { return fileSecret{a.Secret, a.SecretFile, a.SecretEnv} }

// api reads the optional key api.
func (c *checker) api(raw *fileAPI) API {
	if _, given := c.lines["api"]; !given || c.mistyped["api"] {
		return API{}
	}
	var a API
	if text, ok := c.required("api.listen", raw.Listen, "an address, for example 127.0.0.1:3262"); ok {
		host, port, err := net.SplitHostPort(text)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || host == "" {
			c.add("api.listen", "invalid address %q; use an IP address or a host name, and a port, for example 127.0.0.1:3262", text)
		} else {
			a.Listen = net.JoinHostPort(host, strconv.FormatUint(n, 10))
		}
	}
	a.Secret = c.secret("api", raw.fileSecret())
	a.Certificate, a.PrivateKey = c.pem(raw.Certificate), c.pem(raw.PrivateKey)
	if (a.Certificate == "") != (a.PrivateKey == "") {
		c.add("api", "certificate and private_key require each other; give both or neither")
	}
	return a
}

func (c *checker) pem(path *string) string {
	if path == nil || *path == "" {
		return ""
	}
	return resolve(c.file, *path)
}
