package conf

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Diff returns what is different in next, in the order of the file. Values that mean the
// same are no difference: 1024MiB and 1GiB, a default that is written out, a relative path
// and the absolute one.
//
// Files that the configuration names are not compared: a reload reads those with secrets
// and certificates again in any case.
func Diff(running, next *Config) []Change {
	a, b := running.file(), next.file()
	d := differ{reblocked: reblocked(running, next)}
	before, after := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	fillDefaults(before)
	fillDefaults(after)
	d.fields("", "", before, after)
	return d.changes
}

// differ collects the differences of two files.
type differ struct {
	changes []Change
	// reblocked are the media that both configurations serve, with other block sizes.
	reblocked map[string]bool
}

// reblocked returns the media of LUNs that have another block size in next.
func reblocked(running, next *Config) map[string]bool {
	sizes := map[string]int{}
	for i := range running.Targets {
		for _, l := range running.Targets[i].LUNs {
			sizes[l.Medium()] = l.BlockSize
		}
	}
	found := map[string]bool{}
	for i := range next.Targets {
		for _, l := range next.Targets[i].LUNs {
			if size, served := sizes[l.Medium()]; served && size != l.BlockSize {
				found[l.Medium()] = true
			}
		}
	}
	return found
}

// fields compares two structs at key. why is the reason of the enclosing key.
func (d *differ) fields(key, why string, a, b reflect.Value) {
	for i := range a.NumField() {
		f := fieldAt(a.Type(), i)
		if f.why == "" {
			f.why = why
		}
		at := f.name
		if key != "" {
			at = key + "." + at
		}
		d.field(at, f, a.Field(i), b.Field(i))
	}
	if lun, ok := b.Interface().(fileLUN); ok {
		d.classifyBlockSize(key, lun)
	}
}

// classifyBlockSize corrects the class of a change of the block size: it needs a restart
// only if the medium stays a LUN.
func (d *differ) classifyBlockSize(key string, after fileLUN) {
	for i := range d.changes {
		if c := &d.changes[i]; c.Key == key+".block_size" && !d.reblocked[after.medium()] {
			c.Class, c.Why = AtOnce, ""
		}
	}
}

// medium returns LUN.Medium of what the entry is parsed to.
func (l *fileLUN) medium() string {
	var out LUN
	for _, m := range []struct {
		value *string
		field *string
	}{{l.Volume, &out.Volume}, {l.File, &out.File}, {l.View, &out.View}, {l.Backing, &out.Backing}} {
		if m.value != nil {
			if name, err := ParseISCSI(*m.value); err == nil {
				out.ISCSI = name
				continue
			}
			*m.field = strings.TrimPrefix(*m.value, "file:")
		}
	}
	return out.Medium()
}

// field compares the values of one key.
func (d *differ) field(key string, f field, a, b reflect.Value) {
	switch t := f.kind; {
	case t.Kind() == reflect.Slice && isLeaf(t.Elem()):
		d.add(key, f, joined(f, a), joined(f, b))
	case t.Kind() == reflect.Slice && f.list != "":
		d.named(key, f, a, b)
	case t.Kind() == reflect.Slice:
		d.ordered(key, f, a, b)
	case isLeaf(t):
		d.leaf(key, f, a, b)
	case t.Kind() == reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			d.add(key, f, inline(a), inline(b))
			return
		}
		d.fields(key, f.why, a.Elem(), b.Elem())
	case f.part && (a.IsZero() || b.IsZero()):
		d.add(key, f, inline(a), inline(b))
	default:
		d.fields(key, f.why, a, b)
	}
}

// leaf compares two scalars. A secret is compared before it is masked.
func (d *differ) leaf(key string, f field, a, b reflect.Value) {
	before, after := scalar(a), scalar(b)
	if before == after {
		return
	}
	d.changes = append(d.changes, Change{key, f.shown(before), f.shown(after), f.class, f.reason()})
}

// add adds a change unless the values are equal.
func (d *differ) add(key string, f field, before, after string) {
	if before != after {
		d.changes = append(d.changes, Change{key, before, after, f.class, f.reason()})
	}
}

// named compares the entries of lists whose entries have names.
func (d *differ) named(key string, f field, a, b reflect.Value) {
	before, after := entries(f, a), entries(f, b)
	at := func(name string) string { return key + "[" + name + "]" }
	were, are := byName(before), byName(after)
	for _, e := range before {
		if next, stays := are[e.name]; stays {
			d.entry(at(e.name), f, e.value, next)
		} else {
			d.add(at(e.name), f, inline(e.value), "")
		}
	}
	for _, e := range after {
		if _, was := were[e.name]; !was {
			d.addEntry(at(e.name), f, e.value)
		}
	}
}

// addEntry adds a new entry. A LUN whose medium was served with another block size is not
// new.
func (d *differ) addEntry(key string, f field, v reflect.Value) {
	lun, isLUN := v.Interface().(fileLUN)
	if isLUN && d.reblocked[lun.medium()] {
		size := fieldNamed(v.Type(), "block_size")
		f.class, f.why = size.class, size.why
	}
	d.add(key, f, "", inline(v))
}

// entry compares an entry of a list that is in both.
func (d *differ) entry(key string, f field, a, b reflect.Value) {
	if a.Kind() == reflect.Pointer {
		a, b = a.Elem(), b.Elem()
	}
	d.fields(key, f.why, a, b)
}

// ordered compares lists whose order matters: what is equal at the beginning and at the end
// is left out, and the rest compared by position.
func (d *differ) ordered(key string, f field, a, b reflect.Value) {
	equal := func(i, j int) bool { return reflect.DeepEqual(a.Index(i).Interface(), b.Index(j).Interface()) }
	start, endA, endB := 0, a.Len(), b.Len()
	for start < endA && start < endB && equal(start, start) {
		start++
	}
	for endA > start && endB > start && equal(endA-1, endB-1) {
		endA, endB = endA-1, endB-1
	}
	for i := start; i < max(endA, endB); i++ {
		at := fmt.Sprintf("%s[%d]", key, i)
		switch {
		case i >= endA:
			d.add(at, f, "", inline(b.Index(i)))
		case i >= endB:
			d.add(at, f, inline(a.Index(i)), "")
		default:
			d.entry(at, f, a.Index(i), b.Index(i))
		}
	}
}

// entry is an entry of a list, and its name.
type entry struct {
	name  string
	value reflect.Value
}

func byName(list []entry) map[string]reflect.Value {
	values := make(map[string]reflect.Value, len(list))
	for _, e := range list {
		values[e.name] = e.value
	}
	return values
}

// entries returns the entries of a list with their names. Of those with one name, which
// only portals with port 0 may have, further ones are numbered.
func entries(f field, list reflect.Value) []entry {
	var out []entry
	times := map[string]int{}
	for i := range list.Len() {
		e := entry{value: list.Index(i)}
		v := e.value
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		e.name = scalar(v.Field(fieldNamed(v.Type(), f.list).index))
		if v.Type() == reflect.TypeFor[filePortal]() {
			e.name, _, _ = strings.Cut(e.name, ",")
		}
		if times[e.name]++; times[e.name] > 1 {
			e.name = fmt.Sprintf("%s#%d", e.name, times[e.name])
		}
		out = append(out, e)
	}
	return out
}

// joined returns the scalars of a list in one line.
func joined(f field, list reflect.Value) string {
	texts := make([]string, list.Len())
	for i := range texts {
		texts[i] = scalar(list.Index(i))
	}
	if f.list == "set" {
		slices.Sort(texts)
	}
	return strings.Join(texts, ", ")
}

// scalar returns the text of a scalar, "" if it is absent.
func scalar(v reflect.Value) string {
	if v.IsNil() {
		return ""
	}
	return v.Elem().String()
}
