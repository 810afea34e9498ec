package vhdxfile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"odx/blockdev"
	"odx/vhd/disk"
)

// locator is a parent locator (MS-VHDX 2.6.2.6): keys and values that identify the
// parent. Unknown keys are preserved.
type locator map[string]string

// The keys of a VHDX parent locator (MS-VHDX 2.6.2.6.3).
const (
	linkageKey  = "parent_linkage"
	linkage2Key = "parent_linkage2"
	relativeKey = "relative_path"
	volumeKey   = "volume_path"
	win32Key    = "absolute_win32_path"
)

// newLocator returns the locator of a child of p.
func newLocator(p disk.Parent) (*locator, error) {
	l := locator{linkageKey: "{" + guidText(p.ID) + "}"}
	if p.OtherID != (disk.GUID{}) {
		l[linkage2Key] = "{" + guidText(p.OtherID) + "}"
	}
	identified := len(l)
	for _, path := range p.Paths {
		key, value := win32Key, path
		switch {
		case strings.HasPrefix(path, `\\?\Volume{`):
			key = volumeKey
		case !isAbsolute(path):
			key, value = relativeKey, strings.ReplaceAll(path, "/", `\`)
		}
		switch {
		case value == "" || strings.ContainsRune(value, 0) || !utf8.ValidString(value):
			return nil, invalid("parent path %q", path)
		case l[key] != "":
			return nil, invalid("two parent paths of the same kind, %q and %q", l[key], value)
		}
		l[key] = value
	}
	if len(l) == identified {
		return nil, invalid("a parent without a path")
	}
	return &l, nil
}

// isAbsolute reports whether a path is absolute on any system.
func isAbsolute(path string) bool {
	return strings.HasPrefix(path, "/") || strings.HasPrefix(path, `\`) || len(path) > 1 && path[1] == ':'
}

// parent returns the parent, with its paths in the order in which to try them.
func (l locator) parent() *disk.Parent {
	p := &disk.Parent{}
	p.ID, _ = parseGUID(l[linkageKey])
	p.OtherID, _ = parseGUID(l[linkage2Key])
	if path := l[relativeKey]; path != "" {
		p.Paths = append(p.Paths, strings.ReplaceAll(path, `\`, "/"))
	}
	for _, key := range []string{volumeKey, win32Key} {
		if path := l[key]; path != "" {
			p.Paths = append(p.Paths, path)
		}
	}
	return p
}

func (l locator) encode() ([]byte, error) {
	p := make([]byte, 20+12*len(l))
	putGUID(p, mustGUID(vhdxLocator))
	le.PutUint16(p[18:], uint16(len(l)))
	for i, key := range slices.Sorted(maps.Keys(l)) {
		k, v := toUTF16(key), toUTF16(l[key])
		if len(v) > 0xffff {
			return nil, invalid("a path of %d bytes", len(v))
		}
		le.PutUint32(p[20+12*i:], uint32(len(p)))
		le.PutUint32(p[24+12*i:], uint32(len(p)+len(k)))
		le.PutUint16(p[28+12*i:], uint16(len(k)))
		le.PutUint16(p[30+12*i:], uint16(len(v)))
		p = append(append(p, k...), v...)
	}
	return p, nil
}

func decodeLocator(p []byte, report reporter) (*locator, error) {
	if len(p) < 20 {
		return nil, bad("invalid parent locator of %d bytes", len(p))
	}
	if id := getGUID(p); id != mustGUID(vhdxLocator) {
		return nil, bad("unknown parent locator type %s", guidText(id))
	}
	count := int(le.Uint16(p[18:]))
	if 20+12*count > len(p) {
		return nil, bad("invalid parent locator of %d bytes with %d entries", len(p), count)
	}
	// Entries may share text: without a bound on the total, 1 MiB could become gigabytes.
	room := len(p)
	text := func(offset uint32, length uint16) (string, error) {
		n := int(length)
		if n == 0 || uint64(offset)+uint64(n) > uint64(len(p)) || n > room {
			return "", bad("parent locator: text of %d bytes at %d exceeds its %d bytes", n, offset, len(p))
		}
		room -= n
		return fromUTF16(p[offset:][:n]), nil
	}
	l := make(locator)
	for e := p[20 : 20+12*count]; len(e) > 0; e = e[12:] {
		key, err := text(le.Uint32(e), le.Uint16(e[8:]))
		if err != nil {
			return nil, err
		}
		if l[key], err = text(le.Uint32(e[4:]), le.Uint16(e[10:])); err != nil {
			return nil, err
		}
	}
	if _, ok := parseGUID(l[linkageKey]); !ok {
		return nil, bad("parent locator: invalid %s %q", linkageKey, l[linkageKey])
	}
	if len(l.parent().Paths) == 0 {
		if err := report(harmful, "parent locator has no path of the parent"); err != nil {
			return nil, err
		}
	}
	return &l, nil
}

// invalid returns an error about a request, which wraps blockdev.ErrInvalid.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: VHDX does not allow "+format, append([]any{blockdev.ErrInvalid}, args...)...)
}
