package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"unicode"
)

// maxSecretFile bounds a file with a secret, in bytes.
const maxSecretFile = 1024

// Secret is where a secret is to be found. It is read when the configuration is
// put to use, so that other commands need not be allowed to.
type Secret struct {
	source secretSource
	text   string // the secret, the path of its file, or the name of its variable
	// Key is where the secret stands in the file, for example
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

// Read returns the secret, and a warning if it is kept where it may be seen. No
// error shows the secret.
func (s Secret) Read() (secret []byte, warning string, err error) {
	switch s.source {
	case secretInline:
		secret = []byte(s.text)
		warning = "the secret stands in the configuration, whose readers know it: secret_file keeps it in a file of its own"
	case secretFile:
		secret, warning, err = ReadSecretFile(s.text)
	case secretEnv:
		value, ok := os.LookupEnv(s.text)
		if !ok {
			return nil, "", fmt.Errorf("the environment variable %s is not set", s.text)
		}
		secret = []byte(value)
		err = checkBlanks(secret)
	}
	if err == nil && bytes.ContainsAny(secret, "\r\n") {
		err = errors.New("the secret has more than one line")
	}
	return secret, warning, err
}

// ReadSecretFile reads a file that holds a secret and perhaps the end of its
// line, and returns what is to be warned of. What an editor may have left in it
// without showing it is an error: both ends have to have the same bytes. Who may read
// the file is the administrator's affair, and deserves a warning where it is everyone
// (containers are given such files); who can change it can let himself in.
func ReadSecretFile(path string) (secret []byte, warning string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", err
	}
	if !info.Mode().IsRegular() {
		return nil, "", fmt.Errorf("%s is not a file", path)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, "", fmt.Errorf("%w; the server's user is %s: %s", err, userName(os.Geteuid()), protect(info, os.Geteuid(), groups()))
	}
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	hint := protect(info, os.Geteuid(), groups())
	switch mode := info.Mode().Perm(); {
	case mode&0o002 != 0:
		return nil, "", fmt.Errorf("everyone on this machine can change %s (mode %#o); %s", path, mode, hint)
	case mode&0o004 != 0:
		warning = fmt.Sprintf("everyone on this machine can read %s (mode %#o); %s", path, mode, hint)
	}
	secret, err = io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return nil, "", err
	}
	if len(secret) > maxSecretFile {
		return nil, "", fmt.Errorf("%s is larger than %d bytes; is it a secret?", path, maxSecretFile)
	}
	if err := checkEncoding(secret); err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	secret = bytes.TrimSuffix(bytes.TrimSuffix(secret, []byte("\n")), []byte("\r"))
	if err := checkBlanks(secret); err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	return secret, warning, nil
}

// byteOrderMarks are what some editors write before a text.
var byteOrderMarks = []struct{ name, bytes string }{
	{"UTF-8", "\xEF\xBB\xBF"}, {"UTF-16", "\xFF\xFE"}, {"UTF-16", "\xFE\xFF"},
}

// checkEncoding refuses a text that is not only the bytes of a secret. It does not
// show the secret.
func checkEncoding(secret []byte) error {
	for _, mark := range byteOrderMarks {
		if bytes.HasPrefix(secret, []byte(mark.bytes)) {
			return fmt.Errorf("it begins with a byte order mark (%s); save it as plain text without one", mark.name)
		}
	}
	if bytes.IndexByte(secret, 0) >= 0 {
		return errors.New("it has bytes of zero, as a text in UTF-16 does; save it as plain text")
	}
	return nil
}

// checkBlanks refuses blanks that cannot be seen.
func checkBlanks(secret []byte) error {
	text := bytes.TrimRight(secret, "\r\n") // more than one line is another mistake
	switch trimmed := bytes.TrimFunc(text, unicode.IsSpace); {
	case len(trimmed) == len(text):
		return nil
	case len(trimmed) == 0:
		return errors.New("the secret is nothing but blanks")
	case bytes.HasPrefix(text, trimmed):
		return errors.New("the secret ends with a blank, which would be a part of it; take it away")
	default:
		return errors.New("the secret begins with a blank, which would be a part of it; take it away")
	}
}

// protect says how a file is kept from others so that a user, the server's, still can
// read it.
func protect(info fs.FileInfo, uid int, gids []int) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || uid == 0 || int(st.Uid) == uid:
		return "chmod 600 it"
	case slices.Contains(gids, int(st.Gid)):
		return "chmod 640 it"
	default:
		return fmt.Sprintf("chown %s it, and chmod 600", userName(uid))
	}
}

// groups returns those of the process.
func groups() []int {
	all, err := os.Getgroups()
	if err != nil {
		all = nil
	}
	return append(all, os.Getegid())
}

// userName returns the name of a user, or the number where it has none.
func userName(uid int) string {
	number := strconv.Itoa(uid)
	if u, err := user.LookupId(number); err == nil {
		return u.Username
	}
	return number
}
