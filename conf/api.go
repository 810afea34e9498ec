package conf

import (
	"fmt"
	"net"
	"strconv"
)

// API configures the API over TCP, which is available in addition to the socket in
// the data directory. The zero value disables it.
type API struct {
	// Listen is host and port.
	Listen string
	// Secrets are the bearer tokens (RFC 6750), one of which every request has; at least
	// one.
	Secrets []APISecret
	// Certificate and PrivateKey are the PEM files of TLS. If empty, TLS is off.
	Certificate, PrivateKey string
}

// Role says what the holder of a secret of the API may do. A later one may do what the
// earlier ones may.
type Role string

// The roles.
const (
	// RoleRead may look at everything but secrets and data.
	RoleRead Role = "read"
	// RoleOperate may create and copy: volumes, snapshots, tokens; and end sessions.
	RoleOperate Role = "operate"
	// RoleAdminister may do everything.
	RoleAdminister Role = "administer"
	// RolePeer is that of another server: it may do what servers ask of each other, and
	// nothing else. It is not one of the others, nor they of it, but for RoleAdminister.
	RolePeer Role = "peer"
)

// APISecret is a bearer token with a name, for the record of changes, and a role.
type APISecret struct {
	Name   string
	Role   Role
	Secret Secret
	// Key is the path in the file, for example "api.secrets[1]"; "api" for the secret
	// that is given without a name.
	Key string
}

// DefaultAPISecret is the name of the secret that the keys secret, secret_file and
// secret_env of api give. Its role is RoleAdminister.
const DefaultAPISecret = "default"

func (a *fileAPI) fileSecret() fileSecret { return fileSecret{a.Secret, a.SecretFile, a.SecretEnv} }
func (s *fileAPISecret) fileSecret() fileSecret {
	return fileSecret{s.Secret, s.SecretFile, s.SecretEnv}
}

// api reads the optional key api.
func (c *checker) api(raw *fileAPI) API {
	if _, given := c.lines["api"]; !given || c.mistyped["api"] {
		return API{}
	}
	var a API
	if text, ok := c.required("api.listen", raw.Listen, "an address, for example 127.0.0.1:3262"); ok {
		a.Listen = c.listen("api.listen", text, "127.0.0.1:3262")
	}
	a.Secrets = c.apiSecrets(raw)
	a.Certificate, a.PrivateKey = c.pem(raw.Certificate), c.pem(raw.PrivateKey)
	if (a.Certificate == "") != (a.PrivateKey == "") {
		c.add("api", "certificate and private_key require each other; give both or neither")
	}
	return a
}

// listen returns an address to listen on in its normal form.
func (c *checker) listen(key, text, example string) string {
	host, port, err := net.SplitHostPort(text)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || host == "" {
		c.add(key, "invalid address %q; use an IP address or a host name, and a port, for example %s", text, example)
		return ""
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10))
}

// apiSecrets reads the secrets: the one without a name, which may be left out if there are
// others, and the list.
func (c *checker) apiSecrets(raw *fileAPI) []APISecret {
	var list []APISecret
	_, listed := c.lines["api.secrets"]
	if c.anySecret("api") || !listed {
		list = append(list, APISecret{DefaultAPISecret, RoleAdminister, c.secret("api", raw.fileSecret()), "api"})
	}
	c.notEmpty("api.secrets", len(raw.Secrets))
	first := map[string]string{} // name → key
	if len(list) > 0 {
		first[DefaultAPISecret] = "api"
	}
	for i := range raw.Secrets {
		key := fmt.Sprintf("api.secrets[%d]", i)
		if c.mistyped[key] {
			continue
		}
		rs := &raw.Secrets[i]
		s := APISecret{Key: key}
		if name, ok := c.required(key+".name", rs.Name, "a name for the secret"); ok {
			if s.Name = name; !label.MatchString(name) {
				c.add(key+".name", "invalid name %.70q; use 1 to 64 letters, digits, dots, dashes and underscores", name)
			}
			if where, twice := first[name]; twice {
				c.add(key+".name", "duplicate name %s (first at line %d); give each its own", name, lineOf(c.lines, where))
			}
			first[name] = key + ".name"
		}
		if role, ok := c.required(key+".role", rs.Role, "read, operate, administer or peer"); ok {
			s.Role = Role(c.oneOf(key+".role", &role, string(RoleRead), string(RoleOperate), string(RoleAdminister), string(RolePeer)))
		}
		s.Secret = c.secret(key, rs.fileSecret())
		list = append(list, s)
	}
	return list
}

// anySecret reports whether the file has one of the keys that give a secret at key.
func (c *checker) anySecret(key string) bool {
	for _, name := range []string{"secret", "secret_file", "secret_env"} {
		if _, given := c.lines[key+"."+name]; given {
			return true
		}
	}
	return false
}

func (c *checker) pem(path *string) string {
	if path == nil || *path == "" {
		return ""
	}
	return resolve(c.file, *path)
}
