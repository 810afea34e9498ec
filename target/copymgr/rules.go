package copymgr

import "strings"

// Rules say which initiator may copy from which volume to which. The first one
// that matches decides; where none does, a copy is allowed.
type Rules []Rule

// Rule is one of Rules. A pattern is a name, or with an asterisk at its end the
// beginning of names; an empty list matches everything.
type Rule struct {
	Initiators, From, To []string
	Deny                 bool
}

// allow reports whether an initiator may copy from a volume to another. Names
// are empty where they are not known, which only an empty pattern list matches.
func (r Rules) allow(initiator, from, to string) bool {
	for _, rule := range r {
		if matches(rule.Initiators, initiator) && matches(rule.From, from) && matches(rule.To, to) {
			return !rule.Deny
		}
	}
	return true
}

// allowSource reports whether an initiator may copy from a volume to any other
// at all. What it may copy to is checked when it does.
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

// matches reports whether name matches one of patterns, or there are none.
func matches(patterns []string, name string) bool {
	for _, p := range patterns {
		prefix, cut := strings.CutSuffix(p, "*")
		if name == p || cut && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return len(patterns) == 0
}
