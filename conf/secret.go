package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"unicode"
)

// maxSecretFile is the maximum length of a file with a secret in bytes.
const maxSecretFile = 1024

// Secret is the source of a secret. The secret is read when the configuration is
// applied, so that other commands need no permission to read it.
type Secret struct {
	source secretSource
	text   string // the secret, the path of its file, or the name of its variable
	// Key is the path of the secret in the file, for example
	// "targets[0].authentication.users[0].secret_file".
	Key string
}

type secretSource int

const (
	secretInline secretSource = iota
	secretFile
	secretEnv
)

// String hides the secret from logs.
func (Secret) String() string { return "(secret)" }

// GoString hides the secret from logs.
func (Secret) GoString() string { return "(secret)" }

// errMasked is the error for a secret of Config.Effective.
var errMasked = errors.New("the secret is masked: this is what odx config show printed; put the secret in its place")

// Read returns the secret, and a warning if other users can read it or it is in quotes.
// Neither an error nor a warning contains the secret.
func (s Secret) Read() (secret []byte, warning string, err error) {
	switch s.source {
	case secretInline:
		if s.text == masked {
			return nil, "", errMasked
		}
		secret = []byte(s.text)
		warning = "the secret is in the configuration file, whose readers know it; use secret_file"
	case secretFile:
		secret, warning, err = ReadSecretFile(s.text)
	case secretEnv:
		value, ok := os.LookupEnv(s.text)
		if !ok {
			return nil, "", fmt.Errorf("environment variable %s is not set", s.text)
		}
		secret = []byte(value)
		err = checkSpace(secret)
		warning = warnOfQuotes("environment variable "+s.text, secret)
	}
	if err == nil && bytes.ContainsAny(secret, "\r\n") {
		err = errors.New("the secret has more than one line")
	}
	return secret, warning, err
}

// ReadSecretFile reads a file with a secret and an optional line end. It returns an
// error if the file contains characters that an editor may have added invisibly, since
// both sides need the same bytes. Errors and warnings about access to the file are those
// of ReadPrivateFile; quotes around the secret cause a warning, too.
func ReadSecretFile(path string) (secret []byte, warning string, err error) {
	if secret, warning, err = ReadPrivateFile(path, maxSecretFile); err != nil {
		return nil, "", err
	}
	if err := checkEncoding(secret); err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	secret = bytes.TrimSuffix(bytes.TrimSuffix(secret, []byte("\n")), []byte("\r"))
	if err := checkSpace(secret); err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	if quotes := warnOfQuotes(path, secret); quotes != "" && warning != "" {
		warning += "; " + quotes
	} else {
		warning += quotes
	}
	return secret, warning, nil
}

// warnOfQuotes returns a warning for a secret in quotes, which YAML and the shell would
// remove. It is not an error, because the initiator may have them too.
func warnOfQuotes(where string, secret []byte) string {
	if n := len(secret); n < 2 || secret[0] != secret[n-1] || secret[0] != '"' && secret[0] != '\'' {
		return ""
	}
	return where + ": the quotes around the secret are part of it; remove them unless the other side's secret has them too"
}

// byteOrderMarks are the prefixes that some editors write.
var byteOrderMarks = []struct{ name, bytes string }{
	{"UTF-8", "\xEF\xBB\xBF"}, {"UTF-16", "\xFF\xFE"}, {"UTF-16", "\xFE\xFF"},
}

// checkEncoding refuses text that is not in a single-byte encoding or UTF-8 without a
// mark. An error does not contain the secret.
func checkEncoding(secret []byte) error {
	for _, mark := range byteOrderMarks {
		if bytes.HasPrefix(secret, []byte(mark.bytes)) {
			return fmt.Errorf("starts with a byte order mark (%s); save it as plain text without one", mark.name)
		}
	}
	if bytes.IndexByte(secret, 0) >= 0 {
		return errors.New("contains zero bytes, as text in UTF-16 does; save it as plain text")
	}
	return nil
}

// checkSpace refuses leading and trailing white space, which is invisible.
func checkSpace(secret []byte) error {
	text := bytes.TrimRight(secret, "\r\n") // Read reports more than one line
	switch trimmed := bytes.TrimFunc(text, unicode.IsSpace); {
	case len(trimmed) == len(text):
		return nil
	case len(trimmed) == 0:
		return errors.New("the secret is only white space")
	case bytes.HasPrefix(text, trimmed):
		return errors.New("the secret ends with white space; remove it")
	default:
		return errors.New("the secret starts with white space; remove it")
	}
}

// protect returns the commands that restrict access to a file but let the given user,
// the server's, read it.
func protect(info fs.FileInfo, uid int, gids []int) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || uid == 0 || int(st.Uid) == uid:
		return "restrict it with chmod 600"
	case slices.Contains(gids, int(st.Gid)):
		return "restrict it with chmod 640"
	default:
		return fmt.Sprintf("restrict it with chown %s and chmod 600", userName(uid))
	}
}

// groups returns the groups of the process.
func groups() []int {
	all, err := os.Getgroups()
	if err != nil {
		all = nil
	}
	return append(all, os.Getegid())
}

// userName returns the name of a user, or the number if it has no name.
func userName(uid int) string {
	number := strconv.Itoa(uid)
	if u, err := user.LookupId(number); err == nil {
		return u.Username
	}
	return number
}
