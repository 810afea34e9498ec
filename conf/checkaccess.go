package conf

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// algorithmNames are the CHAP algorithms in the spelling of open-iscsi.
var algorithmNames = []string{"SHA3-256", "SHA256", "SHA1", "MD5"}

// authentication reads the optional key.
func (c *checker) authentication(key string, raw *fileAuthentication) Authentication {
	if _, given := c.lines[key]; !given || c.mistyped[key] {
		return Authentication{}
	}
	a := Authentication{Required: c.oneOf(key+".required", raw.Required, "true", "false") == "true"}
	if len(raw.Users) == 0 && !c.mistyped[key+".users"] {
		c.add(key+".users", "missing; give at least one user, for example {name: host1, secret_file: host1.secret}, or omit authentication")
	}
	for i, name := range raw.Algorithms {
		k := fmt.Sprintf("%s.algorithms[%d]", key, i)
		if text, ok := c.required(k, name, "an algorithm"); ok && !slices.Contains(algorithmNames, text) {
			c.add(k, "unknown value %q; use %s", text, strings.Join(algorithmNames, ", "))
		} else if ok {
			a.Algorithms = append(a.Algorithms, text)
		}
	}
	if _, given := c.lines[key+".algorithms"]; given && len(raw.Algorithms) == 0 && !c.mistyped[key+".algorithms"] {
		c.add(key+".algorithms", "empty list; give the allowed algorithms, or omit the key to allow all")
	}
	first := map[string]string{} // name → key
	for i := range raw.Users {
		k := fmt.Sprintf("%s.users[%d]", key, i)
		if c.mistyped[k] {
			continue
		}
		ru := &raw.Users[i]
		u := c.user(k, ru.Name, ru.fileSecret())
		if where, twice := first[u.Name]; twice && u.Name != "" {
			c.add(k+".name", "duplicate user %s (first at line %d); give each its own name", u.Name, lineOf(c.lines, where))
		}
		first[u.Name] = k
		u.Initiators = c.patterns(k+".initiators", ru.Initiators)
		a.Users = append(a.Users, u)
	}
	a.Mutual = c.mutual(key+".mutual", raw.Mutual)
	return a
}

// mutual reads what a target proves itself with; nil if the key is not there.
func (c *checker) mutual(key string, raw *fileMutual) *User {
	if _, given := c.lines[key]; !given || c.mistyped[key] {
		return nil
	}
	if raw == nil {
		raw = &fileMutual{}
	}
	return new(c.user(key, raw.Name, raw.fileSecret()))
}

// fileSecret holds the values of the keys that give a secret, of which one is set.
type fileSecret struct{ inline, file, env *string }

func (u *fileUser) fileSecret() fileSecret   { return fileSecret{u.Secret, u.SecretFile, u.SecretEnv} }
func (m *fileMutual) fileSecret() fileSecret { return fileSecret{m.Secret, m.SecretFile, m.SecretEnv} }
func (l *fileLogin) fileSecret() fileSecret  { return fileSecret{l.Secret, l.SecretFile, l.SecretEnv} }

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (c *checker) user(key string, name *string, s fileSecret) User {
	u := User{Key: key}
	if text, ok := c.required(key+".name", name, "the CHAP name (CHAP_N)"); ok {
		if u.Name = text; len(text) > 255 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			c.add(key+".name", "invalid CHAP name %.40q; use up to 255 bytes of printable text", text)
		}
	}
	u.Secret = c.secret(key, s)
	return u
}

// secret reads the source of the secret of the name at key.
func (c *checker) secret(key string, raw fileSecret) Secret {
	var found []Secret
	for _, s := range []struct {
		name   string
		source secretSource
		value  *string
	}{{"secret", secretInline, raw.inline}, {"secret_file", secretFile, raw.file}, {"secret_env", secretEnv, raw.env}} {
		if _, given := c.lines[key+"."+s.name]; !given {
			continue
		}
		where := key + "." + s.name
		if text, ok := c.required(where, s.value, "the secret, its file or its environment variable"); ok {
			found = append(found, Secret{source: s.source, text: text, Key: where})
		} else {
			return Secret{} // required has added the problem
		}
	}
	if len(found) != 1 {
		c.add(key, "%v", errSecretCount)
		return Secret{}
	}
	switch s := &found[0]; {
	case s.source == secretFile:
		s.text = resolve(c.file, s.text)
	case s.source == secretEnv && !variableName.MatchString(s.text):
		c.add(s.Key, "invalid environment variable name %.40q", s.text)
	}
	return found[0]
}

func (c *checker) patterns(key string, raw []*string) []NamePattern {
	c.notEmpty(key, len(raw))
	var patterns []NamePattern
	for i, value := range raw {
		k := fmt.Sprintf("%s[%d]", key, i)
		if text, ok := c.required(k, value, "an iSCSI name"); ok {
			p, err := ParseNamePattern(text)
			if err != nil {
				c.add(k, "%v", err)
			}
			patterns = append(patterns, p)
		}
	}
	return patterns
}

// notEmpty refuses a key with an empty list, which could mean all initiators or
// none.
func (c *checker) notEmpty(key string, n int) {
	if _, given := c.lines[key]; given && n == 0 && !c.mistyped[key] {
		c.add(key, "empty list; give at least one entry or omit the key")
	}
}

// access reads the access list of a target with the given LUNs.
func (c *checker) access(key string, raw []fileAccess, luns []LUN) []Access {
	c.notEmpty(key, len(raw))
	var list []Access
	for i := range raw {
		k := fmt.Sprintf("%s[%d]", key, i)
		if c.mistyped[k] {
			continue
		}
		r := &raw[i]
		a := Access{Initiators: c.patterns(k+".initiators", r.Initiators), ReadOnly: c.oneOf(k+".read_only", r.ReadOnly, "false", "true") == "true"}
		a.StoreDuplicates = c.oneOf(k+".dedup", r.Dedup, "true", "false") == "false"
		a.Addresses = c.networks(k+".addresses", r.Addresses)
		if len(r.Initiators) == 0 && len(r.Addresses) == 0 && !c.mistyped[k+".initiators"] && !c.mistyped[k+".addresses"] {
			c.add(k, "matches no initiator; give initiators or addresses (initiators: [\"*\"] matches all)")
		}
		a.LUNs = c.mappedLUNs(k+".luns", r.LUNs, luns)
		list = append(list, a)
	}
	return list
}

func (c *checker) networks(key string, raw []*string) []netip.Prefix {
	c.notEmpty(key, len(raw))
	var networks []netip.Prefix
	for i, value := range raw {
		k := fmt.Sprintf("%s[%d]", key, i)
		if text, ok := c.required(k, value, "an IP address or network"); ok {
			p, err := ParseNetwork(text)
			if err != nil {
				c.add(k, "%v", err)
			}
			networks = append(networks, p)
		}
	}
	return networks
}

func (c *checker) mappedLUNs(key string, raw []fileMappedLUN, luns []LUN) []MappedLUN {
	c.notEmpty(key, len(raw))
	var mapped []MappedLUN
	for i := range raw {
		k := fmt.Sprintf("%s[%d]", key, i)
		if c.mistyped[k] {
			continue
		}
		m := MappedLUN{ReadOnly: c.oneOf(k+".read_only", raw[i].ReadOnly, "false", "true") == "true"}
		text, ok := c.required(k+".lun", raw[i].LUN, "a LUN of the target")
		if !ok {
			continue
		}
		n, valid := c.lunNumber(k+".lun", text)
		m.LUN, m.As = n, n
		if valid && !slices.ContainsFunc(luns, func(l LUN) bool { return l.Number == n }) {
			c.add(k+".lun", "the target has no LUN %d", n)
		}
		if raw[i].As != nil {
			m.As, _ = c.lunNumber(k+".as", *raw[i].As)
		}
		for j, other := range mapped {
			if other.LUN == m.LUN {
				c.add(k+".lun", "duplicate LUN %d (first at %s[%d])", m.LUN, key, j)
			} else if other.As == m.As {
				c.add(k+".as", "two LUNs are mapped to LUN %d (the other is %s[%d]); give each its own number", m.As, key, j)
			}
		}
		mapped = append(mapped, m)
	}
	return mapped
}

func (c *checker) lunNumber(key, text string) (uint16, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n > MaxLUN {
		c.add(key, "invalid LUN %q; use a number from 0 to %d", text, MaxLUN)
		return 0, false
	}
	return uint16(n), true
}
