package facts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"odx/conf"
)

// The rows of the object. What follows a prefix is the name of a node, or the number of a shard.
const (
	poolKey          = "pool"
	configurationKey = "configuration"
	nodePrefix       = "node/"
	ownerPrefix      = "owner/"
	movePrefix       = "move/"
	drainPrefix      = "drain/"
)

// maxRow bounds a row, and maxRows their number.
const maxRow, maxRows = 64 << 10, 1024

// encode returns the rows of facts.
func (f *Facts) encode() (map[string][]byte, error) {
	rows := map[string][]byte{}
	put := func(key string, v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("fact %s: %w", key, err)
		}
		rows[key] = text
		return nil
	}
	if err := put(poolKey, f.pool); err != nil {
		return nil, err
	}
	if err := put(configurationKey, f.Configuration); err != nil {
		return nil, err
	}
	for name, n := range f.Nodes {
		if err := put(nodePrefix+name, n); err != nil {
			return nil, err
		}
	}
	for k, o := range f.Owners {
		if err := put(ownerPrefix+strconv.Itoa(k), o); err != nil {
			return nil, err
		}
	}
	for k, m := range f.Moves {
		if err := put(movePrefix+strconv.Itoa(k), m); err != nil {
			return nil, err
		}
	}
	for name, d := range f.Drains {
		if err := put(drainPrefix+name, d); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// decode reads the rows of the object. A row that this version does not know is an error: what it
// says could matter.
func decode(rows map[string][]byte, change uint64) (*Facts, error) {
	f := &Facts{change: change, Nodes: map[string]Node{}, Owners: map[int]Owner{}, Moves: map[int]Move{}, Drains: map[string]Drain{}}
	if len(rows) > maxRows {
		return nil, fmt.Errorf("facts of a pool: %d rows; at most %d are known", len(rows), maxRows)
	}
	if err := read(poolKey, rows[poolKey], &f.pool); err != nil {
		return nil, err
	}
	switch p := &f.pool; {
	case p.Version != version:
		return nil, fmt.Errorf("facts of a pool: version %d, not %d: another version of odx has made them", p.Version, version)
	case p.Shards < 1 || p.Shards > conf.MaxShards || len(p.Secret) != secretBytes:
		return nil, fmt.Errorf("facts of a pool: %d shards, secret of %d bytes", p.Shards, len(p.Secret))
	}
	for key, text := range rows {
		if err := f.decodeRow(key, text); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// decodeRow reads one row.
func (f *Facts) decodeRow(key string, text []byte) error {
	kind, name, named := strings.Cut(key, "/")
	shard, notNumber := strconv.Atoi(name)
	isShard := notNumber == nil && shard >= 0 && shard < f.pool.Shards && strconv.Itoa(shard) == name
	switch {
	case key == poolKey:
		return nil
	case key == configurationKey:
		return read(key, text, &f.Configuration)
	case kind+"/" == nodePrefix && conf.IsNodeName(name):
		return readInto(key, text, f.Nodes, name)
	case kind+"/" == drainPrefix && conf.IsNodeName(name):
		return readInto(key, text, f.Drains, name)
	case kind+"/" == ownerPrefix && isShard:
		return readInto(key, text, f.Owners, shard)
	case kind+"/" == movePrefix && isShard:
		return readInto(key, text, f.Moves, shard)
	}
	return fmt.Errorf("facts of a pool: unknown row %.100q (named: %t)", key, named)
}

// readInto reads a row into a map.
func readInto[K comparable, V any](key string, text []byte, to map[K]V, at K) error {
	var v V
	if err := read(key, text, &v); err != nil {
		return err
	}
	to[at] = v
	return nil
}

// read reads a row, which has no fields that are not known.
func read(key string, text []byte, v any) error {
	if len(text) == 0 || len(text) > maxRow {
		return fmt.Errorf("facts of a pool: row %.100q of %d bytes", key, len(text))
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("facts of a pool: row %.100q: %w", key, err)
	}
	if d.More() {
		return fmt.Errorf("facts of a pool: row %.100q: more than one value", key)
	}
	return nil
}
