package stream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// An encrypted stream is a file of age (age-encryption.org/v1) that has a stream: what age
// decrypts it to is the stream. It hides the header, too.

// sealed begins a file of age.
const sealed = "age-encryption.org/"

// Recipients returns what a text has: a recipient of age (age1…) in a line. Empty lines and
// those that begin with # do not count.
func Recipients(text []byte) ([]age.Recipient, error) {
	return age.ParseRecipients(bytes.NewReader(text))
}

// Identities returns what a text has: an identity of age (AGE-SECRET-KEY-…) in a line. Empty
// lines and those that begin with # do not count. Errors do not contain the text.
func Identities(text []byte) ([]age.Identity, error) {
	ids, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return nil, errors.New("not a file of identities of age, as age-keygen makes it")
	}
	return ids, nil
}

// Seal returns a writer that encrypts to recipients and writes to w. Its Close writes what
// is left; it does not close w.
func Seal(w io.Writer, to []age.Recipient) (io.WriteCloser, error) {
	return age.Encrypt(w, to...)
}

// Open returns the stream in r, decrypted by one of the identities if it is encrypted.
// ErrSealed: it is encrypted, and none of the identities can decrypt it.
func Open(r io.Reader, ids []age.Identity) (io.Reader, error) {
	src := &source{r: r}
	b := bufio.NewReaderSize(src, 64<<10)
	head, err := b.Peek(len(armor.Header))
	if err != nil && err != io.EOF {
		return nil, endedAt(0, err)
	}
	switch {
	case bytes.HasPrefix(head, []byte(armor.Header)):
		return nil, fmt.Errorf("%w: it is in the text form of age; decrypt it with age -d first", ErrFormat)
	case !bytes.HasPrefix(head, []byte(sealed)):
		return b, nil
	case len(ids) == 0:
		return nil, fmt.Errorf("%w: an identity of one of its recipients is needed", ErrSealed)
	}
	plain, err := age.Decrypt(b, ids...)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none):
		return nil, fmt.Errorf("%w: to none of the identities", ErrSealed)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w: it ends in its encrypted beginning", ErrTruncated)
	case src.err != nil:
		return nil, endedAt(0, src.err)
	case err != nil:
		return nil, fmt.Errorf("%w: decrypt it: %w", ErrDamaged, err)
	}
	return opened{src, plain}, nil
}

// source keeps the error of a reader, io.EOF apart.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// opened turns the errors of decryption into those of a Reader, and leaves those of the
// source.
type opened struct {
	src   *source
	plain io.Reader
}

func (o opened) Read(p []byte) (int, error) {
	n, err := o.plain.Read(p)
	switch {
	case err == nil || err == io.EOF:
	case o.src.err != nil:
		err = o.src.err
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("%w: its encryption ends too early", ErrTruncated)
	default:
		err = fmt.Errorf("%w: decrypt it: %w", ErrDamaged, err)
	}
	return n, err
}
