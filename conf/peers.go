package conf

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// Peer is another server, which this one reads from, and which may read from this one.
type Peer struct {
	Name string
	// Store is the ID of its store, which odx store info prints. A server with another one
	// is not the peer.
	Store [16]byte
	// Addresses are the URLs of its API, without a path; the first that answers is used.
	Addresses []string
	// CA is a PEM file with the certificates that vouch for the peer, or with its own. If
	// empty, those that the machine trusts do.
	CA string
	// Secret is one of the peer's API with RolePeer. The zero value: none is sent.
	Secret Secret
	// Certificate and PrivateKey are the PEM files that this server shows to the peer; empty
	// for none.
	Certificate, PrivateKey string
	// Accept is a PEM file with the certificates that vouch for the peer as a client of this
	// server, or with its own: who shows one has RolePeer. Empty: it needs a secret.
	Accept string
	// ReadBytesPerSecond bounds what the peer reads of this server; 0: no limit of its own.
	ReadBytesPerSecond int64
	// Key is the path in the file, for example "peers[1]".
	Key string
}

func (p *filePeer) fileSecret() fileSecret { return fileSecret{p.Secret, p.SecretFile, p.SecretEnv} }

// peers reads the list of other servers.
func (c *checker) peers(raw []filePeer) []Peer {
	var list []Peer
	first := map[string]string{} // name, or ID of a store → key
	for i := range raw {
		key := fmt.Sprintf("peers[%d]", i)
		if c.mistyped[key] {
			continue
		}
		r := &raw[i]
		p := Peer{Key: key, CA: c.pem(r.CA), Certificate: c.pem(r.Certificate), PrivateKey: c.pem(r.PrivateKey), Accept: c.pem(r.Accept)}
		if name, ok := c.required(key+".name", r.Name, "a name for the peer"); ok {
			if p.Name = name; !label.MatchString(name) {
				c.add(key+".name", "invalid name %.70q; use 1 to 64 letters, digits, dots, dashes and underscores", name)
			}
			c.once(first, "name "+name, key+".name", "name "+name)
		}
		if text, ok := c.required(key+".store", r.Store, "the ID of its store, which odx store info prints there"); ok {
			id, err := hex.DecodeString(text)
			if err != nil || len(id) != len(p.Store) {
				c.add(key+".store", "invalid ID of a store %.70q; use the 32 hexadecimal digits that odx store info prints there", text)
			} else {
				copy(p.Store[:], id)
				c.once(first, "store "+string(id), key+".store", "store "+text)
			}
		}
		p.Addresses = c.peerAddresses(key+".addresses", r.Addresses)
		if c.anySecret(key) {
			p.Secret = c.secret(key, r.fileSecret())
		}
		if (p.Certificate == "") != (p.PrivateKey == "") {
			c.add(key, "certificate and private_key require each other; give both or neither")
		}
		p.ReadBytesPerSecond = c.size(key+".read_bytes_per_s", r.ReadBytes, 64<<10)
		list = append(list, p)
	}
	return list
}

// once adds a problem for a value that an earlier entry has.
func (c *checker) once(first map[string]string, value, key, what string) {
	if where, twice := first[value]; twice {
		c.add(key, "duplicate %.90s (first at line %d); give each its own", what, lineOf(c.lines, where))
	}
	first[value] = key
}

func (c *checker) peerAddresses(key string, raw []*string) (list []string) {
	if len(raw) == 0 && !c.mistyped[key] {
		c.add(key, "missing; give at least one URL of its API, for example https://b.example.com:3262")
	}
	for i, text := range raw {
		at := fmt.Sprintf("%s[%d]", key, i)
		if c.mistyped[at] {
			continue
		}
		address, ok := c.required(at, text, "the URL of its API, for example https://b.example.com:3262")
		if !ok {
			continue
		}
		if problem := checkPeerAddress(address); problem != "" {
			c.add(at, "invalid address %.90q; %s", address, problem)
			continue
		}
		list = append(list, strings.TrimSuffix(address, "/"))
	}
	return list
}

// checkPeerAddress returns what is wrong with the address of a peer. Without TLS, who listens
// on the way learns the secret and the data.
func checkPeerAddress(text string) (problem string) {
	u, err := url.Parse(text)
	if err != nil || !validURL(text) || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return "use https://HOST:PORT"
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && !(ip != nil && ip.IsLoopback()) {
		return "use https:// for a server that is not on this machine"
	}
	return ""
}

// file returns what the file says.
func (p *Peer) file() filePeer {
	from := p.Secret.file()
	return filePeer{
		Name: textOf(p.Name), Store: textOf(hex.EncodeToString(p.Store[:])), Addresses: textsOf(p.Addresses), CA: textOf(p.CA),
		Secret: from.inline, SecretFile: from.file, SecretEnv: from.env,
		Certificate: textOf(p.Certificate), PrivateKey: textOf(p.PrivateKey), Accept: textOf(p.Accept), ReadBytes: sizeOf(p.ReadBytesPerSecond),
	}
}
