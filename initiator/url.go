package initiator

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// defaultPort is the iSCSI port of RFC 7143 14.
const defaultPort = "3260"

// maxLUN is the largest LUN that flat space addressing can name (SAM-5 4.7.7.3).
const maxLUN = 1<<14 - 1

// URL names a logical unit in the form that libiscsi and qemu read:
//
//	iscsi://[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN[?target_user=U&target_password=P]
type URL struct {
	// Address is host and port.
	Address string
	// Target is the iSCSI name of the target.
	Target string
	LUN    uint16
	// Login proves us to the target, TargetLogin the target to us. The zero
	// value asks for no proof.
	Login, TargetLogin Credentials
}

// Credentials are a name and a secret of CHAP (RFC 7143 12.1.3).
type Credentials struct {
	User, Password string
}

// String returns the URL without its secrets.
func (u URL) String() string {
	return fmt.Sprintf("iscsi://%s/%s/%d", u.Address, u.Target, u.LUN)
}

// ParseURL reads a URL.
func ParseURL(text string) (URL, error) {
	u, err := parseURL(text)
	if err != nil {
		return URL{}, fmt.Errorf("%s: %w; write iscsi://HOST[:PORT]/TARGET/LUN", withoutLogin(text), err)
	}
	return u, nil
}

func parseURL(text string) (URL, error) {
	rest, ok := strings.CutPrefix(text, "iscsi://")
	if !ok {
		return URL{}, errors.New("not an iSCSI URL")
	}
	var u URL
	var err error
	// USER%PASSWORD is no valid escape, so net/url cannot read the whole.
	rest, query, _ := strings.Cut(rest, "?")
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		u.Login.User, u.Login.Password, _ = strings.Cut(rest[:at], "%")
		rest = rest[at+1:]
	}
	host, path, _ := strings.Cut(rest, "/")
	if u.Address, err = address(host); err != nil {
		return URL{}, err
	}
	var lun string
	if u.Target, lun, ok = strings.Cut(path, "/"); !ok || u.Target == "" {
		return URL{}, errors.New("target or LUN is missing")
	}
	n, err := strconv.ParseUint(lun, 10, 16)
	if err != nil || n > maxLUN {
		return URL{}, fmt.Errorf("%q is not a LUN from 0 to %d", lun, maxLUN)
	}
	u.LUN = uint16(n)
	values, err := url.ParseQuery(query)
	if err != nil {
		return URL{}, errors.New("what follows the question mark cannot be read")
	}
	u.TargetLogin = Credentials{values.Get("target_user"), values.Get("target_password")}
	return u, nil
}

// address adds the default port to a host that has none.
func address(host string) (string, error) {
	if host == "" {
		return "", errors.New("the host is missing")
	}
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host, nil
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), defaultPort), nil
}

// withoutLogin returns what may be printed of a URL.
func withoutLogin(text string) string {
	text, _, _ = strings.Cut(text, "?")
	if at := strings.LastIndex(text, "@"); at >= 0 {
		return "iscsi://" + text[at+1:]
	}
	return text
}
