package conf

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// config converts the values of the file into a Config, and adds a problem for each
// invalid one.
func (c *checker) config(raw *fileConfig) *Config {
	cfg := &Config{File: c.file, lines: c.lines}
	c.place(raw, cfg)
	cfg.Portals = c.portals(raw.Portals)
	cfg.Targets = c.targets(raw.Targets, cfg.Portals)
	cfg.DiscoveryAuthentication = c.authentication("discovery.authentication", &raw.Discovery.Authentication)
	cfg.CopyRules = c.copyRules("copy.rules", raw.Copy.Rules)
	cfg.Store = c.store(&raw.Store)
	cfg.Limits = c.limits(&raw.Limits)
	cfg.QoS = c.qos(&raw.QoS, cfg.Targets)
	cfg.Tokens = c.tokens(&raw.Tokens)
	cfg.API = c.api(&raw.API)
	cfg.Peers = c.peers(raw.Peers)
	cfg.Audit = c.audit(&raw.Audit)
	cfg.Metrics = c.metrics(&raw.Metrics, cfg.API)
	cfg.Alerts = c.alerts(raw.Alerts)
	cfg.Snapshots = c.snapshots(raw.Snapshots)
	cfg.Replicas = c.replicas(raw.Replicas, cfg.Peers)
	cfg.Log = Log{
		Level:  c.oneOf("log.level", raw.Log.Level, "info", "debug", "warn", "error"),
		Format: c.oneOf("log.format", raw.Log.Format, "text", "json"),

		SlowCommand: c.slowCommand(raw.Log.SlowCommand),
	}
	cfg.Views = c.views(raw.Views)
	cfg.MemoryTotal = c.memory(raw.Memory, cfg)
	c.checkShared(cfg.Targets)
	c.checkIdentities(cfg.Targets)
	c.checkViews(cfg.Views, cfg.Targets)
	c.checkPool(cfg)
	c.checkShards(cfg)
	return cfg
}

// required returns the value of a mandatory key.
func (c *checker) required(key string, value *string, what string) (string, bool) {
	if value != nil && *value != "" {
		return *value, true
	}
	if !c.mistyped[key] {
		c.add(key, "missing; give %s", what)
	}
	return "", false
}

// oneOf returns value, which must be def or one of others; def when absent.
func (c *checker) oneOf(key string, value *string, def string, others ...string) string {
	if value == nil || *value == def || slices.Contains(others, *value) {
		if value == nil {
			return def
		}
		return *value
	}
	c.add(key, "unknown value %q; use %s or %s", *value, strings.Join(append([]string{def}, others[:len(others)-1]...), ", "), others[len(others)-1])
	return def
}

func (c *checker) portals(raw []*filePortal) []Portal {
	if len(raw) == 0 && !c.mistyped["portals"] {
		c.add("portals", "missing; give at least one address to listen on, for example [\"127.0.0.1:3260\"]")
	}
	portals := make([]Portal, len(raw))
	for i := range raw {
		key := PortalKey(i)
		if c.mistyped[key] {
			continue
		}
		if raw[i] == nil {
			raw[i] = &filePortal{}
		}
		value, ok := c.required(key, raw[i].Address, "an address, for example \"127.0.0.1:3260\"")
		if !ok {
			continue
		}
		p, err := ParsePortal(value)
		if err != nil {
			c.add(key, "%v", err)
			continue
		}
		for j, other := range portals[:i] {
			if p.overlaps(other) {
				c.add(key, "%s overlaps %s (%s); remove one", p, other, PortalKey(j))
				break
			}
		}
		p.Advertise = c.advertise(key+".advertise", raw[i].Advertise)
		portals[i] = p
	}
	return portals
}

// advertise reads the address that discovery reports for a portal.
func (c *checker) advertise(key string, value *string) string {
	if value == nil {
		return ""
	}
	p, err := parseAddress(*value)
	switch {
	case err != nil:
		c.add(key, "%v", err)
	case p.Port == 0 || p.unspecified():
		c.add(key, "initiators cannot connect to %q; use the address by which they reach the portal, for example 203.0.113.5:3260", *value)
	}
	return p.String()
}

func (c *checker) targets(raw []fileTarget, portals []Portal) []Target {
	if len(raw) == 0 && !c.mistyped["targets"] {
		c.add("targets", "missing; give at least one target with a name and luns")
	}
	targets := make([]Target, 0, len(raw))
	first := map[string]string{} // name → key
	for i, rt := range raw {
		key := fmt.Sprintf("targets[%d]", i)
		if c.mistyped[key] {
			continue
		}
		t := Target{Name: c.targetName(key+".name", rt.Name)}
		if where, ok := first[t.Name]; ok {
			c.add(key+".name", "duplicate target %s (first at line %d); give each target its own name", t.Name, lineOf(c.lines, where))
		} else if t.Name != "" {
			first[t.Name] = key + ".name"
		}
		t.Shard = int(c.number(key+".shard", rt.Shard, 0, 0, MaxShards-1, ""))
		t.PortalGroups = c.portalGroups(key+".portal_groups", rt.PortalGroups, portals)
		t.Paths = c.paths(key+".paths", rt.Paths, &t, portals)
		t.FixedPaths = c.fixedPaths(key+".initiators_set_paths", rt.SetPaths, len(t.Paths) > 0)
		t.Redirect = c.redirect(key+".redirect", rt.Redirect)
		if len(rt.LUNs) > 0 || t.Redirect == nil && !c.mistyped[key+".redirect"] {
			t.LUNs = c.luns(key+".luns", rt.LUNs)
		}
		t.Authentication = c.authentication(key+".authentication", &rt.Authentication)
		t.Access = c.access(key+".access", rt.Access, t.LUNs)
		targets = append(targets, t)
	}
	return targets
}

func (c *checker) targetName(key string, value *string) string {
	text, ok := c.required(key, value, "an iSCSI name, for example iqn.2026-11.com.example:disks")
	if !ok {
		return ""
	}
	name, err := ParseName(text)
	if err != nil {
		c.add(key, "%v", err)
	}
	return name
}

func (c *checker) luns(key string, raw []fileLUN) []LUN {
	if len(raw) == 0 && !c.mistyped[key] {
		c.add(key, "missing; give at least one LUN, for example {lun: 0, volume: disk0, size: 10GiB}")
	}
	luns := make([]LUN, 0, len(raw))
	first := map[uint16]string{} // LUN → key
	for i := range raw {
		lunKey := fmt.Sprintf("%s[%d]", key, i)
		if c.mistyped[lunKey] {
			continue
		}
		l, numbered := c.lun(lunKey, &raw[i])
		if where, ok := first[l.Number]; ok && numbered {
			c.add(lunKey+".lun", "duplicate LUN %d (first at line %d); give each LUN of a target its own number", l.Number, lineOf(c.lines, where))
		} else if numbered {
			first[l.Number] = lunKey + ".lun"
		}
		luns = append(luns, l)
	}
	return luns
}

var volumeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// CheckVolumeName returns an error if name is not a valid name of a volume.
func CheckVolumeName(name string) error {
	if !volumeName.MatchString(name) {
		return fmt.Errorf("invalid volume name %q; use 1 to 64 letters, digits, dots, dashes and underscores, beginning with a letter or digit", name)
	}
	return nil
}

// lun reads one LUN; numbered reports whether its number is valid.
func (c *checker) lun(key string, raw *fileLUN) (l LUN, numbered bool) {
	l.Key = key
	prefix := "" // of messages, once the number is known
	if text, ok := c.required(key+".lun", raw.LUN, fmt.Sprintf("the LUN, a number from 0 to %d", MaxLUN)); ok {
		if l.Number, numbered = c.lunNumber(key+".lun", text); numbered {
			prefix = fmt.Sprintf("LUN %d: ", l.Number)
		}
	}
	c.medium(key, prefix, raw, &l)
	c.login(key, prefix, raw, &l)
	switch bs := c.oneOf(key+".block_size", raw.BlockSize, "512", "4096"); bs {
	case "4096":
		l.BlockSize = 4096
	default:
		l.BlockSize = 512
	}
	l.ReadOnly = c.oneOf(key+".read_only", raw.ReadOnly, "false", "true") == "true"
	l.StoreDuplicates = c.oneOf(key+".dedup", raw.Dedup, "true", "false") == "false"
	l.Rate = c.rate(key+".qos", &raw.QoS)
	l.UnmapGranularity = c.unmapGranularity(key+".unmap_granularity", raw.UnmapGranularity)
	l.Identity = c.identity(key+".identity", raw.Identity)
	if raw.Size != nil {
		size, err := ParseSize(*raw.Size)
		switch {
		case err != nil:
			c.add(key+".size", "%s%v", prefix, err)
		case size == 0 || size%int64(l.BlockSize) != 0:
			c.add(key+".size", "%s%s is not a positive multiple of the block size, %d bytes", prefix, *raw.Size, l.BlockSize)
		case size > MaxSize:
			c.add(key+".size", "%s%s exceeds the maximum of %s", prefix, *raw.Size, FormatSize(MaxSize))
		default:
			l.Size = size
		}
	}
	return l, numbered
}

// unmapGranularity reads a multiple of the block of the store, and hence of the
// logical block.
func (c *checker) unmapGranularity(key string, value *string) int64 {
	const least, most = 4 << 10, 1 << 20
	n := c.size(key, value, least)
	if n > most || n&(n-1) != 0 {
		c.add(key, "invalid value %s; use a power of two from %s to %s", *value, FormatSize(least), FormatSize(most))
		return 0
	}
	return n
}

// medium reads the medium of a LUN.
func (c *checker) medium(key, prefix string, raw *fileLUN, l *LUN) {
	given, shaped := 0, true
	for name, value := range map[string]*string{"volume": raw.Volume, "file": raw.File, "backing": raw.Backing, "view": raw.View} {
		shaped = shaped && !c.mistyped[key+"."+name]
		if value != nil {
			given++
		}
	}
	switch {
	case given > 1:
		c.add(key, "%smore than one of volume, file, backing and view; keep one", prefix)
	case raw.View != nil:
		l.View, _ = c.required(key+".view", raw.View, "the name of a view")
	case raw.File != nil:
		l.File = *raw.File
		if !isFileName(l.File) {
			c.add(key+".file", "%sinvalid file name %q; use a path like images/base.vhdx, or backing: file:PATH for a file outside the store", prefix, l.File)
		}
	case raw.Volume != nil:
		l.Volume = *raw.Volume
		if err := CheckVolumeName(l.Volume); err != nil {
			c.add(key+".volume", "%s%v", prefix, err)
		}
	case raw.Backing != nil:
		c.backing(key+".backing", prefix, *raw.Backing, l)
	case shaped:
		c.add(key+".volume", "%smissing volume; give the name of a volume (or file: NAME, view: NAME, or backing: file:PATH, or backing: iscsi://…)", prefix)
	}
}

func (c *checker) store(raw *fileStore) Store {
	const unitMin, unitMax = 4 << 10, 64 << 10
	s := Store{
		Capacity: c.size("store.capacity", raw.Capacity, 256<<20),
		Cache:    c.size("store.cache", raw.Cache, 16<<20),
	}
	s.StoreDuplicates = c.oneOf("store.dedup", raw.Dedup, "true", "false") == "false"
	s.CleanIO = c.number("store.clean_io_mib_per_s", raw.CleanIO, 0, 1, 1<<20, "MiB per second") << 20
	s.MetadataCopies = int(c.number("store.metadata_copies", raw.Copies, DefaultMetadataCopies, 1, 2, "copies"))
	s.ScrubEvery = c.scrubEvery("store.scrub_every", raw.ScrubEvery)
	s.ScrubIO = c.number("store.scrub_io_mib_per_s", raw.ScrubIO, 0, 1, 1<<20, "MiB per second") << 20
	s.SoftThreshold = int(c.number("store.soft_threshold", raw.SoftThreshold, DefaultSoftThreshold, 0, 99, "percent of the capacity"))
	if unit := c.size("store.dedup_unit", raw.DedupUnit, unitMin); unit > unitMax || unit&(unit-1) != 0 {
		c.add("store.dedup_unit", "invalid value %s; use 4KiB, 8KiB, 16KiB, 32KiB or 64KiB", FormatSize(unit))
	} else {
		s.DedupUnit = int(unit)
	}
	return s
}

// scrubEvery reads an optional number of days, or a duration; 0 is never.
func (c *checker) scrubEvery(key string, value *string) time.Duration {
	if value == nil {
		return DefaultScrubEvery
	}
	text := strings.TrimSpace(*value)
	if text == "0" || text == "never" {
		return 0
	}
	var d time.Duration
	days, err := strconv.Atoi(strings.TrimSuffix(text, "d"))
	if err == nil && strings.HasSuffix(text, "d") && days <= 366 {
		d = time.Duration(days) * 24 * time.Hour
	} else {
		d, err = time.ParseDuration(text)
	}
	if err != nil || d < time.Hour || d > 366*24*time.Hour {
		c.add(key, "invalid value %q; use days or hours, from 1h to 366d, for example 30d, or never", *value)
		return DefaultScrubEvery
	}
	return d
}

// number reads an optional whole number from least to most; def when absent.
func (c *checker) number(key string, value *string, def, least, most int64, what string) int64 {
	if value == nil {
		return def
	}
	n, err := strconv.ParseInt(*value, 10, 64)
	if err != nil || n < least || n > most {
		c.add(key, "invalid value %q; use a whole number (%s) from %d to %d", *value, what, least, most)
		return def
	}
	return n
}

// size reads an optional size of at least least bytes.
func (c *checker) size(key string, value *string, least int64) int64 {
	if value == nil {
		return 0
	}
	n, err := ParseSize(*value)
	if err != nil {
		c.add(key, "%v", err)
		return 0
	}
	if n < least {
		c.add(key, "%s is below the minimum of %s", *value, FormatSize(least))
		return 0
	}
	return n
}

// checkShared compares LUNs with the same medium: they are one logical unit, with one
// size, one block size and one write protection. A size given for one of them is
// copied to the others.
func (c *checker) checkShared(targets []Target) {
	groups := map[string][]*LUN{}
	var order []string
	for i := range targets {
		for j := range targets[i].LUNs {
			l := &targets[i].LUNs[j]
			medium := l.Medium()
			if groups[medium] == nil {
				order = append(order, medium)
			}
			groups[medium] = append(groups[medium], l)
		}
	}
	for _, medium := range order {
		if medium != "" {
			c.checkGroup(medium, groups[medium])
		}
	}
}

func (c *checker) checkGroup(medium string, luns []*LUN) {
	var sized *LUN
	for _, l := range luns {
		switch {
		case l.Size == 0:
		case sized == nil:
			sized = l
		case l.Size != sized.Size:
			c.add(l.Key+".size", "LUN %d: %s has conflicting sizes, %s here and %s at line %d; use one", l.Number, medium,
				FormatSize(l.Size), FormatSize(sized.Size), lineOf(c.lines, sized.Key+".size"))
		}
	}
	first := luns[0]
	for i, l := range luns {
		for _, other := range luns[:i] {
			if target, _, _ := strings.Cut(l.Key, "."); strings.HasPrefix(other.Key, target+".") {
				c.add(l.Key, "LUN %d: %s already is LUN %d of this target (line %d); remove one", l.Number, medium,
					other.Number, lineOf(c.lines, other.Key))
				break
			}
		}
		if sized != nil {
			l.Size = sized.Size
		}
		if l.BlockSize != first.BlockSize {
			c.add(l.Key+".block_size", "LUN %d: %s has conflicting block sizes, %d here and %d at line %d; use one", l.Number, medium,
				l.BlockSize, first.BlockSize, lineOf(c.lines, first.Key+".block_size"))
		}
		if l.UnmapGranularity != first.UnmapGranularity {
			c.add(l.Key+".unmap_granularity", "LUN %d: %s has conflicting values, here and at line %d; use one", l.Number, medium,
				lineOf(c.lines, first.Key+".unmap_granularity"))
		}
		if l.Identity != first.Identity {
			c.add(l.Key+".identity", "LUN %d: %s has conflicting identities, here and at line %d; use one", l.Number, medium, lineOf(c.lines, first.Key+".identity"))
		}
		if !sameLogin(l.Login, first.Login) {
			c.add(l.Key, "LUN %d: %s has conflicting logins, here and at line %d; use the same", l.Number, medium, lineOf(c.lines, first.Key))
		}
		if l.Rate != first.Rate {
			c.add(l.Key+".qos", "LUN %d: %s has conflicting limits, here and at line %d; use the same", l.Number, medium, lineOf(c.lines, first.Key+".qos"))
		}
		if l.ReadOnly != first.ReadOnly {
			c.add(l.Key+".read_only", "LUN %d: %s has conflicting values of read_only, %t here and %t at line %d; use one", l.Number, medium,
				l.ReadOnly, first.ReadOnly, lineOf(c.lines, first.Key+".read_only"))
		}
	}
}

// Medium returns the kind and name of the LUN's medium, for messages and as the
// identity of the logical unit within a configuration. It is empty if there is none.
func (l *LUN) Medium() string {
	switch {
	case l.Volume != "":
		return "volume " + l.Volume
	case l.Backing != "":
		return "file " + l.Backing
	case l.ISCSI != "":
		return l.ISCSI
	case l.View != "":
		return "view " + l.View
	case l.File != "":
		return Device{File: l.File}.String()
	default:
		return ""
	}
}
