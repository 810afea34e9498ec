package conf

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
)

type (
	fileView struct {
		Name      *string        `yaml:"name"`
		Size      *string        `yaml:"size"`
		Partition *filePartition `yaml:"partition"`
		Stripe    *fileStripe    `yaml:"stripe"`
		Mirror    *fileLegs      `yaml:"mirror"`
		Cache     *fileCache     `yaml:"cache"`
		Verify    *fileOver      `yaml:"verify"`
		Origin    *fileOver      `yaml:"origin"`
		Snapshot  *fileOver      `yaml:"snapshot"`
	}
	filePartition struct {
		Of        *string `yaml:"of"`
		Number    *string `yaml:"number"`
		BlockSize *string `yaml:"block_size"`
	}
	fileStripe struct {
		Legs []*string `yaml:"legs"`
		Unit *string   `yaml:"unit"`
	}
	fileLegs struct {
		Legs []*string `yaml:"legs"`
	}
	fileCache struct {
		Of     *string `yaml:"of"`
		Memory *string `yaml:"memory"`
		Mode   *string `yaml:"mode"`
	}
	fileOver struct {
		Of *string `yaml:"of"`
	}
)

// ViewKind says what a view does.
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

// View is a volume made of others.
type View struct {
	Name string
	Kind ViewKind
	// Over are the legs of a stripe or mirror; of other kinds there is one.
	Over []Device
	// Size is the size in bytes of volumes in Over that do not exist; 0: they have to.
	Size int64
	// Number of a partition, and the length in bytes of the logical blocks that its
	// table counts in.
	Number, BlockSize int
	// Unit of a stripe in bytes.
	Unit int64
	// Memory of a cache in bytes. WriteBack: writes stay in it until a flush.
	Memory    int64
	WriteBack bool
	// Key is where the view stands in the file, for example "views[0]".
	Key string
}

// Device is what a view is over. One of its fields is set.
type Device struct {
	View, Volume, File string
	// Backing is the path of a plain file outside the store.
	Backing string
}

// String is the device as the file has it.
func (d Device) String() string {
	switch {
	case d.File != "":
		return "file:" + d.File
	case d.Backing != "":
		return "backing:" + d.Backing
	default:
		return cmp.Or(d.View, d.Volume)
	}
}

// Bounds of what views can be.
const (
	defaultUnit   = 64 << 10
	maxUnit       = 1 << 30
	maxLegs       = 64
	defaultMemory = 64 << 20
	leastMemory   = 1 << 20
	maxPartitions = 1 << 13
)

// views reads the views, and returns them so that each stands behind those that it
// is over.
func (c *checker) views(raw []fileView) []View {
	views := make([]View, 0, len(raw))
	first := map[string]string{} // name → key
	for i := range raw {
		key := fmt.Sprintf("views[%d]", i)
		if c.misshapen[key] {
			continue
		}
		v := View{Key: key}
		if name, ok := c.required(key+".name", raw[i].Name, "a name, which LUNs and other views use"); ok {
			v.Name = name
			if err := CheckVolumeName(name); err != nil {
				c.add(key+".name", "%v", err)
			}
			if where, ok := first[name]; ok {
				c.add(key+".name", "view %s is defined twice (first at line %d); give each view its own name", name, lineOf(c.lines, where))
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

// view reads what a view does: one of the kinds.
func (c *checker) view(key string, raw *fileView, v *View) {
	v.Size = c.size(key+".size", raw.Size, 512)
	if v.Size > MaxSize {
		c.add(key+".size", "%s is too large; %s is the most", FormatSize(v.Size), FormatSize(MaxSize))
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
	misshapen := false
	for _, k := range kinds {
		at := key + "." + string(k.kind)
		misshapen = misshapen || c.misshapen[at]
		switch {
		case !k.is:
		case v.Kind != "":
			c.add(at, "the view is a %s already; keep one, and put a view over the other for both", v.Kind)
		default:
			v.Kind = k.kind
			k.read(at)
		}
	}
	if v.Kind == "" && !misshapen {
		c.add(key, "does nothing; give it one of partition, stripe, mirror, cache, verify, origin, snapshot")
	}
}

func (c *checker) partitionView(key string, raw *filePartition, v *View) {
	v.Over = c.over(key+".of", raw.Of)
	if number, ok := c.required(key+".number", raw.Number, "the number of the partition, from 1 on"); ok {
		v.Number = int(c.number(key+".number", &number, 0, 1, maxPartitions, "a partition"))
	}
	v.BlockSize = 512
	if c.oneOf(key+".block_size", raw.BlockSize, "512", "4096") == "4096" {
		v.BlockSize = 4096
	}
}

func (c *checker) stripeView(key string, raw *fileStripe, v *View) {
	v.Over = c.legs(key+".legs", raw.Legs)
	v.Unit = defaultUnit
	if unit := c.size(key+".unit", raw.Unit, 4096); unit > maxUnit || unit%4096 != 0 {
		c.add(key+".unit", "%s is not possible; write a multiple of 4KiB up to 1GiB", FormatSize(unit))
	} else if unit != 0 {
		v.Unit = unit
	}
}

func (c *checker) cacheView(key string, raw *fileCache, v *View) {
	v.Over = c.over(key+".of", raw.Of)
	v.Memory = cmp.Or(c.size(key+".memory", raw.Memory, leastMemory), defaultMemory)
	v.WriteBack = c.oneOf(key+".mode", raw.Mode, "write-through", "write-back") == "write-back"
}

const deviceForms = "a view, a volume, a file of the store (file:NAME), or a plain file (backing:PATH)"

// over reads the one device that a view is over.
func (c *checker) over(key string, value *string) []Device {
	text, ok := c.required(key, value, deviceForms)
	if !ok {
		return nil
	}
	return []Device{c.device(key, text)}
}

func (c *checker) legs(key string, raw []*string) (legs []Device) {
	if !c.misshapen[key] && (len(raw) < 2 || len(raw) > maxLegs) {
		c.add(key, "has %d devices; give from 2 to %d", len(raw), maxLegs)
	}
	for i, value := range raw {
		legs = append(legs, c.over(fmt.Sprintf("%s[%d]", key, i), value)...)
	}
	return legs
}

// device reads the name of one; whether a name is that of a view shows later.
func (c *checker) device(key, text string) Device {
	if name, ok := strings.CutPrefix(text, "file:"); ok {
		if !isFileName(name) {
			c.add(key, "%q is not the name of a file of the store; write file: and a path like images/base.img, or backing:PATH for a plain file", text)
		}
		return Device{File: name}
	}
	if path, ok := strings.CutPrefix(text, "backing:"); ok {
		if path == "" {
			c.add(key, "%q has no path; write backing:PATH", text)
		}
		return Device{Backing: resolve(c.file, path)}
	}
	if err := CheckVolumeName(text); err != nil {
		c.add(key, "%v; or write %s", err, deviceForms)
	}
	return Device{Volume: text}
}

// isFileName reports whether a file of the store can have the name: a path that begins
// with no slash and no dot, and has no empty part and no . or .. in it.
func isFileName(name string) bool {
	return name != "" && name[0] != '/' && name[0] != '.' && path.Clean(name) == name
}

// orderViews puts each view behind those that it is over, and reports loops.
func (c *checker) orderViews(views []View) []View {
	byName := map[string]*View{}
	for i := range views {
		byName[views[i].Name] = &views[i]
	}
	const open, done = 1, 2
	state := map[string]int{}
	var ordered []View
	var way []string
	var visit func(v *View)
	visit = func(v *View) {
		switch state[v.Name] {
		case done:
			return
		case open:
			loop := append(slices.Clone(way[slices.Index(way, v.Name):]), v.Name)
			c.add(v.Key, "view %s is over itself: %s; take one of them out", v.Name, strings.Join(loop, " over "))
			return
		}
		state[v.Name] = open
		way = append(way, v.Name)
		for _, d := range v.Over {
			if d.View != "" {
				visit(byName[d.View])
			}
		}
		way = way[:len(way)-1]
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

// device is the LUN's medium as views name it.
func (l *LUN) device() string {
	if l.Backing != "" || l.File != "" {
		return Device{File: l.File, Backing: l.Backing}.String()
	}
	return cmp.Or(l.View, l.Volume)
}

// deviceUse is a view or a LUN on a device; shares says that others may use it, too.
type deviceUse struct {
	key, who string
	shares   bool
}

// checkUses refuses a device that somebody needs for itself and that another one
// uses.
func (c *checker) checkUses(name string, users []deviceUse) {
	i := slices.IndexFunc(users, func(u deviceUse) bool { return !u.shares })
	if i < 0 || len(users) == 1 {
		return
	}
	for j, u := range users {
		if j != i && (u.shares || j > i) {
			c.add(u.key, "%s is used by %s (line %d), which changes it and has to be alone; use that one instead", name, users[i].who, lineOf(c.lines, users[i].key))
		}
	}
}

// checkViewLUN checks a LUN on a view.
func (c *checker) checkViewLUN(l *LUN, byName map[string]*View) {
	switch {
	case l.View == "":
		if v := byName[l.Volume]; v != nil && l.Volume != "" {
			c.add(l.Key+".volume", "LUN %d: %s is a view (line %d); write view: %s, or give the view another name", l.Number, l.Volume, lineOf(c.lines, v.Key), l.Volume)
		}
	case byName[l.View] == nil:
		c.add(l.Key+".view", "LUN %d: there is no view %s under views", l.Number, l.View)
	case l.Size != 0:
		c.add(l.Key+".size", "LUN %d: a view has the size that what it is over gives it; leave size out", l.Number)
	case byName[l.View].Kind == ViewSnapshot && !l.ReadOnly:
		c.add(l.Key+".view", "LUN %d: a snapshot is never written to; add read_only: true", l.Number)
	}
}

func (c *checker) checkView(v *View, byName map[string]*View) {
	key := v.Key + "." + string(v.Kind)
	if v.Kind == ViewSnapshot && len(v.Over) > 0 {
		if of := byName[v.Over[0].View]; v.Over[0].View == "" || of.Kind != ViewOrigin {
			c.add(key+".of", "%s is not an origin; a snapshot is of a view that is one, which keeps what is overwritten", v.Over[0])
		}
	}
	if v.Kind != ViewVerify && v.Kind != ViewOrigin {
		return
	}
	if cache := writeBackBelow(v, byName, map[string]bool{}); cache != "" {
		c.add(key, "view %s is over the cache %s, which keeps writes in memory: after a power cut the two would disagree; make that one write-through, or put it on top", v.Name, cache)
	}
}

// writeBackBelow returns the name of a write-back cache that v is over, if there is
// one.
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
