package conf

import (
	"fmt"
	"slices"
	"strings"
)

// CopyRule is one of Config.CopyRules. An empty list matches everything. Media
// are names of volumes, or paths of backing files; one that ends with an
// asterisk is the beginning of names.
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
		if c.misshapen[k] {
			continue
		}
		rule := CopyRule{
			Initiators: c.patterns(k+".initiators", r.Initiators),
			From:       c.media(k+".from", r.From),
			To:         c.media(k+".to", r.To),
		}
		if allow, ok := c.required(k+".allow", r.Allow, "true or false: what the rule decides"); ok {
			rule.Allow = c.oneOf(k+".allow", &allow, "true", "false") == "true"
		}
		for j, earlier := range rules {
			if earlier.covers(&rule) {
				c.add(k, "never decides: %s[%d] matches every copy that it does; put the narrower rule first", key, j)
				break
			}
		}
		rules = append(rules, rule)
	}
	return rules
}

// covers reports whether every copy that o matches is surely matched by r.
func (r *CopyRule) covers(o *CopyRule) bool {
	return within(r.Initiators, o.Initiators) && within(r.From, o.From) && within(r.To, o.To)
}

// within reports whether narrow lists nothing that wide does not. An empty list
// is everything.
func within[T comparable](wide, narrow []T) bool {
	if len(wide) == 0 {
		return true
	}
	return len(narrow) > 0 && !slices.ContainsFunc(narrow, func(n T) bool { return !slices.Contains(wide, n) })
}

// media reads names of volumes and paths of backing files, each of which may end
// with an asterisk.
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
			c.add(k, "%q: an asterisk can only stand at the end", name)
		}
		if path, isFile := strings.CutPrefix(name, "file:"); isFile {
			name = resolve(c.file, path)
		}
		names = append(names, name)
	}
	return names
}
