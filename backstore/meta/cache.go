package meta

import (
	"container/list"
	"sync"
)

// tableCache caches the rows of the most recently used tables.
type tableCache struct {
	limit int64 // bytes

	mu    sync.Mutex // guards the fields below
	bytes int64
	byKey map[tableKey]*list.Element // of *cachedTable
	used  list.List                  // most recently used first
}

type tableKey struct {
	run *run
	at  int
}

type cachedTable struct {
	tableKey
	rows  []row
	bytes int64
}

func newTableCache(limit int64) *tableCache {
	return &tableCache{limit: limit, byKey: make(map[tableKey]*list.Element)}
}

func (c *tableCache) get(k tableKey) ([]row, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[k]
	if e == nil {
		return nil, false
	}
	c.used.MoveToFront(e)
	return e.Value.(*cachedTable).rows, true
}

func (c *tableCache) put(k tableKey, rows []row) {
	t := &cachedTable{tableKey: k, rows: rows, bytes: 256 + int64(k.run.tables[k.at].length)}
	for _, r := range rows {
		t.bytes += int64(len(r.key)) + 64
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey[k] != nil {
		return
	}
	c.byKey[k] = c.used.PushFront(t)
	for c.bytes += t.bytes; c.bytes > c.limit && c.used.Len() > 1; {
		c.remove(c.used.Back())
	}
}

func (c *tableCache) remove(e *list.Element) {
	t := c.used.Remove(e).(*cachedTable)
	delete(c.byKey, t.tableKey)
	c.bytes -= t.bytes
}

// forget drops the tables of a run.
func (c *tableCache) forget(r *run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at := range r.tables {
		if e := c.byKey[tableKey{r, at}]; e != nil {
			c.remove(e)
		}
	}
}
