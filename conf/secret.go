package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
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
		warning = "the secret stands in the configuration; whoever reads that has it: secret_file keeps it in a file of its own"
	case secretFile:
		secret, warning, err = readSecretFile(s.text)
	case secretEnv:
		value, ok := os.LookupEnv(s.text)
		if !ok {
			return nil, "", fmt.Errorf("the environment variable %s is not set", s.text)
		}
		secret = []byte(value)
	}
	if err == nil && bytes.ContainsAny(secret, "\r\n") {
		err = errors.New("the secret has more than one line")
	}
	return secret, warning, err
}

// readSecretFile reads a file that holds a secret and perhaps the end of its
// line. Who may read the file is the administrator's affair, and deserves a
// warning where it is everyone (containers are given such files); who can change
// it can let himself in.
func readSecretFile(path string) (secret []byte, warning string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", err
	}
	if !info.Mode().IsRegular() {
		return nil, "", fmt.Errorf("%s is not a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	switch mode := info.Mode().Perm(); {
	case mode&0o002 != 0:
		return nil, "", fmt.Errorf("everyone on this machine can change %s (mode %#o); chmod 600 it", path, mode)
	case mode&0o004 != 0:
		warning = fmt.Sprintf("everyone on this machine can read %s (mode %#o); chmod 600 it", path, mode)
	}
	secret, err = io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return nil, "", err
	}
	if len(secret) > maxSecretFile {
		return nil, "", fmt.Errorf("%s is larger than %d bytes; is it a secret?", path, maxSecretFile)
	}
	secret = bytes.TrimSuffix(secret, []byte("\n"))
	return bytes.TrimSuffix(secret, []byte("\r")), warning, nil
}
