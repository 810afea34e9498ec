package conf

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
)

// ViewKind is the function of a view.
type ViewKind string

// The kinds of views.
const (
	ViewPartition ViewKind = "partition"
	ViewStripe    ViewKind = "stripe"
	ViewMirror    ViewKind = "mirror"
	ViewCache     ViewKind = "cache"
	ViewVerify    ViewKind = "verify"
	ViewOrigin    ViewKind = "origin"
	ViewSnapshot  ViewKind = "snapshot"
)

// View is a volume composed of others.
type View struct {
	Name string
	Kind ViewKind
	// Over lists the devices of the view: the legs of a stripe or mirror, otherwise one.
	Over []Device
	// Size is the size in bytes with which missing volumes in Over are created. If 0,
	// they must exist.
	Size int64
	// Number is the number of a partition, BlockSize the logical block length of its
	// table in bytes.
	Number, BlockSize int
	// StripeUnit is the striping unit in bytes.
	StripeUnit int64
	// Memory is the size of a cache in bytes. WriteBack keeps writes in it until a flush.
	Memory    int64
	WriteBack bool
	// Key is the path of the view in the file, for example "views[0]".
	Key string
}

// Device is a device of a view. Exactly one field is set.
type Device struct {
	View, Volume, File string
	// Backing is the path of a file outside the store.
	Backing string
	// ISCSI is a LUN of another target, as ParseISCSI returns it: the medium of a LUN, and of no
	// view.
	ISCSI string
}

// String returns the device in the syntax of the file.
func (d Device) String() string {
	switch {
	case d.File != "":
		return "file:" + d.File
	case d.Backing != "":
		return "backing:" + d.Backing
	case d.ISCSI != "":
		return d.ISCSI
	default:
		return cmp.Or(d.View, d.Volume)
	}
}

// Defaults and bounds of views.
const (
	defaultStripeUnit = 64 << 10
	maxStripeUnit     = 1 << 30
	maxLegs           = 64
	defaultMemory     = 64 << 20
	minMemory         = 1 << 20
	maxPartitions     = 1 << 13
)

// views reads the views, and returns them in dependency order.
func (c *checker) views(raw []fileView) []View {
	views := make([]View, 0, len(raw))
	first := map[string]string{} // name → key
	for i := range raw {
		key := fmt.Sprintf("views[%d]", i)
		if c.mistyped[key] {
			continue
		}
		v := View{Key: key}
		if name, ok := c.required(key+".name", raw[i].Name, "a name"); ok {
			v.Name = name
			if err := CheckVolumeName(name); err != nil {
				c.add(key+".name", "%v", err)
			}
			if where, ok := first[name]; ok {
				c.add(key+".name", "duplicate view %s (first at line %d); give each view its own name", name, lineOf(c.lines, where))
			}
			first[name] = key + ".name"
		}
		c.view(key, &raw[i], &v)
		views = append(views, v)
	}
	for i := range views {
		for j := range views[i].Over {
			if d := &views[i].Over[j]; first[d.Volume] != "" {
				d.View, d.Volume = d.Volume, ""
			}
		}
	}
	return c.orderViews(views)
}

// view reads the kind of a view and its parameters.
func (c *checker) view(key string, raw *fileView, v *View) {
	v.Size = c.size(key+".size", raw.Size, 512)
	if v.Size > MaxSize {
		c.add(key+".size", "%s exceeds the maximum of %s", FormatSize(v.Size), FormatSize(MaxSize))
	}
	kinds := []struct {
		kind ViewKind
		is   bool
		read func(key string)
	}{
		{ViewPartition, raw.Partition != nil, func(key string) { c.partitionView(key, raw.Partition, v) }},
		{ViewStripe, raw.Stripe != nil, func(key string) { c.stripeView(key, raw.Stripe, v) }},
		{ViewMirror, raw.Mirror != nil, func(key string) { v.Over = c.legs(key+".legs", raw.Mirror.Legs) }},
		{ViewCache, raw.Cache != nil, func(key string) { c.cacheView(key, raw.Cache, v) }},
		{ViewVerify, raw.Verify != nil, func(key string) { v.Over = c.over(key+".of", raw.Verify.Of) }},
		{ViewOrigin, raw.Origin != nil, func(key string) { v.Over = c.over(key+".of", raw.Origin.Of) }},
		{ViewSnapshot, raw.Snapshot != nil, func(key string) { v.Over = c.over(key+".of", raw.Snapshot.Of) }},
	}
	mistyped := false
	for _, k := range kinds {
		at := key + "." + string(k.kind)
		mistyped = mistyped || c.mistyped[at]
		switch {
		case !k.is:
		case v.Kind != "":
			c.add(at, "the view already is a %s; keep one kind, and stack a second view for the other", v.Kind)
		default:
			v.Kind = k.kind
			k.read(at)
		}
	}
	if v.Kind == "" && !mistyped {
		c.add(key, "missing kind; give one of partition, stripe, mirror, cache, verify, origin, snapshot")
	}
}

func (c *checker) partitionView(key string, raw *filePartition, v *View) {
	v.Over = c.over(key+".of", raw.Of)
	if number, ok := c.required(key+".number", raw.Number, "the number of the partition, from 1 on"); ok {
		v.Number = int(c.number(key+".number", &number, 0, 1, maxPartitions, "partition"))
	}
	v.BlockSize = 512
	if c.oneOf(key+".block_size", raw.BlockSize, "512", "4096") == "4096" {
		v.BlockSize = 4096
	}
}

func (c *checker) stripeView(key string, raw *fileStripe, v *View) {
	v.Over = c.legs(key+".legs", raw.Legs)
	v.StripeUnit = defaultStripeUnit
	if unit := c.size(key+".unit", raw.Unit, 4096); unit > maxStripeUnit || unit%4096 != 0 {
		c.add(key+".unit", "invalid value %s; use a multiple of 4KiB up to 1GiB", FormatSize(unit))
	} else if unit != 0 {
		v.StripeUnit = unit
	}
}

func (c *checker) cacheView(key string, raw *fileCache, v *View) {
	v.Over = c.over(key+".of", raw.Of)
	v.Memory = cmp.Or(c.size(key+".memory", raw.Memory, minMemory), defaultMemory)
	v.WriteBack = c.oneOf(key+".mode", raw.Mode, "write-through", "write-back") == "write-back"
}

const deviceForms = "a view, a volume, a file of the store (file:NAME), or a file outside it (backing:PATH)"

// over reads the device of a view with one device.
func (c *checker) over(key string, value *string) []Device {
	text, ok := c.required(key, value, deviceForms)
	if !ok {
		return nil
	}
	return []Device{c.device(key, text)}
}

func (c *checker) legs(key string, raw []*string) (legs []Device) {
	if !c.mistyped[key] && (len(raw) < 2 || len(raw) > maxLegs) {
		c.add(key, "%d devices; give 2 to %d", len(raw), maxLegs)
	}
	for i, value := range raw {
		legs = append(legs, c.over(fmt.Sprintf("%s[%d]", key, i), value)...)
	}
	return legs
}

// device reads the name of a device. It returns the name of a view as a volume; views
// resolves it.
func (c *checker) device(key, text string) Device {
	if name, ok := strings.CutPrefix(text, "file:"); ok {
		if !isFileName(name) {
			c.add(key, "invalid file name %q; use file: and a path like images/base.img, or backing:PATH for a file outside the store", text)
		}
		return Device{File: name}
	}
	if path, ok := strings.CutPrefix(text, "backing:"); ok {
		if path == "" {
			c.add(key, "%q: missing path; use backing:PATH", text)
		}
		return Device{Backing: resolve(c.file, path)}
	}
	if err := CheckVolumeName(text); err != nil {
		c.add(key, "%v; or use %s", err, deviceForms)
	}
	return Device{Volume: text}
}

// isFileName reports whether name is a valid name of a file of the store: a clean path
// that starts with neither a slash nor a dot.
func isFileName(name string) bool {
	return name != "" && name[0] != '/' && name[0] != '.' && path.Clean(name) == name
}

// orderViews sorts the views in dependency order, and adds a problem for each cycle.
func (c *checker) orderViews(views []View) []View {
	byName := map[string]*View{}
	for i := range views {
		byName[views[i].Name] = &views[i]
	}
	const open, done = 1, 2
	state := map[string]int{}
	var ordered []View
	var path []string
	var visit func(v *View)
	visit = func(v *View) {
		switch state[v.Name] {
		case done:
			return
		case open:
			cycle := append(slices.Clone(path[slices.Index(path, v.Name):]), v.Name)
			c.add(v.Key, "view %s depends on itself: %s; remove one", v.Name, strings.Join(cycle, " → "))
			return
		}
		state[v.Name] = open
		path = append(path, v.Name)
		for _, d := range v.Over {
			if d.View != "" {
				visit(byName[d.View])
			}
		}
		path = path[:len(path)-1]
		state[v.Name] = done
		ordered = append(ordered, *v)
	}
	for i := range views {
		visit(&views[i])
	}
	return ordered
}

// checkViews compares the views with each other and with the LUNs.
func (c *checker) checkViews(views []View, targets []Target) {
	byName := map[string]*View{}
	for i := range views {
		byName[views[i].Name] = &views[i]
	}
	uses := map[string][]deviceUse{}
	for _, v := range views {
		for _, d := range v.Over {
			shares := v.Kind == ViewPartition || v.Kind == ViewSnapshot
			uses[d.String()] = append(uses[d.String()], deviceUse{v.Key, "view " + v.Name, shares})
		}
		c.checkView(&v, byName)
	}
	for i := range targets {
		for j := range targets[i].LUNs {
			l := &targets[i].LUNs[j]
			c.checkViewLUN(l, byName)
			if name := l.device(); name != "" {
				uses[name] = append(uses[name], deviceUse{l.Key, fmt.Sprintf("LUN %d", l.Number), true})
			}
		}
	}
	for name, users := range uses {
		c.checkUses(name, users)
	}
}

// device returns the LUN's medium in the syntax of views.
func (l *LUN) device() string {
	if l.Backing != "" || l.File != "" || l.ISCSI != "" {
		return Device{File: l.File, Backing: l.Backing, ISCSI: l.ISCSI}.String()
	}
	return cmp.Or(l.View, l.Volume)
}

// deviceUse is a user of a device, a view or a LUN; shares permits other users.
type deviceUse struct {
	key, user string
	shares    bool
}

// checkUses refuses a device that has an exclusive user and another user.
func (c *checker) checkUses(name string, users []deviceUse) {
	i := slices.IndexFunc(users, func(u deviceUse) bool { return !u.shares })
	if i < 0 || len(users) == 1 {
		return
	}
	for j, u := range users {
		if j != i && (u.shares || j > i) {
			c.add(u.key, "%s is used exclusively by %s (line %d); use that instead", name, users[i].user, lineOf(c.lines, users[i].key))
		}
	}
}

// checkViewLUN checks a LUN on a view.
func (c *checker) checkViewLUN(l *LUN, byName map[string]*View) {
	switch {
	case l.View == "":
		if v := byName[l.Volume]; v != nil && l.Volume != "" {
			c.add(l.Key+".volume", "LUN %d: %s is a view (line %d); use view: %s, or rename the view", l.Number, l.Volume, lineOf(c.lines, v.Key), l.Volume)
		}
	case byName[l.View] == nil:
		c.add(l.Key+".view", "LUN %d: unknown view %s; define it under views", l.Number, l.View)
	case l.Size != 0:
		c.add(l.Key+".size", "LUN %d: the size of a view is that of its devices; omit size", l.Number)
	case byName[l.View].Kind == ViewSnapshot && !l.ReadOnly:
		c.add(l.Key+".view", "LUN %d: a snapshot is read-only; add read_only: true", l.Number)
	}
}

func (c *checker) checkView(v *View, byName map[string]*View) {
	key := v.Key + "." + string(v.Kind)
	if v.Kind == ViewSnapshot && len(v.Over) > 0 {
		if of := byName[v.Over[0].View]; v.Over[0].View == "" || of.Kind != ViewOrigin {
			c.add(key+".of", "%s is not an origin view; a snapshot requires one", v.Over[0])
		}
	}
	if v.Kind != ViewVerify && v.Kind != ViewOrigin {
		return
	}
	if cache := writeBackBelow(v, byName, map[string]bool{}); cache != "" {
		c.add(key, "view %s uses write-back cache %s: a power failure loses the writes in the cache but not the data of the view; make the cache write-through, or put it on top", v.Name, cache)
	}
}

// WritesBack reports whether a view is, or is over, a cache that writes back, whose writes
// are lost with the process.
func (c *Config) WritesBack(view string) bool {
	byName := map[string]*View{}
	for i := range c.Views {
		byName[c.Views[i].Name] = &c.Views[i]
	}
	v := byName[view]
	return v != nil && (v.Kind == ViewCache && v.WriteBack || writeBackBelow(v, byName, map[string]bool{}) != "")
}

// writeBackBelow returns the name of a write-back cache below v, or "".
func writeBackBelow(v *View, byName map[string]*View, seen map[string]bool) string {
	for _, d := range v.Over {
		below := byName[d.View]
		if d.View == "" || seen[d.View] {
			continue
		}
		seen[d.View] = true
		if below.Kind == ViewCache && below.WriteBack {
			return below.Name
		}
		if name := writeBackBelow(below, byName, seen); name != "" {
			return name
		}
	}
	return ""
}
