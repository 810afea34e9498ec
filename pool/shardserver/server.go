// Package shardserver has a process for each shard of a pool on a node, so that what ends one does not
// touch the others. The process of the node starts them, starts those again that end, and talks with
// each over a socket pair: it sends the configuration and whether the shard may be claimed, and is
// sent by which epoch it is served. A process that ends takes those that it has started with it.
package shardserver

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Flag is the flag by which a program is started as the server of a shard.
const Flag = "shard-server"

// linkFD is the descriptor of the socket pair in the server: the first after standard error.
const linkFD = 3

// maxMessage bounds a message, in bytes: a configuration has 1 MiB at most.
const maxMessage = 4 << 20

// version is that of the messages. The program can be replaced while the process of the node runs.
const version = 3

// Plan is what a server is to serve.
type Plan struct {
	Version int `json:"version"` // set when it is sent
	// Line is the line of the server (rados.Line), set when it is sent: its number is larger than those
	// of all that this node had for the shard before, each of which has ended.
	Line string `json:"line"`
	// Path is that of the configuration of the node, Text its contents.
	Path string `json:"path"`
	Text []byte `json:"text"`
	// Node is the name of the node.
	Node  string `json:"node"`
	Shard int    `json:"shard"`
	// Stores are the IDs of the stores of all shards, "" for one that is not known yet.
	Stores []string `json:"stores"`
}

// order is what a server is sent. Plan or May is set.
type order struct {
	Plan *Plan `json:"plan,omitempty"`
	// Reload: the plan is to be served now. It is no signal, which could come before the plan.
	Reload bool `json:"reload,omitempty"`
	May    *may `json:"may,omitempty"`
}

// may says whether a shard may be claimed; see node.Servers.
type may struct {
	Claim bool          `json:"claim"`
	After time.Duration `json:"after"` // nanoseconds
}

// report is what a server sends. One of the fields is set.
type report struct {
	// Begins: it has begun, or begun again, and needs all orders.
	Begins bool `json:"begins,omitempty"`
	// Serves: it serves the shard.
	Serves *serves `json:"serves,omitempty"`
	// Changed: it has changed the configuration file.
	Changed bool `json:"changed,omitempty"`
	// Refuses: it goes on by another plan than that of the last reload, for this reason; "": it does not.
	Refuses *string `json:"refuses,omitempty"`
}

type serves struct {
	Epoch uint64 `json:"epoch"`
	Store string `json:"store"`
}

// receive reads messages of a connection and calls each with them until it ends or one is wrong.
func receive[M any](conn io.Reader, each func(*M)) error {
	limited := &io.LimitedReader{R: conn}
	d := json.NewDecoder(limited)
	d.DisallowUnknownFields()
	for {
		limited.N = maxMessage
		var m M
		if err := d.Decode(&m); err != nil {
			return fmt.Errorf("message between node and server: %w", err)
		}
		each(&m)
	}
}
