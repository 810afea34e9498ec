package facts

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"
)

// Certificates of shards do not end: with the secret of a pool all of them would be others.
var (
	certificateFrom = time.Date(2020, time.January, 1, 0, 0, 0, 0, time.UTC)
	certificateTo   = time.Date(2120, time.January, 1, 0, 0, 0, 0, time.UTC)
)

// Certificate returns, as PEM, a certificate for the server of a shard at some addresses, and its
// private key. Both follow from the secret of the pool, so that all nodes have the same ones: with
// them the servers of shards know each other.
func (f *Facts) Certificate(shard int, addresses []netip.Addr) (certificate, key []byte, err error) {
	seed, err := f.Key(fmt.Sprintf("certificate of shard %d", shard))
	if err != nil {
		return nil, nil, err
	}
	private := ed25519.NewKeyFromSeed(seed)
	t := x509.Certificate{
		SerialNumber: big.NewInt(int64(shard) + 1), Subject: pkix.Name{CommonName: fmt.Sprintf("odx shard %d", shard)},
		NotBefore: certificateFrom, NotAfter: certificateTo, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, a := range addresses {
		t.IPAddresses = append(t.IPAddresses, net.IP(a.AsSlice()))
	}
	der, err := x509.CreateCertificate(nil, &t, &t, private.Public(), private) // Ed25519 needs no random numbers
	if err != nil {
		return nil, nil, fmt.Errorf("certificate of shard %d: %w", shard, err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("key of shard %d: %w", shard, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text}), nil
}
