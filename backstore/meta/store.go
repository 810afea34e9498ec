package meta

import "slices"

// Store stores the next checkpoint: rows calls put with each changed row, keys
// ascending; a nil Value deletes a row. When Store returns nil, the checkpoint is
// durable. It is atomic. After an error it may exist or not, so the next checkpoint
// must include all its rows. expect is the approximate number of bytes: a checkpoint
// that is large compared with all rows is stored as one run with them.
func (db *DB) Store(expect int64, rows func(put func(Op) error) error) error {
	db.storing.Lock()
	defer db.storing.Unlock()
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return ErrClosed
	}
	runs := slices.Clone(db.current.runs)
	id := runID{db.current.last() + 1, max(db.next, db.current.last()+1)}
	// Numbers are not reused, so that two files of one name are equal.
	db.next = id.to + 1
	db.mu.Unlock()
	if db.full(runs) {
		db.merging.Lock()
		defer db.merging.Unlock()
		db.mu.Lock()
		runs = slices.Clone(db.current.runs)
		db.mu.Unlock()
		return db.storeFull(runs, id.to, rows)
	}
	// Store does not wait for a background merge.
	if db.merging.TryLock() {
		defer db.merging.Unlock()
		if db.folds(runs, expect) {
			return db.fold(runs, id.to, rows)
		}
	}
	r, err := db.write(id, db.o.Copies, func(put func(key, sealed []byte) error) error { return rows(sealing(put)) })
	if err != nil {
		return err
	}
	db.stats.checkpoints.Add(r.size * int64(len(r.copies)))
	db.install(func(runs []*run) []*run { return append(runs, r) })
	return nil
}

// sealing returns a function that seals rows and puts them.
func sealing(put func(key, sealed []byte) error) func(Op) error {
	var buf []byte
	return func(op Op) error {
		if op.Value == nil {
			return put(op.Key, nil)
		}
		buf = appendSealed(buf[:0], op.Key, op.Value)
		return put(op.Key, buf)
	}
}

// write makes a run durable and opens it. rows are sealed.
func (db *DB) write(id runID, copies int, rows func(put func(key, sealed []byte) error) error) (_ *run, err error) {
	r := &run{name: db.path(id.fileName()), copies: []runCopy{{name: db.path(id.fileName())}}}
	if copies > 1 {
		r.copies = append(r.copies, runCopy{name: r.name + copySuffix})
	}
	var files []output
	defer func() {
		if err != nil {
			r.close()
			db.forgetFiles(r, files)
		}
	}()
	for i := range r.copies {
		c := &r.copies[i]
		if err := db.giveUp(c.name + newSuffix); err != nil {
			return nil, err
		}
		f, err := db.create(c.name + newSuffix)
		if i > 0 && noSpace(err) {
			continue // on a full disk one copy suffices; Tidy creates the other when there is space
		}
		if err != nil {
			return nil, err
		}
		c.file = f.File
		files = append(files, f)
	}
	w := newRunWriter(files, db.o.StoreID, id)
	if err := rows(w.put); err != nil {
		return nil, err
	}
	if r.layout, r.index, err = w.finish(); err != nil {
		return nil, err
	}
	if r.tables, err = decodeIndex(r.index, blockLength, r.tablesEnd); err != nil {
		return nil, err
	}
	for i := range r.copies {
		if r.copies[i].file == nil {
			continue
		}
		r.copies[i].kept, r.copies[i].length = files[i].kept, w.lengths[i] // of two, only the second can be missing
		if err := db.o.FS.Rename(r.copies[i].name+newSuffix, r.copies[i].name); err != nil {
			return nil, err
		}
	}
	return r, db.o.FS.SyncDir(db.o.Dir)
}

// forgetFiles removes the files of a run that could not be written, to free their
// space. files are those written to.
func (db *DB) forgetFiles(r *run, files []output) {
	for i, c := range r.copies {
		remove := db.remove
		if i < len(files) && files[i].kept {
			remove = db.giveUp
		}
		for _, name := range []string{c.name + newSuffix, c.name} {
			db.noteError(name, remove(name))
		}
	}
}
