package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"odx/conf"
	"odx/pool/facts"
	"odx/pool/shardserver"
)

// peerFile is the path of a file by which servers of shards know each other; kind is pem or key.
func peerFile(whole *conf.Config, shard int, kind string) string {
	return filepath.Join(whole.Pool.RunDir, "peers", fmt.Sprintf("shard-%d.%s", shard, kind))
}

// writePeers writes the certificates of all shards, which follow from the secret of the pool, to
// the directory of the node.
func writePeers(cfg *conf.Config, f *facts.Facts) error {
	var addresses []netip.Addr
	for _, n := range cfg.Pool.Nodes {
		addresses = append(addresses, n.Address)
	}
	if err := os.MkdirAll(filepath.Dir(peerFile(cfg, 0, "pem")), 0o700); err != nil {
		return err
	}
	for k := range cfg.Pool.Shards {
		certificate, key, err := f.Certificate(k, addresses)
		if err != nil {
			return err
		}
		if err := errors.Join(writePrivate(peerFile(cfg, k, "pem"), certificate), writePrivate(peerFile(cfg, k, "key"), key)); err != nil {
			return err
		}
	}
	return nil
}

// writePrivate has a file have a content, as a whole or not at all.
func writePrivate(path string, content []byte) error {
	if now, err := os.ReadFile(path); err == nil && bytes.Equal(now, content) {
		return nil
	}
	next := path + ".new"
	if err := errors.Join(os.WriteFile(next, content, 0o600), os.Chmod(next, 0o600)); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// storesOf returns the IDs of the stores of all shards, "" for one that no node has served yet.
func storesOf(f *facts.Facts) []string {
	stores := make([]string, f.Shards())
	for k, o := range f.Owners {
		stores[k] = o.Store
	}
	return stores
}

// addPeers makes the other shards of a pool peers of a server, if nodes serve the API at their
// addresses. Of the addresses of a shard, one at each node, that of its owner answers.
func addPeers(cfg *conf.Config, plan shardserver.Plan) {
	whole, ok := cfg.Whole()
	if !ok {
		return
	}
	host, _, err := net.SplitHostPort(whole.API.Listen)
	if a, aErr := netip.ParseAddr(host); err != nil || aErr != nil || !a.IsUnspecified() {
		return
	}
	ca := func(int) string { return "" } // what the machine trusts
	if whole.API.Certificate == "" {
		cfg.API.Certificate, cfg.API.PrivateKey = peerFile(whole, plan.Shard, "pem"), peerFile(whole, plan.Shard, "key")
		ca = func(k int) string { return peerFile(whole, k, "pem") }
	}
	peers := slices.Clone(cfg.Peers)
	for k, text := range plan.Stores {
		p := conf.Peer{
			Name: fmt.Sprintf("shard-%d", k), CA: ca(k), Accept: peerFile(whole, k, "pem"),
			Certificate: peerFile(whole, plan.Shard, "pem"), PrivateKey: peerFile(whole, plan.Shard, "key"), Key: "ceph.shards",
		}
		id, err := hex.DecodeString(text)
		if k == plan.Shard || err != nil || len(id) != len(p.Store) {
			continue
		}
		copy(p.Store[:], id)
		if slices.ContainsFunc(peers, func(o conf.Peer) bool { return o.Name == p.Name || o.Store == p.Store }) {
			continue // the configuration says otherwise
		}
		for _, n := range whole.Pool.Nodes {
			p.Addresses = append(p.Addresses, "https://"+whole.ShardAPI(n, k))
		}
		peers = append(peers, p)
	}
	cfg.Peers = peers
}
