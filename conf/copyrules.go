package conf

import (
	"fmt"
	"slices"
	"strings"
)

// CopyRule is a rule of Config.CopyRules. An empty list matches everything. From and
// To list names of volumes and paths of backing files; an asterisk at the end makes a
// prefix.
type CopyRule struct {
	Initiators []NamePattern
	From, To   []string
	Allow      bool
}

// copyRules reads the rules of third-party copies.
func (c *checker) copyRules(key string, raw []fileCopyRule) []CopyRule {
	c.notEmpty(key, len(raw))
	var rules []CopyRule
	for i, r := range raw {
		k := fmt.Sprintf("%s[%d]", key, i)
		if c.mistyped[k] {
			continue
		}
		rule := CopyRule{
			Initiators: c.patterns(k+".initiators", r.Initiators),
			From:       c.media(k+".from", r.From),
			To:         c.media(k+".to", r.To),
		}
		if allow, ok := c.required(k+".allow", r.Allow, "true or false"); ok {
			rule.Allow = c.oneOf(k+".allow", &allow, "true", "false") == "true"
		}
		for j, earlier := range rules {
			if earlier.covers(&rule) {
				c.add(k, "unreachable: %s[%d] matches every copy that this rule matches; move the narrower rule first", key, j)
				break
			}
		}
		rules = append(rules, rule)
	}
	return rules
}

// covers reports whether r certainly matches every copy that o matches.
func (r *CopyRule) covers(o *CopyRule) bool {
	return within(r.Initiators, o.Initiators) && within(r.From, o.From) && within(r.To, o.To)
}

// within reports whether narrow is a subset of wide. An empty list is the universal
// set.
func within[T comparable](wide, narrow []T) bool {
	if len(wide) == 0 {
		return true
	}
	return len(narrow) > 0 && !slices.ContainsFunc(narrow, func(n T) bool { return !slices.Contains(wide, n) })
}

// media reads names of volumes and paths of backing files, each optionally with an
// asterisk at the end.
func (c *checker) media(key string, raw []*string) []string {
	c.notEmpty(key, len(raw))
	var names []string
	for i, value := range raw {
		k := fmt.Sprintf("%s[%d]", key, i)
		name, ok := c.required(k, value, "the name of a volume")
		if !ok {
			continue
		}
		if at := strings.IndexByte(name, '*'); at >= 0 && at < len(name)-1 {
			c.add(k, "%q: an asterisk is allowed only at the end", name)
		}
		if path, isFile := strings.CutPrefix(name, "file:"); isFile {
			name = resolve(c.file, path)
		}
		names = append(names, name)
	}
	return names
}
