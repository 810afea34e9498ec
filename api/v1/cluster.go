package v1

import "time"

// ClusterStatus is what odx cluster status prints: Health is "healthy" or "degraded", with why in
// Problems.
type ClusterStatus struct {
	Health        string               `json:"health"`
	Problems      []string             `json:"problems"`
	Pool          string               `json:"pool"`
	Nodes         []ClusterNode        `json:"nodes"`
	Shards        []ClusterShard       `json:"shards"`
	Configuration ClusterConfiguration `json:"configuration"`
}

// ClusterNode is a node of a pool, in the order of their rank. Behind: it does not have the
// configuration that counts, and takes no shards.
type ClusterNode struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Present bool   `json:"present"`
	Drained bool   `json:"drained"`
	Behind  bool   `json:"behind"`
	Shards  int    `json:"shards"`
	// Started is when its process began; nil where none ever has.
	Started *time.Time `json:"started,omitempty"`
}

// ClusterShard is a shard of a pool. Node is empty where no node serves it; Epoch, Store and Since
// are of the last one that has. MovesTo is where an administrator moves it.
type ClusterShard struct {
	Shard   int        `json:"shard"`
	Node    string     `json:"node,omitempty"`
	Epoch   uint64     `json:"epoch,omitempty"`
	Since   *time.Time `json:"since,omitempty"`
	Store   string     `json:"store,omitempty"`
	Portal  string     `json:"portal,omitempty"`
	API     string     `json:"api,omitempty"`
	MovesTo string     `json:"moves_to,omitempty"`
	Targets []string   `json:"targets"`
}

// ClusterConfiguration is the configuration that counts in a pool. Differs are the keys of the file
// of this machine that differ from it.
type ClusterConfiguration struct {
	Generation uint64    `json:"generation"`
	Node       string    `json:"node"`
	At         time.Time `json:"at"`
	Differs    []string  `json:"differs"`
}

// ClusterMoves is what commands print that move shards: where each is then, by its number.
type ClusterMoves struct {
	Moved map[int]string `json:"moved"`
}
