package conf

import (
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"strings"
)

// Pool is a pool of a Ceph cluster that has the store, in place of a directory.
type Pool struct {
	// Name is that of the pool, Namespace has the objects of the store.
	Name, Namespace string
	// Conf is the path of ceph.conf, Keyring that of the key of User, such as client.odx. "":
	// as Ceph's own programs find them.
	Conf, User, Keyring string
	// RunDir is a directory of this machine for the sockets of the server.
	RunDir string
	// Addresses are those that the owner of the store has, and no other machine.
	Addresses []OwnerAddress
	// Shards is how many stores the pool has that Nodes share; 0: it is one, without nodes.
	Shards int
	// Nodes are the machines, in the order of their rank.
	Nodes []Node
}

// OwnerAddress is an IP address that follows the owner of a store.
type OwnerAddress struct {
	// Prefix is the address with the length of its network.
	Prefix netip.Prefix
	// Interface is the name of the network interface that gets it.
	Interface string
	// Shard is the one whose owner has it.
	Shard int
}

// maxOwnerAddresses bounds Pool.Addresses.
const maxOwnerAddresses = 16

const (
	poolPrefix       = "rados:"
	defaultNamespace = "odx"
	// DefaultRunDir is the default of Pool.RunDir.
	DefaultRunDir = "/run/odx"
	// DefaultCephUser is the default of Pool.User.
	DefaultCephUser = "client.odx"
)

// poolPlace is what data_dir says of a pool: its name, and the namespace.
var poolPlace = regexp.MustCompile(`^rados:([A-Za-z0-9][A-Za-z0-9._-]{0,127})(?:/([A-Za-z0-9][A-Za-z0-9._-]{0,127}))?$`)

// String returns the value of data_dir.
func (p *Pool) String() string { return poolPrefix + p.Name + "/" + p.Namespace }

// LocalDir is the directory of this machine where the server of the store has its sockets:
// that of the store, unless it is in a pool.
func (c *Config) LocalDir() string {
	if c.Pool != nil {
		return c.Pool.RunDir
	}
	return c.DataDir
}

// place reads where the store is.
func (c *checker) place(raw *fileConfig, cfg *Config) {
	text, ok := c.required("data_dir", raw.DataDir, "the directory of the extent store")
	if !ok {
		return
	}
	if !strings.HasPrefix(text, poolPrefix) {
		cfg.DataDir = resolve(c.file, text)
		if !reflect.ValueOf(raw.Ceph).IsZero() {
			c.add("ceph", "the store is in a directory of this machine; write data_dir: rados:POOL/NAMESPACE for one in a pool of Ceph, or leave this out")
		}
		return
	}
	parts := poolPlace.FindStringSubmatch(text)
	if parts == nil {
		c.add("data_dir", "invalid place in a pool %q; use rados:POOL or rados:POOL/NAMESPACE, of letters, digits, dots, dashes and underscores", text)
		return
	}
	p := &Pool{Name: parts[1], Namespace: parts[2], User: DefaultCephUser, RunDir: DefaultRunDir}
	if p.Namespace == "" {
		p.Namespace = defaultNamespace
	}
	for _, path := range []struct {
		given *string
		to    *string
	}{{raw.Ceph.Conf, &p.Conf}, {raw.Ceph.Keyring, &p.Keyring}, {raw.Ceph.RunDir, &p.RunDir}} {
		if path.given != nil {
			*path.to = resolve(c.file, *path.given)
		}
	}
	if u := raw.Ceph.User; u != nil {
		if p.User = *u; !strings.HasPrefix(p.User, "client.") || len(p.User) == len("client.") {
			c.add("ceph.user", "invalid user %q; use the whole name, for example %s", p.User, DefaultCephUser)
		}
	}
	p.Addresses = c.ownerAddresses(raw.Ceph.Addresses)
	c.shards(&raw.Ceph, p)
	cfg.Pool, cfg.DataDir = p, p.String()
}

// interfaceName is a name that Linux takes for a network interface.
var interfaceName = regexp.MustCompile(`^[^\x00-\x20/:]{1,15}$`)

// ownerAddresses reads the addresses that follow the owner.
func (c *checker) ownerAddresses(raw []fileCephAddress) (list []OwnerAddress) {
	if len(raw) > maxOwnerAddresses {
		c.add("ceph.addresses", "%d addresses; at most %d follow the owner", len(raw), maxOwnerAddresses)
		return nil
	}
	seen := map[netip.Addr]bool{}
	for i, r := range raw {
		key := fmt.Sprintf("ceph.addresses[%d]", i)
		text, ok := c.required(key+".address", r.Address, "an address with the length of its network, for example 192.0.2.10/24")
		name, named := c.required(key+".interface", r.Interface, "the network interface that gets the address, for example eth0")
		if !ok || !named {
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		switch a := prefix.Addr(); {
		case err != nil:
			c.add(key+".address", "invalid address %q; write it with the length of its network, for example 192.0.2.10/24 or 2001:db8::10/64", text)
		case a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || prefix.Bits() == 0:
			c.add(key+".address", "%s cannot be an address of a network interface", text)
		case a.IsLinkLocalUnicast():
			c.add(key+".address", "%s is valid on one link alone; choose an address that initiators can be configured with", text)
		case seen[a]:
			c.add(key+".address", "%s is in the list twice", a)
		case !interfaceName.MatchString(name):
			c.add(key+".interface", "invalid name of a network interface %q", name)
		default:
			seen[a] = true
			shard := int(c.number(key+".shard", r.Shard, 0, 0, MaxShards-1, ""))
			list = append(list, OwnerAddress{prefix, name, shard})
		}
	}
	return list
}

// checkPool adds problems for what a store in a pool cannot have: all that is of one machine.
func (c *checker) checkPool(cfg *Config) {
	if cfg.Pool == nil {
		return
	}
	const why = "the store is in a pool, and the next machine that serves it does not have %s; use a volume or a file of the store"
	for i := range cfg.Targets {
		for k := range cfg.Targets[i].LUNs {
			if l := &cfg.Targets[i].LUNs[k]; l.Backing != "" {
				c.add(l.Key+".backing", "LUN %d: "+why, l.Number, l.Backing)
			} else if l.ISCSI != "" {
				c.add(l.Key+".backing", "LUN %d: the store is in a pool, and two machines could write to %s at once; use a volume or a file of the store", l.Number, l.ISCSI)
			}
		}
	}
	for i := range cfg.Views {
		v := &cfg.Views[i]
		for _, d := range v.Over {
			if d.Backing != "" {
				c.add(v.Key, "view %s: "+why, v.Name, d.Backing)
			}
		}
		if v.Kind == ViewCache && v.WriteBack {
			c.add(v.Key+".cache.mode", "view %s: a write-back cache is lost with the process, and hosts go on when another machine serves the store; make it write-through", v.Name)
		}
	}
}

func (p *Pool) file() fileCeph {
	if p == nil {
		return fileCeph{}
	}
	f := fileCeph{Conf: textOf(p.Conf), User: textOf(p.User), Keyring: textOf(p.Keyring), RunDir: textOf(p.RunDir), Shards: countOf(int64(p.Shards))}
	for _, n := range p.Nodes {
		f.Nodes = append(f.Nodes, fileCephNode{textOf(n.Name), textOf(n.Address.String())})
	}
	for _, a := range p.Addresses {
		f.Addresses = append(f.Addresses, fileCephAddress{textOf(a.Prefix.String()), textOf(a.Interface), countOf(int64(a.Shard))})
	}
	return f
}
