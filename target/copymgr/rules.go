package copymgr

import "strings"

// Rules define which initiator may copy from which volume to which. The first match
// decides; without one, a copy is allowed.
type Rules []Rule

// Rule is one of Rules. A pattern is a name, or a prefix that ends with an asterisk; an
// empty list matches every name.
type Rule struct {
	Initiators, From, To []string
	Deny                 bool
}

// allow reports whether an initiator may copy between two volumes. An unknown name is
// empty, and matches only an empty pattern list.
func (r Rules) allow(initiator, from, to string) bool {
	for _, rule := range r {
		if matches(rule.Initiators, initiator) && matches(rule.From, from) && matches(rule.To, to) {
			return !rule.Deny
		}
	}
	return true
}

// allowSource reports whether an initiator may copy from a volume to any other. The
// destination is checked when it is known.
func (r Rules) allowSource(initiator, from string) bool {
	for _, rule := range r {
		if !matches(rule.Initiators, initiator) || !matches(rule.From, from) {
			continue
		}
		if !rule.Deny || len(rule.To) == 0 {
			return !rule.Deny
		}
	}
	return true
}

// matches reports whether name matches one of patterns, or patterns is empty.
func matches(patterns []string, name string) bool {
	for _, p := range patterns {
		prefix, cut := strings.CutSuffix(p, "*")
		if name == p || cut && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return len(patterns) == 0
}
