package backstore

// createVolumeRecord makes a volume or a file.
//
// Layout: kind, its row.
type createVolumeRecord struct{ row volumeRow }

func (r *createVolumeRecord) encode() (head, data []byte) {
	var e enc
	e.byte(recCreateVolume)
	e.raw(r.row.encode())
	return e.b, nil
}

func (r *createVolumeRecord) decode(d *dec) { r.row = d.volumeRow() }

func (r *createVolumeRecord) apply(s *Store) error {
	s.enter(s.volumeOf(&r.row))
	return nil
}

// enter puts a volume that a record made into the tables.
func (s *Store) enter(v *Volume) {
	s.volumes[v.number], s.byName[v.key()] = v, v
	s.lastVolume = max(s.lastVolume, v.number)
}

// deleteVolumeRecord deletes a volume or a file.
//
// Layout: kind, uvarint volume.
type deleteVolumeRecord struct{ volume uint64 }

func (r *deleteVolumeRecord) encode() (head, data []byte) {
	return numbers(recDeleteVolume, r.volume), nil
}

func (r *deleteVolumeRecord) decode(d *dec) { r.volume = d.uint() }

func (r *deleteVolumeRecord) apply(s *Store) error {
	v, err := s.volumeNumber(r.volume)
	if err != nil {
		return err
	}
	return s.removeVolume(v)
}

// resizeVolumeRecord sets the size of a volume or a file.
//
// Layout: kind, uvarint volume, bytes.
type resizeVolumeRecord struct {
	volume uint64
	size   int64
}

func (r *resizeVolumeRecord) encode() (head, data []byte) {
	return numbers(recResizeVolume, r.volume, uint64(r.size)), nil
}

func (r *resizeVolumeRecord) decode(d *dec) { r.volume, r.size = d.uint(), d.int63() }

func (r *resizeVolumeRecord) apply(s *Store) error {
	v, err := s.volumeNumber(r.volume)
	if err != nil {
		return err
	}
	if err := v.checkNewSize(r.size); err != nil {
		return err
	}
	return v.resize(r.size)
}

// cloneVolumeRecord makes a volume or a file that shares the tree of another.
//
// Layout: kind, uvarint volume, uvarint new volume, its id (16 bytes), name,
// flags, uvarint time of creation.
type cloneVolumeRecord struct {
	from, number uint64
	id           [16]byte
	name         string
	flags        byte
	created      int64
}

func (r *cloneVolumeRecord) encode() (head, data []byte) {
	var e enc
	e.byte(recCloneVolume)
	e.uint(r.from)
	e.uint(r.number)
	e.raw(r.id[:])
	e.bytes([]byte(r.name))
	e.byte(r.flags)
	e.uint(uint64(r.created))
	return e.b, nil
}

func (r *cloneVolumeRecord) decode(d *dec) {
	r.from, r.number, r.id = d.uint(), d.uint(), d.id16()
	r.name, r.flags, r.created = string(d.bytes()), d.byte(), d.int63()
}

func (r *cloneVolumeRecord) apply(s *Store) error {
	from, err := s.volumeNumber(r.from)
	if err != nil {
		return err
	}
	v := s.newVolume(r.name)
	v.number, v.id, v.created = r.number, r.id, r.created
	v.setFlags(r.flags)
	if err := s.shareTree(from, v); err != nil {
		return err
	}
	s.enter(v)
	return nil
}

// renameFileRecord gives a file another name and deletes the file that has it.
// Stores are written with replaceFilesRecord, which can do the same.
//
// Layout: kind, uvarint file, new name.
type renameFileRecord struct {
	file uint64
	to   string
}

func (r *renameFileRecord) encode() (head, data []byte) {
	var e enc
	e.byte(recRenameFile)
	e.uint(r.file)
	e.bytes([]byte(r.to))
	return e.b, nil
}

func (r *renameFileRecord) decode(d *dec) { r.file, r.to = d.uint(), string(d.bytes()) }

func (r *renameFileRecord) apply(s *Store) error {
	again := replaceFilesRecord{file: r.file, to: r.to}
	if old := s.byName[nameKey{r.to, true}]; old != nil && old.number != r.file {
		again.gone = []uint64{old.number}
	}
	return again.apply(s)
}

// replaceFilesRecord gives a file another name and deletes files: what had the
// name is one of them.
//
// Layout: kind, uvarint file, new name, uvarint how many are deleted, uvarint
// for each.
type replaceFilesRecord struct {
	file uint64
	to   string
	gone []uint64
}

func (r *replaceFilesRecord) encode() (head, data []byte) {
	var e enc
	e.byte(recReplaceFiles)
	e.uint(r.file)
	e.bytes([]byte(r.to))
	e.uint(uint64(len(r.gone)))
	for _, number := range r.gone {
		e.uint(number)
	}
	return e.b, nil
}

func (r *replaceFilesRecord) decode(d *dec) {
	r.file, r.to = d.uint(), string(d.bytes())
	for range d.count(1) {
		r.gone = append(r.gone, d.uint())
	}
}

func (r *replaceFilesRecord) apply(s *Store) error {
	v, err := s.volumeNumber(r.file)
	if err != nil {
		return err
	}
	again := replacement{file: v, to: r.to}
	for _, number := range r.gone {
		old, err := s.volumeNumber(number)
		if err != nil {
			return err
		}
		again.gone = append(again.gone, old)
	}
	s.rename(&again)
	return s.dropAll(again.gone)
}
