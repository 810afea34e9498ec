package api

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"

	"odx/internal/kit/must"
)

// countedWrites is a connection that counts its writes, and fails those past a number.
type countedWrites struct {
	net.Conn
	n, most int
}

var errTooMany = errors.New("one write too many")

// Write implements net.Conn.
func (c *countedWrites) Write(p []byte) (int, error) {
	if c.n++; c.n > c.most {
		return 0, errTooMany
	}
	return c.Conn.Write(p)
}

// TestEncrypted_Write: a long answer comes as it is, in few writes; where one of them fails, the
// answer does.
func TestEncrypted_Write(t *testing.T) {
	certificate, key := selfSigned(t)
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	must.Succeed(t, err)
	want := bytes.Repeat([]byte("0123456789abcde"), 70_000) // ends within a record and a piece
	for _, tt := range []struct {
		name string
		most int
		want error
	}{
		{"whole", 100, nil},
		{"the first write fails", 0, errTooMany},
		{"a later write fails", 3, errTooMany},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must.Succeed(t, err)
			defer l.Close()
			got := make(chan []byte, 1)
			go func() {
				c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
				if err != nil {
					got <- []byte(err.Error())
					return
				}
				p, _ := io.ReadAll(c)
				got <- p
			}()
			c, err := l.Accept()
			must.Succeed(t, err)
			below := &countedWrites{Conn: c, most: 100}
			e := encrypt(below, &tls.Config{Certificates: []tls.Certificate{pair}})
			_, err = e.Write([]byte("short;")) // after the handshake, and its first records are short
			must.Succeed(t, err)
			_, err = e.Write(want[:256<<10])
			must.Succeed(t, err)
			below.n, below.most = 0, tt.most
			if _, err = e.Write(want); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if n := len(want)/gatherBytes + 2; below.n > n {
				t.Errorf("%d writes, want at most %d", below.n, n)
			}
			below.most = 100
			_, _ = e.Close(), c.Close()
			p := <-got
			if full := append([]byte("short;"), append(bytes.Clone(want[:256<<10]), want...)...); tt.want == nil && !bytes.Equal(p, full) {
				t.Errorf("%d bytes came, want %d", len(p), len(full))
			} else if !bytes.HasPrefix(full, p) {
				t.Errorf("what came is no beginning of what was written")
			}
		})
	}
}
