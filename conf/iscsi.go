package conf

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// iscsiScheme begins the name of a LUN of another target.
const iscsiScheme = "iscsi://"

// iscsiPort is the port of a portal that has none (RFC 7143 14).
const iscsiPort = "3260"

// IsISCSI reports whether text is meant as the name of a LUN of another target.
func IsISCSI(text string) bool { return strings.HasPrefix(text, iscsiScheme) }

// ParseISCSI reads the name of a LUN of another target, iscsi://HOST[:PORT]/TARGET/LUN, and
// returns it in the one form that each such LUN has.
func ParseISCSI(text string) (string, error) {
	host, path, _ := strings.Cut(strings.TrimPrefix(text, iscsiScheme), "/")
	target, lun, ok := strings.Cut(path, "/")
	if !IsISCSI(text) || !ok || strings.ContainsAny(text, " \t\r\n%?#") {
		return "", fmt.Errorf("invalid name %.200q of a LUN; use iscsi://HOST[:PORT]/TARGET/LUN", withoutUser(text))
	}
	if strings.Contains(host, "@") {
		return "", fmt.Errorf("%s: user and secret have keys of their own, login", withoutUser(text))
	}
	if _, _, err := net.SplitHostPort(host); err != nil {
		if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
			host = host[1 : len(host)-1]
		}
		host = net.JoinHostPort(host, iscsiPort)
	}
	portal, err := ParseRemotePortal(host)
	if err != nil {
		return "", fmt.Errorf("%s: %w", text, err)
	}
	target, err = ParseName(target)
	if err != nil {
		return "", fmt.Errorf("%s: %w", text, err)
	}
	n, err := strconv.ParseUint(lun, 10, 16)
	if err != nil || n > MaxLUN {
		return "", fmt.Errorf("%s: %q is not a LUN from 0 to %d", text, lun, MaxLUN)
	}
	return iscsiScheme + strings.ToLower(portal.String()) + "/" + target + "/" + strconv.FormatUint(n, 10), nil
}

// withoutUser returns what may be printed of the name of a LUN.
func withoutUser(text string) string {
	if at := strings.LastIndex(text, "@"); at >= 0 {
		return iscsiScheme + text[at+1:]
	}
	return text
}

// backing reads what is outside of the store.
func (c *checker) backing(key, prefix, text string, l *LUN) {
	if IsISCSI(text) {
		name, err := ParseISCSI(text)
		if err != nil {
			c.add(key, "%s%v", prefix, err)
		}
		l.ISCSI = name
		return
	}
	path, ok := strings.CutPrefix(text, "file:")
	if !ok || path == "" {
		c.add(key, "%sinvalid backing store %.200q; use file:PATH or iscsi://HOST[:PORT]/TARGET/LUN", prefix, withoutUser(text))
		return
	}
	l.Backing = resolve(c.file, path)
}

// login reads what a LUN of another target is logged in to with.
func (c *checker) login(key, prefix string, raw *fileLUN, l *LUN) {
	if _, given := c.lines[key+".login"]; given && !c.mistyped[key+".login"] {
		m := raw.Login
		if m == nil {
			m = &fileLogin{}
		}
		l.Login = &Login{User: c.user(key+".login", m.Name, m.fileSecret()), Mutual: c.mutual(key+".login.mutual", m.Mutual)}
		if l.ISCSI == "" {
			c.add(key+".login", "%slogin is for backing: iscsi://…; omit it", prefix)
		}
	}
	if l.ISCSI != "" && raw.Size != nil {
		c.add(key+".size", "%sthe size of %s is its own; omit size", prefix, l.ISCSI)
	}
}

// sameLogin compares what LUNs on one medium log in with.
func sameLogin(a, b *Login) bool {
	if a == nil || b == nil {
		return a == b
	}
	return sameUser(&a.User, &b.User) && sameUser(a.Mutual, b.Mutual)
}

func sameUser(a, b *User) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Name == b.Name && a.Secret.source == b.Secret.source && a.Secret.text == b.Secret.text
}

// setLogin writes what a LUN of another target is logged in to with.
func (d *document) setLogin(target string, number uint16, l *Login) error {
	lun, err := d.lun(target, number)
	if err != nil {
		return err
	}
	return d.set(lun, "login", fileNode(*l.file()))
}
