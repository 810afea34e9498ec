package vhdfile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"odx/blockdev"
	"odx/vhd/disk"
)

// maximumPathLength bounds the path in a locator, in bytes: 32,767 characters of
// UTF-16, the longest path of Windows.
const maximumPathLength = 2 * 32767

// The platform codes of parent locators.
const (
	relativeWindows    = "W2ru" // UTF-16, little-endian
	absoluteWindows    = "W2ku"
	macURL             = "MacX" // a URL in UTF-8
	oldRelativeWindows = "Wi2r" // deprecated; no encoding is specified
	oldAbsoluteWindows = "Wi2k"
)

// encodeParent returns the locators of a parent, without offsets, and the data of each.
func encodeParent(p *disk.Parent) (entries [locators]locator, data [][]byte, err error) {
	if len(p.Paths) == 0 {
		return entries, nil, errors.New("a differencing disk must have a path of its parent")
	}
	if len(p.Paths) > locators {
		return entries, nil, fmt.Errorf("%d paths of the parent: the maximum is %d", len(p.Paths), locators)
	}
	for i, name := range p.Paths {
		platform, text := encodePath(name)
		if len(text) == 0 || len(text) > maximumPathLength || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
			return entries, nil, fmt.Errorf("%.100q is not a path of a parent", name)
		}
		entries[i] = locator{[4]byte([]byte(platform)), uint32(roundUp(int64(len(text)), sectorLength) / sectorLength), uint32(len(text)), 0}
		data = append(data, text)
	}
	return entries, data, nil
}

// encodePath returns the platform code of a path and the path in its encoding.
func encodePath(name string) (platform string, text []byte) {
	switch {
	case name == "":
		return relativeWindows, nil
	case strings.HasPrefix(name, "/"):
		return macURL, []byte((&url.URL{Scheme: "file", Path: name}).String())
	case isAbsoluteWindows(name):
		return absoluteWindows, encodeUTF16(name, binary.LittleEndian)
	}
	name = strings.ReplaceAll(path.Clean(name), "/", `\`)
	if !strings.HasPrefix(name, `..\`) {
		name = `.\` + name
	}
	return relativeWindows, encodeUTF16(name, binary.LittleEndian)
}

// isAbsoluteWindows reports whether name begins with a drive or a server.
func isAbsoluteWindows(name string) bool {
	drive := len(name) >= 2 && name[1] == ':' && (name[0]|0x20) >= 'a' && (name[0]|0x20) <= 'z'
	return drive || strings.HasPrefix(name, `\\`)
}

// readParent reads the parent's identifier, name and paths. It skips invalid locators
// and describes them in problems.
func readParent(ctx context.Context, r blockdev.Reader, h *header) (parent *disk.Parent, problems []string, err error) {
	parent = &disk.Parent{ID: h.parentID, Modified: timeOf(h.parentTimeStamp)}
	var absolute []string
	for i := range h.locators {
		l := &h.locators[i]
		if l.platform == [4]byte{} {
			continue
		}
		text, err := readLocator(ctx, r, l)
		if err != nil {
			return nil, nil, err
		}
		name, relative := decodePath(string(l.platform[:]), text)
		switch {
		case name == "":
			problems = append(problems, fmt.Sprintf("parent locator %d, of platform %q, with %d bytes at %d, is invalid", i, l.platform, l.length, l.offset))
		case relative:
			parent.Paths = append(parent.Paths, name)
		default:
			absolute = append(absolute, name)
		}
	}
	parent.Paths = append(parent.Paths, absolute...)
	// The header's name is a file name or a path of an unknown system. It is used if no
	// locator has a path.
	if len(parent.Paths) == 0 && h.parentName != "" {
		parent.Paths = []string{strings.TrimPrefix(h.parentName, `.\`)}
	}
	seen := parent.Paths[:0]
	for _, name := range parent.Paths {
		if !slices.Contains(seen, name) {
			seen = append(seen, name)
		}
	}
	parent.Paths = seen
	return parent, problems, nil
}

// readLocator returns the data of l, or nil if its length or offset is not that of a
// path.
func readLocator(ctx context.Context, r blockdev.Reader, l *locator) ([]byte, error) {
	size, length := uint64(r.Size()), uint64(l.length)
	if length > maximumPathLength || l.offset > size || length > size-l.offset {
		return nil, nil
	}
	text := make([]byte, length)
	if err := r.ReadAt(ctx, text, int64(l.offset)); err != nil {
		return nil, fmt.Errorf("vhd: read parent locator: %w", err)
	}
	return text, nil
}

// decodePath returns the path of a locator, or "" if the data is not a path.
func decodePath(platform string, text []byte) (name string, relative bool) {
	switch platform {
	case relativeWindows, absoluteWindows:
		name = decodeWindows(text)
	case oldRelativeWindows, oldAbsoluteWindows:
		name = decodeOld(text)
	case macURL:
		return decodeURL(string(bytes.TrimRight(text, "\x00")))
	}
	if name == "" || platform == absoluteWindows || platform == oldAbsoluteWindows || isAbsoluteWindows(name) {
		return name, false
	}
	return relativePath(name), true
}

// relativePath returns a path with slashes that is not taken for one with a drive.
func relativePath(name string) string {
	name = path.Clean(strings.ReplaceAll(name, `\`, "/"))
	if isAbsoluteWindows(name) {
		return "./" + name
	}
	return name
}

// decodeURL decodes the URL of a file.
func decodeURL(text string) (name string, relative bool) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "file" && u.Scheme != "" {
		return "", false
	}
	if u.Opaque != "" { // "file:name"
		if u.Path, err = url.PathUnescape(u.Opaque); err != nil {
			return "", false
		}
	}
	switch {
	case u.Path == "":
		return "", false
	case u.Host == "." || u.Host == "..":
		// Some programs write relative paths as "file://./name".
		return path.Join(u.Host, u.Path), true
	case !strings.HasPrefix(u.Path, "/"):
		return relativePath(u.Path), true
	}
	return u.Path, false
}

// decodeWindows decodes a path in UTF-16, little-endian unless a byte order mark or the
// first character, which is in ASCII, shows that it has the byte order of other fields.
func decodeWindows(text []byte) string {
	switch {
	case bytes.HasPrefix(text, []byte{0xFE, 0xFF}):
		return decodeUTF16(text[2:], binary.BigEndian)
	case bytes.HasPrefix(text, []byte{0xFF, 0xFE}):
		return decodeUTF16(text[2:], binary.LittleEndian)
	case len(text) > 1 && text[0] == 0 && text[1] != 0:
		return decodeUTF16(text, binary.BigEndian)
	}
	return decodeUTF16(text, binary.LittleEndian)
}

// decodeOld decodes a path of a deprecated platform: as UTF-16 if the bytes suggest it,
// otherwise as one byte per character.
func decodeOld(text []byte) string {
	if len(text) > 1 && text[1] == 0 {
		return decodeUTF16(text, binary.LittleEndian)
	}
	return strings.ToValidUTF8(string(bytes.TrimRight(text, "\x00")), "\uFFFD")
}

// encodeUTF16 returns s in UTF-16 with the byte order.
func encodeUTF16(s string, order binary.AppendByteOrder) (p []byte) {
	for _, unit := range utf16.Encode([]rune(s)) {
		p = order.AppendUint16(p, unit)
	}
	return p
}

// decodeUTF16 returns the string in p, up to the first zero.
func decodeUTF16(p []byte, order binary.ByteOrder) string {
	units := make([]uint16, 0, len(p)/2)
	for ; len(p) > 1; p = p[2:] {
		unit := order.Uint16(p)
		if unit == 0 {
			break
		}
		units = append(units, unit)
	}
	return string(utf16.Decode(units))
}
