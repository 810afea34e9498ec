package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Authority signs the certificates of servers.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Validity is when a certificate is valid.
type Validity int

// The validities.
const (
	Valid Validity = iota
	Expired
	NotYet
)

// span returns from when and until when a certificate is valid.
func (v Validity) span(now time.Time) (from, until time.Time) {
	switch v {
	case Expired:
		return now.Add(-48 * time.Hour), now.Add(-24 * time.Hour)
	case NotYet:
		return now.Add(24 * time.Hour), now.Add(48 * time.Hour)
	}
	return now.Add(-24 * time.Hour), now.Add(24 * time.Hour)
}

// NewAuthority makes an authority whose certificate is in a directory.
func NewAuthority(dir string) (*Authority, error) {
	a := &Authority{dir: dir}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	from, until := Valid.span(time.Now())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return a, writePEM(a.File(), "CERTIFICATE", der)
}

// File is the PEM file with the authority's certificate.
func (a *Authority) File() string { return filepath.Join(a.dir, "authority.pem") }

// issue writes a certificate for addresses and its key to files.
func (a *Authority) issue(certificate, key string, v Validity, name string, addresses ...net.IP) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return err
	}
	from, until := v.span(time.Now())
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until, IPAddresses: addresses,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, private.Public(), a.key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	if err := writePEM(certificate, "CERTIFICATE", der); err != nil {
		return err
	}
	return writePEM(key, "PRIVATE KEY", secret)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

func (s *Server) certificate() string { return filepath.Join(s.cluster.Dir, s.Name+".pem") }
func (s *Server) key() string         { return filepath.Join(s.cluster.Dir, s.Name+".key") }

// Certify gives the server another certificate; one that runs takes it with its next reload.
func (s *Server) Certify(v Validity) error {
	return s.cluster.CA.issue(s.certificate(), s.key(), v, s.Name, s.Host.Address.AsSlice(), s.Host.Control.AsSlice())
}
