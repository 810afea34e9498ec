package conf

import (
	"net"
	"strconv"
)

// API says how the API answers over TCP, besides the socket in the folder of
// the store. The zero value: it does not.
type API struct {
	// Listen is host and port.
	Listen string
	// Secret is what every request proves itself by (RFC 6750).
	Secret Secret
	// Certificate and PrivateKey are the PEM files of TLS; empty: there is none.
	Certificate, PrivateKey string
}

func (a *fileAPI) fileSecret() fileSecret { return fileSecret{a.Secret, a.SecretFile, a.SecretEnv} }

// api reads what stands at api, which may not be there.
func (c *checker) api(raw *fileAPI) API {
	if _, given := c.lines["api"]; !given || c.misshapen["api"] {
		return API{}
	}
	var a API
	if text, ok := c.required("api.listen", raw.Listen, "an address, for example 127.0.0.1:3262"); ok {
		host, port, err := net.SplitHostPort(text)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || host == "" {
			c.add("api.listen", "%q is not an address; write an IP address or a host name, and a port, for example 127.0.0.1:3262", text)
		} else {
			a.Listen = net.JoinHostPort(host, strconv.FormatUint(n, 10))
		}
	}
	a.Secret = c.secret("api", raw.fileSecret())
	a.Certificate, a.PrivateKey = c.pem(raw.Certificate), c.pem(raw.PrivateKey)
	if (a.Certificate == "") != (a.PrivateKey == "") {
		c.add("api", "certificate and private_key belong together; give both, or neither")
	}
	return a
}

func (c *checker) pem(path *string) string {
	if path == nil || *path == "" {
		return ""
	}
	return resolve(c.file, *path)
}
