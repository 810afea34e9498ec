package conf

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Node is a machine that takes shards of a pool.
type Node struct {
	// Name is what the machine is called, its host name by default.
	Name string
	// Address is where initiators and other nodes reach it.
	Address netip.Addr
}

const (
	// MaxShards and maxNodes bound Pool.Shards and Pool.Nodes.
	MaxShards = 64
	maxNodes  = 32
)

// nodeName is the name of a machine.
var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,63}$`)

// IsNodeName reports whether a node can have a name.
func IsNodeName(name string) bool { return nodeName.MatchString(name) }

// part is which part of a configuration a process has.
type part struct {
	node  Node
	shard int
	of    int // shards
	whole *Config
	more  func(*Config) // nil for nothing
}

// Shard returns the shard that the configuration was reduced to by Part; ok is false for a whole one.
func (c *Config) Shard() (shard int, ok bool) {
	if c.part == nil {
		return 0, false
	}
	return c.part.shard, true
}

// Whole returns the configuration that this one is a part of.
func (c *Config) Whole() (whole *Config, ok bool) {
	if c.part == nil {
		return nil, false
	}
	return c.part.whole, true
}

// Node returns the node of a name; ok is false if there is none.
func (p *Pool) Node(name string) (n Node, ok bool) {
	i := slices.IndexFunc(p.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return n, false
	}
	return p.Nodes[i], true
}

// ShardDir is the directory of the sockets of the server of a shard.
func (p *Pool) ShardDir(shard int) string {
	return filepath.Join(p.RunDir, "shard-"+strconv.Itoa(shard))
}

// ShardNamespace has the objects of a shard.
func (p *Pool) ShardNamespace(shard int) string {
	return p.Namespace + "." + strconv.Itoa(shard)
}

// NodePortal is where a node answers discovery and sends initiators to the owners of shards.
func (c *Config) NodePortal(n Node) Portal {
	p := c.Portals[0]
	p.Host = n.Address.String()
	return p
}

// ShardPortal is where a node serves a shard: the port of the configuration is that of the node,
// those after it are those of its shards.
func (c *Config) ShardPortal(n Node, shard int) Portal {
	p := c.NodePortal(n)
	p.Port += 1 + uint16(shard)
	return p
}

// ShardAPI is where a node serves the API of a shard; "": nowhere.
func (c *Config) ShardAPI(n Node, shard int) string { return shifted(c.API.Listen, n, shard) }

// shifted returns the address of a shard for one of the configuration.
func shifted(address string, n Node, shard int) string {
	host, port, err := net.SplitHostPort(address)
	number, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil {
		return ""
	}
	if a, err := netip.ParseAddr(host); err == nil && a.IsUnspecified() {
		host = n.Address.String()
	}
	return net.JoinHostPort(host, strconv.FormatUint(number+1+uint64(shard), 10))
}

// Part returns what the server of one shard on a node has of the configuration: the store, the
// targets and what they need. Its ports and its directory are its own.
func (c *Config) Part(node string, shard int) (*Config, error) {
	n, ok := c.Pool.Node(node)
	if !ok {
		return nil, c.Problem("ceph.nodes", "no node has the name %s: add it, or give this machine one of the list with --node", node)
	}
	if shard < 0 || shard >= c.Pool.Shards {
		return nil, c.Problem("ceph.shards", "there is no shard %d of %d", shard, c.Pool.Shards)
	}
	out, pool := *c, *c.Pool
	out.part = &part{node: n, shard: shard, of: c.Pool.Shards, whole: c}
	pool.Namespace, pool.RunDir, pool.Shards, pool.Nodes = c.Pool.ShardNamespace(shard), c.Pool.ShardDir(shard), 0, nil
	pool.Addresses = nil
	out.Portals = []Portal{c.ShardPortal(n, shard)}
	for _, a := range c.Pool.Addresses {
		if a.Shard == shard {
			pool.Addresses = append(pool.Addresses, OwnerAddress{Prefix: a.Prefix, Interface: a.Interface})
			p := c.Portals[0]
			p.Host = a.Prefix.Addr().String()
			out.Portals = append(out.Portals, p)
		}
	}
	out.Pool, out.DataDir = &pool, pool.String()
	out.MemoryTotal /= int64(c.Pool.Shards)
	out.API.Listen, out.Metrics.Listen = c.ShardAPI(n, shard), shifted(c.Metrics.Listen, n, shard)
	if path := c.Audit.File; path != "" {
		extension := filepath.Ext(path)
		out.Audit.File = fmt.Sprintf("%s-shard-%d%s", strings.TrimSuffix(path, extension), shard, extension)
	}
	c.reduce(&out, shard)
	return &out, nil
}

// reduce leaves out what belongs to other shards.
func (c *Config) reduce(out *Config, shard int) {
	other := func(name string) bool {
		return slices.ContainsFunc(c.Targets, func(t Target) bool { return t.Name == name && t.Shard != shard })
	}
	out.Targets = slices.DeleteFunc(slices.Clone(c.Targets), func(t Target) bool { return t.Shard != shard })
	for i := range out.Targets {
		out.Targets[i].Shard = 0
	}
	out.QoS.LUNs = slices.DeleteFunc(slices.Clone(c.QoS.LUNs), func(r LUNRate) bool { return other(r.Target) })
	_, at := c.mediaShards()
	elsewhere := func(medium string) bool { k, known := at[medium]; return known && k != shard }
	out.Views = slices.DeleteFunc(slices.Clone(c.Views), func(v View) bool {
		k := at["view "+v.Name] // of one that no LUN has: shard 0
		return k != shard
	})
	out.Snapshots = nil
	for _, p := range c.Snapshots {
		p.Volumes = slices.DeleteFunc(slices.Clone(p.Volumes), func(name string) bool {
			return elsewhere("volume "+name) || elsewhere(name)
		})
		if len(p.Volumes) > 0 {
			out.Snapshots = append(out.Snapshots, p)
		}
	}
}

// medium is the name of a device as LUN.Medium has it.
func (d Device) medium() string {
	if d.View != "" {
		return "view " + d.View
	}
	if d.Volume != "" {
		return "volume " + d.Volume
	}
	return d.String()
}

// mediaShards returns, in the order of the file, the media of LUNs and what views of them are
// over, and the shard of each: that of the first target that has it.
func (c *Config) mediaShards() (order []placedMedium, at map[string]int) {
	at = map[string]int{}
	views := map[string]*View{}
	for i := range c.Views {
		views[c.Views[i].Name] = &c.Views[i]
	}
	var visit func(key, medium string, shard int)
	visit = func(key, medium string, shard int) {
		order = append(order, placedMedium{key, medium, shard})
		if k, known := at[medium]; known && k == shard {
			return // seen with all that is below
		} else if !known {
			at[medium] = shard
		}
		if v := views[strings.TrimPrefix(medium, "view ")]; v != nil && strings.HasPrefix(medium, "view ") {
			for _, d := range v.Over {
				visit(key, d.medium(), shard)
			}
		}
	}
	for i := range c.Targets {
		for k := range c.Targets[i].LUNs {
			l := &c.Targets[i].LUNs[k]
			if medium := l.Medium(); medium != "" {
				visit(l.Key, medium, c.Targets[i].Shard)
			}
		}
	}
	return order, at
}

// ShardOf returns the shard of what has a name: a target, or a volume, view or "file:" and a file that
// is a LUN, or that a view is over.
func (c *Config) ShardOf(name string) (shard int, ok bool) {
	for i := range c.Targets {
		if c.Targets[i].Name == strings.ToLower(name) {
			return c.Targets[i].Shard, true
		}
	}
	_, at := c.mediaShards()
	for _, medium := range []string{"volume " + name, "view " + name, name} {
		if shard, ok = at[medium]; ok {
			return shard, true
		}
	}
	return 0, false
}

// placedMedium is a medium that a LUN has, itself or by a view.
type placedMedium struct {
	key, medium string
	shard       int
}

// Again returns the configuration that text is, reduced as this one is.
func (c *Config) Again(text []byte) (*Config, error) {
	next, err := Parse(c.File, text)
	return c.alike(next, err)
}

// Reload is Again with the file.
func (c *Config) Reload() (*Config, error) {
	next, err := Load(c.File)
	return c.alike(next, err)
}

func (c *Config) alike(next *Config, err error) (*Config, error) {
	if err != nil || c.part == nil {
		return next, err
	}
	if next.Pool == nil || next.Pool.Shards != c.part.of {
		return nil, next.Problem("ceph.shards", "the number of shards cannot change while they are served")
	}
	out, err := next.Part(c.part.node.Name, c.part.shard)
	if err == nil && c.part.more != nil {
		out.Extend(c.part.more)
	}
	return out, err
}

// Extend changes a part of a configuration by a function, which is also called with those that are
// read in its place (Again, Reload).
func (c *Config) Extend(more func(*Config)) {
	c.part.more = more
	more(c)
}

// shards reads how many shards a pool has, and which nodes share them.
func (c *checker) shards(raw *fileCeph, p *Pool) {
	p.Shards = int(c.number("ceph.shards", raw.Shards, 0, 1, MaxShards, "shards"))
	if len(raw.Nodes) > maxNodes {
		c.add("ceph.nodes", "%d nodes; at most %d share a pool", len(raw.Nodes), maxNodes)
		return
	}
	names, addresses := map[string]bool{}, map[netip.Addr]bool{}
	for i, r := range raw.Nodes {
		key := fmt.Sprintf("ceph.nodes[%d]", i)
		name, named := c.required(key+".name", r.Name, "the host name of a machine")
		text, placed := c.required(key+".address", r.Address, "the address of the machine, for example 192.0.2.1")
		if !named || !placed {
			continue
		}
		a, err := netip.ParseAddr(text)
		a = a.Unmap()
		switch {
		case !IsNodeName(name):
			c.add(key+".name", "invalid name %q; use letters, digits, dots and dashes", name)
		case names[name]:
			c.add(key+".name", "%s is in the list twice", name)
		case err != nil || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "":
			c.add(key+".address", "invalid address %q; use the IP address by which others reach the machine", text)
		case addresses[a]:
			c.add(key+".address", "%s is in the list twice", a)
		default:
			names[name], addresses[a] = true, true
			p.Nodes = append(p.Nodes, Node{name, a})
		}
	}
	if (p.Shards == 0) != (len(raw.Nodes) == 0) {
		c.add("ceph", "shards and nodes require each other; give both or neither")
	}
}

// checkShards adds problems for what several shards cannot have.
func (c *checker) checkShards(cfg *Config) {
	shards := 0
	if cfg.Pool != nil {
		shards = cfg.Pool.Shards
	}
	for i := range cfg.Targets {
		if t := &cfg.Targets[i]; t.Shard >= max(shards, 1) {
			c.add(fmt.Sprintf("targets[%d].shard", i), "there is no shard %d: ceph.shards gives %d", t.Shard, shards)
		}
	}
	if shards == 0 {
		return
	}
	if len(cfg.Portals) != 1 || !cfg.Portals[0].unspecified() || cfg.Portals[0].Advertise != "" || int(cfg.Portals[0].Port)+shards > 65535 || cfg.Portals[0].Port == 0 {
		c.add("portals", "nodes that share shards listen at their addresses in ceph.nodes; give one portal, 0.0.0.0 or [::] with the port of all nodes, which the ports of the shards follow")
	}
	c.checkPorts(cfg)
	c.checkMedia(cfg)
	if len(cfg.Replicas) > 0 {
		c.add("replicas", "replicas are not for a pool with ceph.shards; leave them out")
	}
	if cfg.MemoryTotal > 0 {
		m := Memory{Cache: cfg.Store.Cache, Tokens: cfg.Tokens.Memory, Buffers: cfg.Limits.Buffers}
		for i := range cfg.Views {
			m.Views += cfg.Views[i].Memory
		}
		if least := m.minimum() * int64(shards); cfg.MemoryTotal < least {
			c.add("memory", "%s is too small: a node can have all %d shards, which need %s", FormatSize(cfg.MemoryTotal), shards, FormatSize(least))
		}
	}
	for k := range shards {
		if !slices.ContainsFunc(cfg.Targets, func(t Target) bool { return t.Shard == k }) && len(c.problems) == 0 {
			c.add("ceph.shards", "shard %d has no target: give one of targets the key shard: %d", k, k)
		}
	}
	for i, a := range cfg.Pool.Addresses {
		if a.Shard >= shards {
			c.add(fmt.Sprintf("ceph.addresses[%d].shard", i), "there is no shard %d: ceph.shards gives %d", a.Shard, shards)
		}
	}
}

// checkPorts adds a problem for ports of shards that are those of other listeners.
func (c *checker) checkPorts(cfg *Config) {
	type span struct {
		key   string
		first int
	}
	var taken []span
	add := func(key, address string) {
		_, port, err := net.SplitHostPort(address)
		first, perr := strconv.Atoi(port)
		if err != nil || perr != nil {
			return
		}
		if first == 0 || first+cfg.Pool.Shards > 65535 {
			c.add(key, "the %d ports after %d are those of the shards; choose a lower one that is not 0", cfg.Pool.Shards, first)
			return
		}
		for _, t := range taken {
			if first <= t.first+cfg.Pool.Shards && t.first <= first+cfg.Pool.Shards {
				c.add(key, "port %d and the %d after it, which are those of the shards, overlap those of %s", first, cfg.Pool.Shards, t.key)
			}
		}
		taken = append(taken, span{key, first})
	}
	if len(cfg.Portals) == 1 {
		add("portals[0]", cfg.Portals[0].String())
	}
	add("api.listen", cfg.API.Listen)
	add("metrics.listen", cfg.Metrics.Listen)
}

// checkMedia adds a problem for each medium that targets of two shards have: they would be two.
func (c *checker) checkMedia(cfg *Config) {
	order, at := cfg.mediaShards()
	for _, m := range order {
		if k := at[m.medium]; k != m.shard {
			c.add(m.key, "%s is in shard %d, where another target has it, and in shard %d; a medium is in one shard: give this one another name, or the targets one shard", m.medium, k, m.shard)
		}
	}
}
