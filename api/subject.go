package api

import (
	"fmt"
	"slices"
	"strings"

	"odx/admin"
	v1 "odx/api/v1"
	"odx/blockdev"
	"odx/tokens"
)

// The methods of this file name what a request is about to change, for the audit log, and
// describe it as it was before. A change by another request in between has its own line.

// objectOf returns the words for a volume, or with admin.FilePrefix a file.
func objectOf(name string) string {
	if file, ok := strings.CutPrefix(name, admin.FilePrefix); ok {
		return fileSubject(file)
	}
	return "volume " + name
}

func fileSubject(name string) string { return "file " + name }

// volume returns the volume in the path, and makes it the subject.
func (c *call) volume() string {
	name := c.request.PathValue("name")
	c.subject(objectOf(name))
	return name
}

// volumeAsItWas is volume, and describes it as it is.
func (c *call) volumeAsItWas() string {
	name := c.volume()
	if v := c.volumeNamed(name); v != nil {
		c.changed.Before = VolumeV1(*v)
	}
	return name
}

// volumeNamed describes a volume; nil if there is none.
func (c *call) volumeNamed(name string) *admin.Volume {
	all, err := c.admin.Volumes(c.ctx)
	if err != nil {
		return nil
	}
	if i := slices.IndexFunc(all, func(v admin.Volume) bool { return v.Name == name }); i >= 0 {
		return &all[i]
	}
	return nil
}

// revertedAsItWas makes the volume that is to be reverted the subject, and describes it.
func (c *call) revertedAsItWas(r admin.RevertRequest) {
	name := r.Volume
	if snapshot := c.volumeNamed(r.Snapshot); name == "" && snapshot != nil {
		name = snapshot.Origin
	}
	c.subject(objectOf(name) + " to " + r.Snapshot)
	if v := c.volumeNamed(name); v != nil {
		c.changed.Before = VolumeV1(*v)
	}
}

// file returns the file in the path, and makes it the subject.
func (c *call) file() string {
	name := c.request.PathValue("name")
	c.subject(fileSubject(name))
	return name
}

// fileAsItWas is file, and describes it as it is, and files that the request may replace.
func (c *call) fileAsItWas(others ...string) string {
	name := c.file()
	c.changed.Before = c.filesNamed(append(others, name)...)
	return name
}

// filesNamed describes the files of these names that there are: one as itself, several as
// a list; nil for none.
func (c *call) filesNamed(names ...string) any {
	all, err := c.admin.Files(c.ctx)
	if err != nil {
		return nil
	}
	var found []v1.File
	for _, f := range all {
		if slices.Contains(names, f.Name) {
			found = append(found, FileV1(f))
		}
	}
	switch len(found) {
	case 0:
		return nil
	case 1:
		return found[0]
	default:
		return found
	}
}

// tokenAsItWas makes a token the subject, and describes it.
func (c *call) tokenAsItWas(id tokens.ID) {
	c.subject("token " + id.String())
	if info, err := c.admin.Token(c.ctx, id); err == nil {
		c.changed.Before = TokenInfoV1(info)
	}
}

// data returns the object in the path whose bytes are to change, and makes it the subject.
func (c *call) data(off, length int64) string {
	name := c.volume()
	c.changed.After, c.changedBytes = v1.DataRange{Offset: off, Length: length}, length
	return name
}

// flag reads a boolean of the query; false if it is not there.
func (c *call) flag(key string) (bool, error) {
	switch text := c.request.URL.Query().Get(key); text {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, fmt.Errorf("%w: %s is %q; use true or false", blockdev.ErrInvalid, key, text)
	}
}
