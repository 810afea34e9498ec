package conf

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Tokens configures the limits and policies of tokens. Zero selects the token
// manager's default.
type Tokens struct {
	// Max bounds the live tokens, MaxPerInitiator those that one initiator created.
	Max, MaxPerInitiator int
	// Memory bounds the memory of live tokens, Held the data that only tokens reference,
	// and Size the data of one token, in bytes.
	Memory, Held, Size int64
	// DigestSize bounds the data of a hash or checksum token in bytes.
	DigestSize int64
	// HashLifetime is the lifetime of a hash token.
	HashLifetime time.Duration
	// Inactivity timeouts: the minimum, the default, the maximum.
	MinInactivity, DefaultInactivity, MaxInactivity time.Duration
	// UseRecords bounds the records of token use per second.
	UseRecords int

	// WhenFull is evict or refuse.
	WhenFull string
	// UnderPressure is give_up or keep.
	UnderPressure string
	// Deletion is mandatory or hint.
	Deletion string
	// RunningCopy is finish or abort.
	RunningCopy string
	// Unmapped is allow, lower or refuse.
	Unmapped string

	// Access is anyone, initiator or group:NAME.
	Access string
	Groups []InitiatorGroup
	Rules  []TokenRule
}

// InitiatorGroup is a set of initiators.
type InitiatorGroup struct {
	Name       string
	Initiators []NamePattern
}

// TokenRule sets the priority of matching tokens and, unless Access is empty, their
// access right. An empty Initiator or Use matches all.
type TokenRule struct {
	Initiator NamePattern
	Use       string
	Priority  int
	Access    string
}

// tokenUses are the values of a rule's use.
var tokenUses = []string{"scsi", "api"}

// maxTokenPriority is the maximum absolute value of a priority.
const maxTokenPriority = 100

func (c *checker) tokens(raw *fileTokens) Tokens {
	t := Tokens{
		Max:             c.count("tokens.max", raw.Max, 10_000_000, "tokens"),
		MaxPerInitiator: c.count("tokens.max_per_initiator", raw.MaxPerInitiator, 10_000_000, "tokens"),
		Memory:          c.size("tokens.memory", raw.Memory, 1<<20),
		Held:            c.size("tokens.held", raw.Held, 1<<20),
		Size:            c.size("tokens.size", raw.Size, 1<<20),
		DigestSize:      c.size("tokens.digest_size", raw.DigestSize, 1<<20),
		HashLifetime:    time.Duration(c.number("tokens.hash_lifetime_h", raw.HashLifetime, 0, 1, 24*365, "hours")) * time.Hour,

		MinInactivity:     c.duration("tokens.min_inactivity", raw.MinInactivity),
		DefaultInactivity: c.duration("tokens.default_inactivity", raw.DefaultInactivity),
		MaxInactivity:     c.duration("tokens.max_inactivity", raw.MaxInactivity),
		UseRecords:        c.count("tokens.use_records_per_s", raw.UseRecords, 1_000_000, "records per second"),

		WhenFull:      c.oneOf("tokens.when_full", raw.WhenFull, "evict", "refuse"),
		UnderPressure: c.oneOf("tokens.under_pressure", raw.UnderPressure, "give_up", "keep"),
		Deletion:      c.oneOf("tokens.deletion", raw.Deletion, "mandatory", "hint"),
		RunningCopy:   c.oneOf("tokens.running_copy", raw.RunningCopy, "finish", "abort"),
		Unmapped:      c.oneOf("tokens.unmapped", raw.Unmapped, "allow", "lower", "refuse"),
	}
	c.tokenTimes(&t)
	t.Groups = c.initiatorGroups(raw.Groups)
	if t.Access = c.tokenAccess("tokens.access", raw.Access, t.Groups); t.Access == "" {
		t.Access = "anyone"
	}
	for i := range raw.Rules {
		if key := fmt.Sprintf("tokens.rules[%d]", i); !c.mistyped[key] {
			t.Rules = append(t.Rules, c.tokenRule(key, &raw.Rules[i], t.Groups))
		}
	}
	return t
}

// tokenTimes compares the inactivity timeouts, with defaults for the absent ones.
func (c *checker) tokenTimes(t *Tokens) {
	least, middle, most := cmp.Or(t.MinInactivity, time.Second), cmp.Or(t.DefaultInactivity, time.Minute), cmp.Or(t.MaxInactivity, 10*time.Minute)
	if least > middle || middle > most {
		c.add("tokens.default_inactivity", "inactivity timeouts out of order: minimum %v, default %v, maximum %v", least, middle, most)
	}
}

// label is the syntax of names of groups and of secrets of the API.
var label = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (c *checker) initiatorGroups(raw []fileGroup) []InitiatorGroup {
	var groups []InitiatorGroup
	lines := map[string]string{} // name → key
	for i := range raw {
		key := fmt.Sprintf("tokens.groups[%d]", i)
		if c.mistyped[key] {
			continue
		}
		g := InitiatorGroup{Initiators: c.patterns(key+".initiators", raw[i].Initiators)}
		var ok bool
		if g.Name, ok = c.required(key+".name", raw[i].Name, "a name for the group"); ok && !label.MatchString(g.Name) {
			c.add(key+".name", "invalid group name %q; use 1 to 64 letters, digits, dots, dashes and underscores", g.Name)
		}
		if where, twice := lines[g.Name]; twice && ok {
			c.add(key+".name", "duplicate group %s (first at line %d); give each its own name", g.Name, lineOf(c.lines, where))
		}
		lines[g.Name] = key + ".name"
		groups = append(groups, g)
	}
	return groups
}

// tokenAccess reads an access right; empty when absent or invalid.
func (c *checker) tokenAccess(key string, value *string, groups []InitiatorGroup) string {
	if value == nil {
		return ""
	}
	name, isGroup := strings.CutPrefix(*value, "group:")
	switch {
	case *value == "anyone" || *value == "initiator":
		return *value
	case !isGroup:
		c.add(key, "unknown value %q; use anyone, initiator or group:NAME", *value)
		return ""
	}
	for _, g := range groups {
		if g.Name == name {
			return *value
		}
	}
	c.add(key, "unknown group %q; define it under tokens.groups, or use another", name)
	return ""
}

func (c *checker) tokenRule(key string, raw *fileTokenRule, groups []InitiatorGroup) TokenRule {
	r := TokenRule{
		Priority: int(c.number(key+".priority", raw.Priority, 0, -maxTokenPriority, maxTokenPriority, "priority")),
		Access:   c.tokenAccess(key+".access", raw.Access, groups),
	}
	if raw.Initiator != nil {
		var err error
		if r.Initiator, err = ParseNamePattern(*raw.Initiator); err != nil {
			c.add(key+".initiator", "%v", err)
		}
	}
	if raw.Use != nil {
		r.Use = c.oneOf(key+".use", raw.Use, tokenUses[0], tokenUses[1:]...)
	}
	return r
}
