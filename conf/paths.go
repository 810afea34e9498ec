package conf

import (
	"fmt"
	"slices"
	"strconv"
)

// paths reads the access states of the portal groups of t.
func (c *checker) paths(key string, raw []filePath, t *Target, portals []Portal) []Path {
	var paths []Path
	for i, rp := range raw {
		itemKey := fmt.Sprintf("%s[%d]", key, i)
		if c.mistyped[itemKey] {
			continue
		}
		p := Path{
			State:     c.oneOf(itemKey+".state", rp.State, PathOptimized, PathNonOptimized, PathStandby, PathUnavailable),
			Preferred: c.oneOf(itemKey+".preferred", rp.Preferred, "false", "true") == "true",
		}
		text, ok := c.required(itemKey+".portal_group", rp.PortalGroup, "the number of a portal group of the target")
		if !ok {
			continue
		}
		tag, err := strconv.ParseUint(text, 10, 16)
		p.Group = uint16(tag)
		reached := func(o Portal) bool { return o.Group == p.Group && t.ReachedBy(o) }
		switch {
		case err != nil || !slices.ContainsFunc(portals, reached):
			c.add(itemKey+".portal_group", "%q is not a portal group of the target; use the number of one", text)
		case slices.ContainsFunc(paths, func(o Path) bool { return o.Group == p.Group }):
			c.add(itemKey+".portal_group", "duplicate group %d; remove one", p.Group)
		default:
			paths = append(paths, p)
		}
	}
	return paths
}

// fixedPaths reports whether initiators must not change the states of paths.
func (c *checker) fixedPaths(key string, value *string, byDefault bool) bool {
	if value == nil {
		return byDefault
	}
	return c.oneOf(key, value, "false", "true") == "false"
}
